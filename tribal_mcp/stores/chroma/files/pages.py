"""Reads the rows of a Chroma database from its pages, without the schema and without SQLite.

If the header, the schema or a tree of pages is damaged, SQLite refuses the whole database. Each
leaf page still holds its rows, and the rows of each of Chroma's tables have another shape. So a new
database is filled with the rows that are found. Pages that SQLite had freed may hold deleted rows;
they are read only for a table that has none left elsewhere. The format is in
https://www.sqlite.org/fileformat2.html. (Over 300 lines: all that is needed of that
format is here, and nothing else uses it.)
"""
# ruff: noqa: PLR2004 - the numbers are those of the file format

import mmap
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tribal_mcp.stores.chroma.files.schema import COLUMNS, LISTS, MIGRATIONS

_MAGIC = b"SQLite format 3\0"
_DEFAULT_PAGE = 4096
_HEADER = 100
_LEAF = 0x0D
_UUID = 36
_LIST_KEYS = {"tags", "related_to"}
_DEFAULT_ID = "00000000-0000-0000-0000-000000000000"
_SCOPES = {"VECTOR", "METADATA"}
_SHORTEST = 5
_QUEUE_CONFIG = '{"automatically_purge"'
_MOST_PAGES = 1 << 20

Values = list[Any]
Rows = dict[str, dict[Any, Values]]
"""By table and by key: the values of a row in the order of `COLUMNS`."""


class _Row(NamedTuple):
    rowid: int
    values: Values


def rebuild_database(source: Path, target: Path) -> int:
    """Create a database with the rows that the pages of another one hold.

    Args:
        source: the damaged database.
        target: the new one, in the current layout.

    Returns:
        How many rows were found.
    """
    found = _rows(source)
    with closing(sqlite3.connect(target)) as sql, sql:
        sql.execute("CREATE TABLE migrations (dir TEXT, version INTEGER)")
        sql.executemany("INSERT INTO migrations VALUES (?, ?)", MIGRATIONS.items())
        for table, columns in COLUMNS.items():
            names = columns.split()
            first = f"{names[0]} INTEGER PRIMARY KEY" if _has_number(table) else names[0]
            sql.execute(f"CREATE TABLE {table} ({', '.join([first, *names[1:]])})")
            marks = ", ".join("?" * len(names))
            sql.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES ({marks})",  # noqa: S608 - names of ours
                (values[: len(names)] for values in found.get(table, {}).values()),
            )
        sql.execute("CREATE UNIQUE INDEX by_id ON embeddings (segment_id, embedding_id)")
        sql.execute("CREATE INDEX by_row ON embedding_metadata (id, key)")
        sql.execute(f"CREATE INDEX lists_by_row ON {LISTS} (id, key)")
    return sum(map(len, found.values()))


def _has_number(table: str) -> bool:
    return table in ("embeddings", "embeddings_queue")


