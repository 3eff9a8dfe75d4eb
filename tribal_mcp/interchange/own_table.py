"""The CSV and Parquet tables that an export writes: a column for each field of a memory."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from itertools import islice
from typing import Any

import orjson

from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.interchange.base import Item, LeftOut, Memories, attempt, derived_id
from tribal_mcp.interchange.mapping import EMPTY, time_of
from tribal_mcp.interchange.own_block import NO_TEXT, OWN_BLOCK, own_block, restored
from tribal_mcp.interchange.reading import object_of, parsed
from tribal_mcp.interchange.records import number_of
from tribal_mcp.interchange.vectors import Vectors
from tribal_mcp.portability.memory import EPOCH, MemoryEntry, date_text, source_text
from tribal_mcp.portability.memory_json import entry_from_dict
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import IMPORTED_FROM, UNDATED

_TEXTS = ("id", "content", "context", "source_instance", "source_type", "supersedes")
_DATES = ("created_at", "updated_at")
_LISTS = ("tags", "related_to")
COLUMNS = (
    "id", "content", "created_at", "updated_at", "tags", "context", "confidence", "source_instance",
    "source_type", IMPORTED_FROM, "supersedes", "related_to", "metadata", OWN_BLOCK,
)  # fmt: skip
_BATCH = 500
_FIRST_AND_LAST = (1, 9999)
"""The years in which a date with an offset may be out of Python's range in UTC."""
MODEL_KEY = b"tribal_embedding_model"
"""Where the metadata of a Parquet file names the model of its vectors, as JSON."""
_REPLACED = "\ufffd"
"""What stands for NUL, which programs that read text files don't expect."""

Row = dict[str, Any]


def is_own(columns: Iterable[str]) -> bool:
    """Whether a table was written by an export; columns may have been added and removed."""
    return {"content", OWN_BLOCK} <= set(columns)


def lost_in_table(entry: MemoryEntry) -> Iterator[str]:
    """A row without text is taken for one that somebody has cleared."""
    if not entry.content:
        yield NO_TEXT


def csv_text(memories: Memories) -> Iterator[bytes]:
    """The memories as CSV, without their vectors."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for number, entry in enumerate(memories, 1):
        table.writerow(_with_block(_csv_row(entry), entry, "csv").values())
        if not number % _BATCH:
            yield _taken(out)
    yield _taken(out)


def _taken(out: io.StringIO) -> bytes:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text.encode()


def _csv_row(entry: MemoryEntry) -> Row:
    row = _row(entry)
    for name in _DATES:
        row[name] = row[name] and date_text(entry, name)
    for name in _LISTS:
        row[name] = _joined(row[name])
    return {
        name: value.replace("\0", _REPLACED) if isinstance(value, str) else value
        for name, value in row.items()
    }


def _joined(values: list[str]) -> str:
    """Texts with commas between them; as a JSON list if they would read back otherwise."""
    text = ", ".join(values)
    is_plain = not text.startswith("[") and _split(text) == values
    return text if is_plain else json.dumps(values, ensure_ascii=False)


def _split(text: str) -> list[str]:
    """What `_joined` joined.

    Raises:
        EntryError: it begins like a JSON list of texts, and is none.
    """
    if not text.startswith("["):
        return [value for part in text.split(",") if (value := part.strip())]
    values = parsed(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise EntryError(f"{text!r:.60} is not a list of texts")
    return values


def _row(entry: MemoryEntry) -> Row:
    """The values of the columns, except for our block."""
    is_dated = UNDATED not in entry.extra
    origin = entry.extra.get(IMPORTED_FROM)
    return {
        "id": entry.id,
        "content": entry.content,
        "created_at": entry.created_at if is_dated else None,
        "updated_at": entry.updated_at if is_dated or entry.updated_at != EPOCH else None,
        "tags": entry.tags,
        "context": entry.context,
        "confidence": entry.confidence,
        "source_instance": entry.source_instance,
        "source_type": source_text(entry),
        IMPORTED_FROM: origin if isinstance(origin, str) else None,
        "supersedes": entry.supersedes,
        "related_to": entry.related_to,
        "metadata": orjson.dumps(entry.metadata).decode() if entry.metadata else None,
    }


def _with_block(row: Row, entry: MemoryEntry, name: str) -> Row:
    """The row with its last column: what the others can't hold."""
    block = {} if _is_simple(entry) else own_block(entry, _plain(row, name), name)
    return {**row, OWN_BLOCK: orjson.dumps(block).decode() if block else None}


