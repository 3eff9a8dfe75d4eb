"""CSV, JSON, JSON Lines and Parquet files of no known system, with a field mapping.

A mapping that the user does not give is guessed from the names of the fields, and shown as the
reason why the file can be read. If several fields may be the content, the user has to choose.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    FALLBACK,
    Evidence,
    Format,
    Item,
    Memories,
    Options,
    only_file,
    unlike,
)
from tribal_mcp.interchange.csv_parquet import (
    csv_head,
    csv_rows,
    parquet_columns,
    parquet_model,
    parquet_rows,
)
from tribal_mcp.interchange.mapping import (
    EMPTY,
    FIELDS,
    Mapper,
    Rows,
    chosen,
    described,
    guess,
    items_of,
    others,
)
from tribal_mcp.interchange.own_block import NO_TEXT, OWN_BLOCK, VECTOR
from tribal_mcp.interchange.own_table import csv_text, is_own, lost_in_table, own_item, parquet_file
from tribal_mcp.interchange.reading import items, json_lines, object_of, parsed
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry

_SHOWN = 20


class Generic(Format):
    """A format whose fields are mapped by their names."""

    places: ClassVar = "any file of this kind"
    fields: ClassVar = FIELDS
    leaves_out: ClassVar = (EMPTY,)

    @abstractmethod
    def columns(self, source: Source, path: str) -> Sequence[str]:
        """The names of its fields; none if the file is of another kind."""

    @abstractmethod
    def rows(self, source: Source, path: str) -> Rows:
        """Its rows."""

    def recognise(self, source: Source) -> Evidence | None:
        """One of its fields is named like the content of a memory."""
        if source.file is None:
            return None
        columns = self.columns(source, source.file)
        if is_own(columns):
            return Evidence(CERTAIN, f"the columns of an export, with `{OWN_BLOCK}`")
        mapping = guess(columns)
        if "content" not in mapping:
            return None
        return Evidence(FALLBACK, described(mapping, others(columns, mapping)))

    def with_mapping(self, source: Source) -> Evidence | None:
        """It has fields."""
        found = self.columns(source, source.file) if source.file is not None else ()
        names = ", ".join(f"`{name:.40}`" for name in found[:_SHOWN])
        return Evidence(FALLBACK, f"{self.title} with the fields {names}") if found else None

    def read(self, source: Source, options: Options) -> Iterator[Item]:
        """Each row, with the mapping that is given, or else guessed."""
        path = only_file(source, self)
        columns = self.columns(source, path)
        if not columns:
            raise unlike(source, self)
        vectors = Vectors(source.notes)
        if is_own(columns) and not options.mapping:
            own = partial(own_item, name=self.name, vectors=vectors)
            yield from items_of(self.rows(source, path), own)
            vectors.finish()
            return
        mapping = chosen(columns, options)
        if options.mapping:
            source.notes.append(f"Read with {described(mapping)}.")
        mapper = Mapper(self.name, mapping, vectors)
        yield from items_of(self.rows(source, path), mapper.item)
        vectors.finish()


class GenericCsv(Generic):
    """One memory for each row after the header."""

    name: ClassVar = "csv"
    writes: ClassVar = "file"
    suffixes: ClassVar = (".csv",)
    written: ClassVar = (
        "a column for each field of a memory; a text that begins with `=` is written as it is, so "
        "have spreadsheet programs read all columns as text"
    )
    loses: ClassVar = (NO_TEXT, VECTOR)
    title: ClassVar = "a CSV table"
    layout: ClassVar = "UTF-8 text with a header, with a column such as content, text or note"

    def columns(self, source: Source, path: str) -> Sequence[str]:
        """The header."""
        peek = source.peek(path)
        head = csv_head(peek.text) if peek.kind == "text" else []
        return head[0] if head else ()

    def rows(self, source: Source, path: str) -> Rows:
        """The rows after the header."""
        return csv_rows(source.origin, path)

    def lost(self, entry: MemoryEntry) -> Iterator[str]:
        """The vector."""
        yield from lost_in_table(entry)
        if entry.embedding is not None and entry.content:
            yield VECTOR

    def write(self, memories: Memories) -> Iterator[bytes]:
        """A row for each memory."""
        return csv_text(memories)


class GenericJson(Generic):
    """One memory for each object of a list."""

    name: ClassVar = "json"
    title: ClassVar = "a JSON list"
    layout: ClassVar = (
        "a list of objects, or an object with one such list, with a field such as content or text"
    )

    def columns(self, source: Source, path: str) -> Sequence[str]:
        """The keys of the first objects."""
        _, found = _list_in(source, path)
        return _keys(found)

    def rows(self, source: Source, path: str) -> Rows:
        """The objects of the list."""
        place, _ = _list_in(source, path)
        return _objects(enumerate(items(source.origin, path, place), 1), "item")


class GenericJsonLines(Generic):
    """One memory for each line."""

    name: ClassVar = "jsonl"
    title: ClassVar = "a file of JSON lines"
    layout: ClassVar = "JSON objects, one a line, with a field such as content or text"

    def columns(self, source: Source, path: str) -> Sequence[str]:
        """The keys of the first lines."""
        peek = source.peek(path)
        return _keys(peek.value) if peek.kind == "lines" else ()

    def rows(self, source: Source, path: str) -> Rows:
        """The lines."""
        return _objects(json_lines(source.origin, path), "line")


class GenericParquet(Generic):
    """One memory for each row."""

    name: ClassVar = "parquet"
    writes: ClassVar = "file"
    suffixes: ClassVar = (".parquet",)
    written: ClassVar = "a column for each field of a memory, also the vector; needs pyarrow"
    loses: ClassVar = (NO_TEXT,)
    title: ClassVar = "a Parquet table"
    layout: ClassVar = "a column such as content or text"

    def columns(self, source: Source, path: str) -> Sequence[str]:
        """The columns of its schema."""
        if source.peek(path).kind != "parquet":
            return ()
        return parquet_columns(source.origin, path)

    def rows(self, source: Source, path: str) -> Rows:
        """The rows."""
        return parquet_rows(source.origin, path)

    def lost(self, entry: MemoryEntry) -> Iterator[str]:
        """Nothing but memories without text."""
        return lost_in_table(entry)

    def write(self, memories: Memories) -> Iterator[bytes]:
        """A row for each memory."""
        return parquet_file(memories)

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model that an export names."""
        named = parquet_model(source.origin, source.file) if source.file is not None else None
        with suppress(BundleError, EntryError):
            return EmbeddingMetadata.from_dict(parsed(named)) if named else None
        return None


def _list_in(source: Source, path: str) -> tuple[str, list[Any]]:
    """The place of the only list of objects in a JSON document, and its first elements."""
    value = source.peek(path).value
    if source.peek(path).kind == "array":
        return "item", value if isinstance(value, list) else []
    if source.peek(path).kind == "object":
        lists = [
            (key, found)
            for key, found in value.items()
            if isinstance(found, list) and found and isinstance(found[0], dict) and "." not in key
        ]
        if len(lists) == 1:
            return f"{lists[0][0]}.item", lists[0][1]
    return "item", []


def _keys(values: Sequence[Any]) -> list[str]:
    objects = [value for value in values[:20] if isinstance(value, dict)]
    return list(dict.fromkeys(chain.from_iterable(objects)))


def _objects(values: Iterator[tuple[int, Any]], unit: str) -> Rows:
    for number, value in values:
        where = f"{unit} {number:,}"
        try:
            yield where, object_of(value, "the record")
        except EntryError as error:
            yield where, error