def _rows(source: Path) -> Rows:
    try:
        with (
            source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            reader = _Pages(data)
            freed = reader.freed()
            used: Rows = {}
            unused: Rows = {}
            for number in range(1, reader.count + 1):
                for row in reader.rows(number):
                    _sort(row, unused if number in freed else used)
            found: Rows = {**unused, **used}
    except (OSError, ValueError):  # not a file, or an empty one
        return {}
    _complete(found)
    return found


class _Pages:
    """The pages of a database file."""

    def __init__(self, data: "mmap.mmap") -> None:
        self._data = data
        size = int.from_bytes(data[16:18], "big") if data[:16] == _MAGIC else _DEFAULT_PAGE
        size = 65536 if size == 1 else size
        self._size = size if size in {1 << n for n in range(9, 17)} else _DEFAULT_PAGE
        self.count = len(data) // self._size

    def _page(self, number: int) -> bytes:
        start = (number - 1) * self._size
        return self._data[start : start + self._size] if 1 <= number <= self.count else b""

    def freed(self) -> set[int]:
        """The pages that SQLite does not use any more, as far as the list is whole."""
        found: set[int] = set()
        if self._data[:16] != _MAGIC:
            return found
        trunk = int.from_bytes(self._data[32:36], "big")
        while trunk and trunk not in found and (page := self._page(trunk)):
            found.add(trunk)
            trunk, count = struct.unpack(">II", page[:8])
            count = min(count, self._size // 4 - 2)
            found.update(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]))
        return found

    def rows(self, number: int) -> Iterator[_Row]:
        """The rows on a page, if it is a leaf of a table."""
        page = self._page(number)
        start = _HEADER if number == 1 else 0
        if len(page) < start + 8 or page[start] != _LEAF:
            return
        cells = int.from_bytes(page[start + 3 : start + 5], "big")
        for n in range(min(cells, self._size // 4)):
            at = start + 8 + 2 * n
            with suppress(IndexError, ValueError, struct.error):
                yield self._row(page, int.from_bytes(page[at : at + 2], "big"))

    def _row(self, page: bytes, at: int) -> _Row:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        largest = self._size - 35
        if length <= largest:
            payload = page[at : at + length]
        else:
            least = (self._size - 12) * 32 // 255 - 23
            local = least + (length - least) % (self._size - 4)
            local = local if local <= largest else least
            following = int.from_bytes(page[at + local : at + local + 4], "big")
            payload = page[at : at + local] + self._overflow(following, length - local)
        if len(payload) != length:
            raise ValueError("the row is cut off")
        return _Row(_signed(rowid, 8), _record(payload))

    def _overflow(self, number: int, length: int) -> bytes:
        parts: list[bytes] = []
        for _ in range(_MOST_PAGES):
            page = self._page(number)
            if length <= 0 or not page:
                break
            number = int.from_bytes(page[:4], "big")
            parts.append(page[4 : 4 + length])
            length -= len(parts[-1])
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    return value << 8 | data[at + 8], at + 9


def _signed(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "big"), "big", signed=True)


def _record(payload: bytes) -> Values:
    """The values of a row.

    Raises:
        ValueError: its header does not fit its length.
    """
    end, at = _varint(payload, 0)
    start = end
    values: Values = []
    while at < end:
        kind, at = _varint(payload, at)
        size = _size_of(kind)
        if start + size > len(payload):
            raise ValueError("a value is cut off")
        values.append(_value(kind, payload[start : start + size]))
        start += size
    if start != len(payload):
        raise ValueError("the row is longer than its values")
    return values


def _size_of(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]


def _value(kind: int, data: bytes) -> Any:  # noqa: ANN401 - any SQLite value
    if kind >= 12 and kind % 2:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data
    if kind >= 12:
        return data
    if kind == 7:
        return struct.unpack(">d", data)[0]
    if kind in (0, 8, 9):
        return (None, 0, 1)[max(0, kind - 7)]
    return int.from_bytes(data, "big", signed=True)


def _sort(row: _Row, found: Rows) -> None:
    """Add the row to the table whose rows have its shape."""
    for table, read in _SHAPES.items():
        with suppress(IndexError, TypeError, AttributeError):
            if (values := read(row)) is not None:
                key = (values[0], values[1]) if "metadata" in table else values[0]
                if table == "embedding_metadata":
                    key = (*key, *map(repr, values[2:]))
                found.setdefault(table, {})[key] = values
                return


def _embedding(row: _Row) -> Values | None:
    none, segment, memory_id, seq_id, created = row.values
    good = none is None and _is_uuid(segment) and isinstance(memory_id, str | bytes)
    return [row.rowid, segment, memory_id, seq_id, created] if good else None


def _metadata(row: _Row) -> Values | None:
    number, key, text, whole, real, truth = row.values
    good = type(number) is int and isinstance(key, str | bytes)
    return [number, key, text, whole, real, truth] if good else None


def _logged(row: _Row) -> Values | None:
    none, created, operation, topic, memory_id, vector, encoding, metadata = row.values
    if none is not None or not isinstance(topic, str) or "://" not in topic:
        return None
    return [row.rowid, created, operation, topic, memory_id, vector, encoding, metadata]


def _collection(row: _Row) -> Values | None:
    values = [*row.values, None, None][:7]
    if not _is_uuid(values[0]) or not isinstance(values[1], str | bytes):
        return None
    if isinstance(values[2], str) and "://" in values[2] and _is_uuid(values[4]):  # Chroma 0.4
        return [values[0], values[1], values[3], values[4], None, None]
    known = _is_uuid(values[3]) and isinstance(values[2], int | None)
    return values[:6] if known else None


def _segment(row: _Row) -> Values | None:
    values = row.values
    good = _is_uuid(values[0]) and values[2] in _SCOPES and _is_uuid(values[-1])
    return [values[0], values[1], values[2], values[-1]] if good else None


def _named(row: _Row) -> Values | None:
    """A row of the metadata of a collection or a segment; both are kept for both."""
    if not 5 <= len(row.values) <= 6 or not _is_uuid(row.values[0]):
        return None
    return [*row.values, None][:6] if isinstance(row.values[1], str) else None


def _applied(row: _Row) -> Values | None:
    segment, seq_id = row.values
    return [segment, seq_id] if _is_uuid(segment) and type(seq_id) in (int, bytes) else None


def _database(row: _Row) -> Values | None:
    number, name, tenant = row.values
    good = _is_uuid(number) and isinstance(name, str) and isinstance(tenant, str)
    return [number, name, tenant] if good else None


def _text(row: _Row) -> Values | None:
    none, text = row.values
    good = none is None and isinstance(text, str) and not text.startswith(_QUEUE_CONFIG)
    return [row.rowid, text] if good else None


_SHAPES: dict[str, Callable[[_Row], Values | None]] = {
    "embeddings": lambda row: _embedding(row) if len(row.values) == _SHORTEST else None,
    "embedding_metadata": lambda row: _metadata(row) if len(row.values) == 6 else None,
    "embeddings_queue": lambda row: _logged(row) if len(row.values) == 8 else None,
    "collections": lambda row: _collection(row) if 4 <= len(row.values) <= 6 else None,
    "segments": lambda row: _segment(row) if 4 <= len(row.values) <= 5 else None,
    "collection_metadata": _named,
    "max_seq_id": lambda row: _applied(row) if len(row.values) == 2 else None,
    "databases": lambda row: _database(row) if len(row.values) == 3 else None,
    "full text": lambda row: _text(row) if len(row.values) == 2 else None,
}


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and len(value) == _UUID and value.count("-") == 4


def _complete(found: Rows) -> None:
    """Sort out lists, and replace what is missing by what other tables say."""
    pairs = Counter((v[0], v[1]) for v in found.get("embedding_metadata", {}).values())
    metadata: dict[Any, Values] = {}
    lists: dict[Any, Values] = {}
    for key, values in found.get("embedding_metadata", {}).items():
        is_list = pairs[values[0], values[1]] > 1 or values[1] in _LIST_KEYS
        (lists if is_list else metadata)[key] = values
    found["embedding_metadata"], found[LISTS] = metadata, lists
    found["segment_metadata"] = found.get("collection_metadata", {})
    described = {v[0] for v in metadata.values() if v[1] == "chroma:document"}
    for number, text in found.pop("full text", {}).values():
        if number not in described and number in found.get("embeddings", {}):
            metadata[number, "text"] = [number, "chroma:document", text, None, None, None]
    collections = found.setdefault("collections", {})
    for values in found.get("segments", {}).values():  # without a collection, its id is its name
        collections.setdefault(values[3], [values[3], values[3], None, _DEFAULT_ID, None, None])
    databases = found.setdefault("databases", {})
    for values in found.get("collections", {}).values():
        databases.setdefault(values[3], [values[3], "default_database", "default_tenant"])