def _is_simple(entry: MemoryEntry) -> bool:
    """Whether the columns obviously hold everything, so that nothing has to be compared."""
    optional = entry.context, entry.supersedes, *entry.extra.values()
    needed = (entry.content, entry.source_instance, source_text(entry))
    needed += tuple(value for value in optional if value is not None)
    texts = (entry.id, *needed, *entry.tags, *entry.related_to)
    return (
        entry.extra.keys() <= {IMPORTED_FROM}
        and all(type(text) is str and text for text in needed)
        and not any("\0" in text for text in texts)
        and entry.created_at.year not in _FIRST_AND_LAST
        and entry.updated_at.year not in _FIRST_AND_LAST
    )


def own_item(where: str, row: Mapping[str, Any], name: str, vectors: Vectors) -> Item:
    """The memory in a row of such a table."""
    if row.get("content") in (None, ""):
        return LeftOut(where, EMPTY)
    vector = vectors.read(row.get("embedding"))
    return attempt(where, _memory, row, name, vector)


def _memory(row: Mapping[str, Any], name: str, vector: Vector | None) -> MemoryEntry:
    block = parsed(row[OWN_BLOCK]) if row.get(OWN_BLOCK) else None
    made = restored(_plain(row, name), block, name)
    made.embedding = vector
    return made


def _plain(row: Mapping[str, Any], name: str) -> MemoryEntry:
    """The memory in a row without our block; one without an id was added by somebody.

    Raises:
        EntryError: a value has a wrong type.
    """
    fields = {key: row[key] for key in _TEXTS if row.get(key) not in (None, "")}
    fields.setdefault("content", "")
    if "id" in fields:
        fields[IMPORTED_FROM] = row.get(IMPORTED_FROM) or None
    else:
        fields["id"] = derived_id(name, fields["content"])
        fields.setdefault("source_instance", name)
    for key in _LISTS:
        value = row.get(key) or []
        fields[key] = _split(value) if isinstance(value, str) else value
    if (sure := row.get("confidence")) not in (None, ""):
        fields["confidence"] = number_of(sure) if isinstance(sure, str) else sure
    if row.get("metadata"):
        fields["metadata"] = object_of(parsed(row["metadata"]), "metadata")
    for key in _DATES:
        if (date := time_of(row.get(key))) is not None:
            fields[key] = date.isoformat()
    if "created_at" not in fields:
        fields |= {"created_at": EPOCH.isoformat(), UNDATED: True}
    return entry_from_dict(fields)


class _Sink(io.RawIOBase):
    """Collects what is written, to be passed on bit by bit."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        self._parts.append(bytes(data))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def parquet_file(memories: Memories) -> Iterator[bytes]:
    """The memories as Parquet, with their vectors.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "To write Parquet, install the package pyarrow where tribal-mcp is installed. No file "
            "was written."
        ) from None
    kinds = dict.fromkeys(COLUMNS, pa.string())
    kinds |= dict.fromkeys(_DATES, pa.timestamp("us", "UTC"))
    kinds |= dict.fromkeys(_LISTS, pa.list_(pa.string()))
    kinds |= {"confidence": pa.float64(), "embedding": pa.list_(pa.float32())}
    model = {MODEL_KEY: orjson.dumps(memories.model.to_dict())} if memories.model else None
    schema = pa.schema(kinds.items(), model)
    sink, entries = _Sink(), iter(memories)
    with parquet.ParquetWriter(sink, schema) as table:
        while batch := list(islice(entries, _BATCH)):
            table.write_table(pa.Table.from_pylist(list(map(_parquet_row, batch)), schema))
            yield sink.taken()
    yield sink.taken()


def _parquet_row(entry: MemoryEntry) -> Row:
    row = _row(entry)
    for name in _DATES:
        if row[name]:
            is_far = row[name].year in _FIRST_AND_LAST
            row[name] = None if is_far else row[name].astimezone(UTC)
    return {**_with_block(row, entry, "parquet"), "embedding": entry.embedding}
