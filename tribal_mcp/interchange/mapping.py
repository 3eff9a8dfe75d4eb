"""Which column of a table, or which field of a JSON record, is which field of a memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.interchange.base import Item, LeftOut, Options, attempt, derived_id, memory
from tribal_mcp.interchange.reading import parsed, read_time, texts
from tribal_mcp.interchange.vectors import Vectors, without
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry, read_date
from tribal_mcp.portability.vectors import Vector

EMPTY = "a record without text"

NAMES: Mapping[str, tuple[str, ...]] = {
    "content": ("content", "text", "memory", "document", "body", "note"),
    "id": ("id", "uuid", "key", "memory_id", "_id"),
    "created_at": ("created_at", "created", "createdat", "date", "timestamp", "datetime"),
    "updated_at": ("updated_at", "updated", "updatedat", "modified", "modified_at"),
    "tags": ("tags", "labels", "categories", "keywords"),
    "context": ("context",),
    "embedding": ("embedding", "vector"),
}
"""The names by which each field of a memory is guessed, in any case; the first wins."""
FIELDS = {", ".join(names): field for field, names in NAMES.items()} | {
    "all others": "metadata, under their own names"
}
_FIRST_NUMBER = 1e8
"""Smaller numbers are no times: they would be before 1973, and 2026 is a year."""


def guess(columns: Iterable[str]) -> dict[str, str]:
    """The column for each field of a memory, as far as its name tells."""
    named = {column.strip().casefold().replace(" ", "_"): column for column in columns}
    return {
        field: named[first]
        for field, names in NAMES.items()
        if (first := next((name for name in names if name in named), None))
    }


def others(columns: Iterable[str], mapping: Mapping[str, str]) -> list[str]:
    """The other columns that may be the content."""
    return [
        column
        for column in columns
        if column.strip().casefold() in NAMES["content"] and column != mapping.get("content")
    ]


def described(mapping: Mapping[str, str], also: Sequence[str] = ()) -> str:
    """A mapping in words: "`text` as content, `date` as created_at".

    Args:
        mapping: the column for each field of a memory.
        also: other columns that may be the content.
    """
    words = ", ".join(f"`{column}` as {field}" for field, column in mapping.items())
    more = " or ".join(f"`{column}`" for column in also)
    return f"{words} (the content could also be {more})" if also else words


def chosen(columns: Iterable[str], options: Options) -> dict[str, str]:
    """The guess with what the user chose; an empty column name removes a field.

    Raises:
        UsageError: a field or a column does not exist.
        BundleError: nothing, or more than one column, may be the content.
    """
    columns = list(columns)
    if wrong := [field for field in options.mapping if field not in NAMES]:
        raise UsageError(
            f"{wrong[0]!r:.80} is not a field that can be mapped. They are {', '.join(NAMES)}."
        )
    known = ", ".join(columns)[:500]
    for column in filter(None, options.mapping.values()):
        if column not in columns:
            raise UsageError(f"There is no field {column!r:.80} in the source. It has {known}.")
    taken = set(options.mapping.values())
    guessed = {field: column for field, column in guess(columns).items() if column not in taken}
    mapping = {f: c for f, c in {**guessed, **options.mapping}.items() if c}
    if "content" not in mapping:
        raise BundleError(f"Map a field to content. The source has {known}.")
    if "content" not in options.mapping and (rest := others(columns, mapping)):
        names = " or ".join(f"{name!r:.80}" for name in (mapping["content"], *rest))
        raise BundleError(f"The content may be in {names}. Map the right field to content.")
    return mapping


@dataclass(frozen=True, slots=True)
class Mapper:
    """Makes memories from the rows of one source.

    Attributes:
        name: the name of the format.
        mapping: the column for each field of a memory.
        vectors: reads the vectors.
    """

    name: str
    mapping: Mapping[str, str]
    vectors: Vectors

    def item(self, where: str, row: Mapping[str, Any]) -> Item:
        """The memory in a row."""
        content = row.get(self.mapping["content"])
        if content is None or (isinstance(content, str) and not content.strip()):
            return LeftOut(where, EMPTY)
        vector = self.vectors.read(_numbers(self._value(row, "embedding")))
        return attempt(where, self._memory, row, content, vector)

    def _value(self, row: Mapping[str, Any], field: str) -> Any:  # noqa: ANN401 - any JSON value
        return row.get(self.mapping[field]) if field in self.mapping else None

    def _memory(self, row: Mapping[str, Any], content: Any, vector: Vector | None) -> MemoryEntry:  # noqa: ANN401 - any JSON value
        created = self._time(row, "created_at")
        identity = self._value(row, "id")
        if identity in (None, ""):
            identity = derived_id(self.name, str(content), created.isoformat() if created else "")
        elif type(identity) is int:
            identity = str(identity)
        context = self._value(row, "context")
        rest = without(row, *self.mapping.values())
        return memory(
            identity,
            content,
            created=created,
            updated=self._time(row, "updated_at"),
            embedding=vector,
            source_instance=self.name,
            tags=_tags(self._value(row, "tags")),
            context=None if context == "" else context,
            metadata={key: _plain(value) for key, value in rest.items()},
        )

    def _time(self, row: Mapping[str, Any], field: str) -> datetime | None:
        """The date in a column.

        Raises:
            EntryError: it is none.
        """
        value = self._value(row, field)
        try:
            return time_of(value)
        except EntryError:
            raise EntryError(
                f"`{self.mapping[field]:.40}` is {value!r:.60}, which is not a date such as "
                f"2026-05-17; map no column to {field} to keep it in metadata"
            ) from None


def time_of(value: Any) -> datetime | None:  # noqa: ANN401 - any value of a table
    """The point in time in a cell; None if it is empty.

    Raises:
        EntryError: it is no date.
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, date):
        value = value.isoformat()
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            return read_date(value.strip())
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, int | float) and 0 < abs(number) < _FIRST_NUMBER:
        raise EntryError(f"{value!r:.60} is not a date")
    return read_time(value)


def _tags(value: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parsed(value)
    elif isinstance(value, str) and "," not in value:
        value = value.replace(";", ",")
    return texts(value)


def _numbers(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A vector that is a JSON text, such as pgvector's, as a list."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parsed(value)
    except EntryError:
        return value


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a table
    """A value as JSON can carry it."""
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, bytes):
        raise EntryError("it holds bytes")
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


Rows = Iterator[tuple[str, Mapping[str, Any] | EntryError]]
"""The place and the values of each row, or why it can't be read."""


def items_of(rows: Rows, make: Callable[[str, Mapping[str, Any]], Item]) -> Iterator[Item]:
    """The item of each row."""
    for where, row in rows:
        if isinstance(row, EntryError):
            yield RejectedEntry(where, str(row))
        else:
            yield make(where, row)
