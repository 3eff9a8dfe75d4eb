"""A source as the formats see it: an origin, with a first look at each of its files."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, BinaryIO, Literal

import ijson  # type: ignore[import-untyped]  # has no stubs

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.databases import database
from tribal_mcp.files.origins import Origin, decoded
from tribal_mcp.interchange.reading import opening, parsed
from tribal_mcp.portability.limits import Limits

_PEEK_BYTES = 1 << 20
_PEEK_LINES = 20
_PEEKS = 64
"""How many are remembered."""

Kind = Literal["object", "array", "lines", "text", "sqlite", "parquet", "binary", "empty"]


_MAGIC: dict[bytes, Kind] = {b"SQLite format 3\0": "sqlite", b"PAR1": "parquet"}


@dataclass(frozen=True, slots=True)
class Peek:
    r"""A first look at a file.

    Attributes:
        kind: a JSON object or array, JSON Lines whose first line is an object, other text, or a
            kind of binary file.
        value: of a JSON document what its first MiB holds; of JSON Lines a list of the values of
            the first 20 lines; else None.
        text: the first MiB of a text, as far as it is complete; `\n` ends its lines.
    """

    kind: Kind
    value: Any = None
    text: str = ""

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the object, or of the first object in the array or in the lines."""
        first = self.first
        return frozenset(first) if isinstance(first, dict) else frozenset()

    def first_in(self, name: str) -> dict[str, Any]:
        """The first object of a list in the object; empty if there is none."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        first = found[0] if isinstance(found, list) and found else None
        return first if isinstance(first, dict) else {}

    @property
    def first(self) -> Any:  # noqa: ANN401 - any JSON value
        """The object itself, or the first element of the array or the lines."""
        if isinstance(self.value, list):
            return self.value[0] if self.value else None
        return self.value


@dataclass(slots=True)
class Source:
    """An origin that remembers what was seen of its files."""

    origin: Origin
    _peeks: dict[str, Peek] = field(default_factory=dict)
    _paths: Sequence[str] | None = None
    _openings: dict[str, str] = field(default_factory=dict)
    _tables: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its last path component."""
        return self.origin.name

    @property
    def parent(self) -> str:
        """The name of the folder that holds it; empty if that says nothing."""
        return self.origin.parent

    @property
    def limits(self) -> Limits:
        """The limits of what is read."""
        return self.origin.limits

    @property
    def notes(self) -> list[str]:
        """Sentences for the user about what was not read."""
        return self.origin.notes

    @property
    def file(self) -> str | None:
        """The path of its only file; None if it has several or none."""
        found = self.paths()
        return found[0] if len(found) == 1 else None

    @property
    def only(self) -> Peek:
        """A first look at its only file; as at an empty file if it has several or none."""
        return self.peek(self.file) if self.file is not None else Peek("empty")

    def main(self, *names: str) -> str | None:
        """The path of its only file, or of the only one with one of these names, in any case."""
        found = self.paths() if len(self.paths()) == 1 else self.named(*names)
        return found[0] if len(found) == 1 else None

    def paths(self) -> Sequence[str]:
        """The relative paths of its files, sorted."""
        if self._paths is None:
            self._paths = self.origin.paths()
        return self._paths

    def open(self, path: str) -> BinaryIO:
        """One of its files, decompressed; to be closed."""
        return self.origin.open(path)

    def peek(self, path: str) -> Peek:
        """A first look at a file, which is remembered for a while."""
        if path not in self._peeks:
            if len(self._peeks) >= _PEEKS:
                self._peeks.clear()
            with self.origin.open(path) as file:
                self._peeks[path] = peek_at(file.read(_PEEK_BYTES))
        return self._peeks[path]

    def opening(self, path: str) -> str:
        """The first characters of a text file, which are read once; empty if it isn't text."""
        if path not in self._openings:
            self._openings[path] = opening(self.origin, path)
        return self._openings[path]

    def tables(self, path: str) -> dict[str, list[str]]:
        """The columns of each table of a SQLite database; none if it can't be read."""
        if path not in self._tables:
            self._tables[path] = {}
            if self.peek(path).kind == "sqlite":
                with suppress(BundleError), database(self.origin, path) as db:
                    self._tables[path] = db.tables
        return self._tables[path]

    def named(self, *names: str) -> list[str]:
        """The paths whose last component is one of these names, in any case."""
        return [p for p in self.paths() if p.rsplit("/", 1)[-1].casefold() in names]

    def ending(self, *suffixes: str) -> list[str]:
        """The paths with one of these suffixes, in any case."""
        return [p for p in self.paths() if p.casefold().endswith(suffixes)]


def peek_at(head: bytes) -> Peek:
    """A first look at a file, given its first MiB or all of it."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return Peek(kind)
    text = _text(head)
    if not text:
        return Peek("binary" if text is None else "empty")
    stripped = text.lstrip()
    if stripped[:1] in ("{", "["):
        values = _lines(stripped, complete=len(head) < _PEEK_BYTES)
        if values is not None:
            return Peek("lines", values, text)
        value = _document(stripped)
        if value is not None:
            return Peek("object" if isinstance(value, dict) else "array", value, text)
    return Peek("text", None, text)


def _text(head: bytes) -> str | None:
    for cut in range(4 if len(head) == _PEEK_BYTES else 1):  # within a character
        with suppress(ValueError):
            return decoded(head[: len(head) - cut])
    return None


def _lines(text: str, *, complete: bool) -> list[Any] | None:
    """The values of the first lines, if the first is an object and more than half are valid."""
    rows = text.split("\n")
    rows = [row for row in (rows if complete else rows[:-1]) if row.strip()][:_PEEK_LINES]
    values = []
    for number, row in enumerate(rows):
        try:
            values.append(parsed(row))
        except EntryError:
            if not number:
                return None
    return values if len(values) > max(1, len(rows) / 2) and isinstance(values[0], dict) else None


def _document(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """What the beginning of a JSON document holds; None if it is not JSON."""
    builder = ijson.ObjectBuilder()
    try:
        for event, value in ijson.basic_parse(io.BytesIO(text.encode())):
            builder.event(event, float(value) if isinstance(value, Decimal) else value)
    except ijson.IncompleteJSONError:
        if len(text) < _PEEK_BYTES // 8:
            return None
    except (ijson.JSONError, ValueError):
        return None
    return getattr(builder, "value", None)
