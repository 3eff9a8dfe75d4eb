"""Tables of PostgreSQL with a vector column, as CSV."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    LIKELY,
    Evidence,
    Format,
    Item,
    Options,
    only_file,
    unlike,
)
from tribal_mcp.interchange.conventions import FIELDS, LEFT_OUT, Record, item_of
from tribal_mcp.interchange.csv_parquet import csv_head, csv_rows
from tribal_mcp.interchange.mapping import items_of
from tribal_mcp.interchange.reading import object_of, parsed
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors, without
from tribal_mcp.portability.bundle.entries import RejectedEntry

_VECTOR = re.compile(r"\[-?[\d.]+(?:e-?\d+)?(?:,-?[\d.]+(?:e-?\d+)?)+\]", re.IGNORECASE)
_IDS = ("node_id", "langchain_id", "id", "uuid")
_TEXTS = ("document", "content", "text", "page_content", "memory")
_METADATA = ("cmetadata", "langchain_metadata", "metadata_", "metadata", "payload")


class Pgvector(Format):
    """One memory for each row."""

    name: ClassVar = "pgvector"
    title: ClassVar = "a table of pgvector as CSV"
    places: ClassVar = "`COPY table TO 'file.csv' WITH (FORMAT csv, HEADER)` in PostgreSQL"
    layout: ClassVar = "CSV with a column of vectors such as `[0.1,0.2]`, an id and a text"
    fields: ClassVar = {
        "node_id, langchain_id, id or uuid": "id",
        "document, content, text, page_content or memory": "content",
        "cmetadata, langchain_metadata, metadata_, metadata or payload": "metadata, as JSON",
        "the column of vectors": "the vector",
        **FIELDS,
    }
    leaves_out: ClassVar = LEFT_OUT

    def recognise(self, source: Source) -> Evidence | None:
        """A column of vectors beside an id, and a text or a payload."""
        if source.file is None or not (columns := _columns(source, source.file)):
            return None
        return Evidence(LIKELY, f"a CSV table with vectors in `{columns['vector']}`")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each row."""
        path = only_file(source, self)
        columns = _columns(source, path)
        if columns is None:
            raise unlike(source, self)
        vectors = Vectors(source.notes)
        make = partial(_item, columns, vectors)
        yield from items_of(csv_rows(source.origin, path), make)
        vectors.finish()


def _columns(source: Source, path: str) -> dict[str, str] | None:
    """The columns with the vector, the id, and the text and metadata, if there are such."""
    if source.peek(path).kind != "text" or not (head := csv_head(source.peek(path).text)):
        return None
    header, row = head
    found = {
        "vector": next((n for n, v in zip(header, row, strict=True) if _VECTOR.fullmatch(v)), "")
    }
    for what, names in (("id", _IDS), ("text", _TEXTS), ("metadata", _METADATA)):
        found[what] = next((name for name in names if name in header), "")
    is_whole = found["vector"] and found["id"] and (found["text"] or found["metadata"])
    return found if is_whole else None


def _item(columns: Mapping[str, str], vectors: Vectors, where: str, row: Mapping[str, Any]) -> Item:
    try:
        metadata = object_of(_json(row, columns["metadata"]) or {}, "the metadata")
        numbers = _json(row, columns["vector"])
    except EntryError as error:
        return RejectedEntry(where, str(error))
    rest = {k: v for k, v in without(row, *columns.values()).items() if v != ""}
    return item_of(
        where,
        Record(
            row[columns["id"]],
            row.get(columns["text"]),
            {**rest, **metadata},
            vectors.read(numbers),
            "pgvector",
        ),
    )


def _json(row: Mapping[str, Any], column: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parsed(row[column]) if row.get(column) else None
    except EntryError as error:
        raise EntryError(f"{column} {error}") from None
