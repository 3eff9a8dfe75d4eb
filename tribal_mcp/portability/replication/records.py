"""Versions as lines of JSON, in the files that replicas exchange.

The first line of a file is its *head*; each other line is one version of one memory. A line whose
parts don't fit together is refused, so that a damaged or forged one changes nothing. (Over 300
lines: what writes the format and what reads it belong together.)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.limits import DEFAULT_LIMITS, NO_LIMITS, Limits
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MADE_BY, MemoryEntry, with_vector
from tribal_mcp.portability.memory_json import check_id, entry_fields, entry_from_dict
from tribal_mcp.portability.replication.versions import (
    Fields,
    Origin,
    Stamp,
    Version,
    digest_of,
    digest_of_stamps,
    fields_of,
)
from tribal_mcp.portability.strict_json import NotJSON, check, parse_line
from tribal_mcp.portability.vectors import Vector, vector_from_base64, vector_to_base64

T = TypeVar("T")

FORMAT = 1
ORIGIN = b'"origin":["'
"""What comes before the restore point of the operation that made a version, in its line."""
OPERATION_BYTES = len("20261126-063450-613619")
NAME_CHARACTERS = 200
"""The most that are used of the name of a replica."""
_MOST_US = 1 << 63
_SHORT = 1 << 18
_PLAIN = frozenset(
    {
        "content", "source_instance", "source_type", "created_at", "updated_at", "tags", "context",
        "confidence", "supersedes", "related_to",
    }
)  # fmt: skip
"""The fields that every memory has."""
REPLICA = re.compile(r"[0-9a-f]{16}")
"""The id of a replica, which is the name of its subfolder, too."""
FILE = re.compile(r"([0-9]{8,15})-([0-9a-f]{16})\.jsonl\.zst(\.age)?")
"""The name of a file: its number among those of its replica, and the digest of its content."""
_SWEPT = re.compile(rf"{FILE.pattern}|[0-9]{{8,15}}-")
_MOST_REPLICAS = 10_000
_MOST_FILES = 10**15
PREVIOUS = 16
"""How many of its earlier files a file names."""
_OPERATION = re.compile(r"\d{8}-\d{6}-\d{6}")
_BEGIN = re.compile(r"[0-9]{8,15}-[0-9a-f]{1,8}")
_WAS = re.compile(r"([0-9a-f]{8})?")


class Operation(NamedTuple):
    """What the replicas are told of an operation that changed many memories.

    Attributes:
        what: import, restore, undo, ...
        source: such as the name of the bundle.
        machine: the name of the replica whose store it changed.
    """

    what: str
    source: str
    machine: str


@dataclass(frozen=True, slots=True)
class Record:
    """A version of a memory.

    Attributes:
        id: of the memory.
        version: the version.
        vector: of its text, if it is known.
        made_by: the model of the vector if it is not that of the file.
    """

    id: str
    version: Version
    vector: Vector | None = None
    made_by: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says about itself.

    Attributes:
        replica: the id of the replica that wrote it.
        name: what people call the replica.
        number: its place among the files of the replica.
        files: the earlier files of the replica that still count.
        seen: the last file of each other replica that this one had read.
        model: the model of the vectors.
        swept: as in `Report`.
        removed: as in `Report`.
        operations: those that made versions in it, by their restore points.
        previous: the beginnings of the names of the last files that the replica wrote before this
            one. By them, a copy of its store knows which of its own files the replica has, too.
    """

    replica: str
    name: str
    number: int
    files: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    model: EmbeddingMetadata | None = None
    swept: dict[str, str] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    previous: list[str] = field(default_factory=list)


def dump_head(head: Head) -> bytes:
    """The first line of a file, without a newline."""
    return orjson.dumps(
        {
            "tribal_sync": FORMAT,
            "replica": head.replica,
            "name": head.name,
            "number": head.number,
            "files": head.files,
            "seen": head.seen,
            "model": head.model and head.model.to_dict(),
            "swept": head.swept,
            "removed": head.removed,
            "operations": {point: list(about) for point, about in head.operations.items()},
            "previous": head.previous,
        }
    )


def read_head(line: bytes) -> Head:
    """Read the first line of a file.

    Raises:
        EntryError: it is not one, or of a later version of this format.
    """
    try:
        data = _object(line, DEFAULT_LIMITS)
        if data.get("tribal_sync") == FORMAT:
            return _head(data)
    except EntryError as error:
        raise EntryError(f"has a first line that is not valid: {error}") from error
    except (BundleError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EntryError("has a first line that is not valid") from error
    raise EntryError("is of another version of this format: update this program")


def _head(data: dict[str, Any]) -> Head:
    model = data["model"]
    previous = data.get("previous", [])
    if len(previous) > PREVIOUS:
        raise EntryError(f"it names more than {PREVIOUS} earlier files")
    operations = data.get("operations", {}).items()
    return Head(
        _matching(REPLICA, data["replica"]),
        str(data["name"])[:NAME_CHARACTERS],
        _number(data["number"]),
        [_matching(FILE, name) for name in data["files"]],
        _by_replica(data["seen"], _number),
        None if model is None else EmbeddingMetadata.from_dict(model),
        _by_replica(data.get("swept", {}), partial(_matching, _SWEPT)),
        _by_replica(data.get("removed", {}), _number),
        {_dated(at): Operation(*(str(text)[:200] for text in about)) for at, about in operations},
        [_matching(_BEGIN, name) for name in previous],
    )


def _by_replica(data: dict[str, Any], read: Callable[[object], T]) -> dict[str, T]:
    if len(data) > _MOST_REPLICAS:
        raise EntryError(f"it names more than {_MOST_REPLICAS:,} machines")
    return {_matching(REPLICA, replica): read(value) for replica, value in data.items()}


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if type(text) is not str or not pattern.fullmatch(text):
        raise EntryError(f"{text!r:.80} is not the name of a machine or a file")
    return text


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST_FILES:
        raise EntryError(f"{value!r:.80} is not the number of a file")
    return value


def dump_record(record: Record) -> bytes:
    """The line of a version, without a newline."""
    version = record.version
    data: dict[str, Any] = {"id": record.id, "stamp": str(version.stamp)}
    if version.ancestors:
        data["ancestors"] = sorted(map(str, version.ancestors))
    if version.since:
        data["since"] = [[*atom, str(stamp)] for atom, stamp in sorted(version.since.items())]
    if version.reversal:
        data["reversal"] = True
    if version.compact:
        data["compact"] = True
    if version.left:
        data["left"] = True
    if version.origin:
        data["origin"] = list(version.origin)
    if version.fields is not None:
        data["memory"] = version.fields
    if record.vector is not None:
        data["vector"] = vector_to_base64(record.vector)
        if record.made_by is not None:
            data[MADE_BY] = record.made_by
    return orjson.dumps(data)


def read_record(line: bytes, limits: Limits, *, trusted: bool = False) -> Record:
    """Read the line of a version.

    Args:
        line: the line.
        limits: what a memory may contain.
        trusted: this program wrote it here, so it is not checked.

    Raises:
        EntryError: it is not one, its parts don't fit together, or it exceeds a limit.
    """
    data = orjson.loads(line) if trusted else _object(line, limits)
    try:
        version = Version(
            Stamp.read(data["stamp"]),
            data.get("memory"),
            frozenset(map(Stamp.read, data.get("ancestors", ()))),
            {(name, member): Stamp.read(stamp) for name, member, stamp in data.get("since", ())},
            data.get("reversal") is True,
            data.get("compact") is True,
            Origin(*data["origin"]) if "origin" in data else None,
            data.get("left") is True,
        )
        text = data.get("vector")
        vector = None if text is None else vector_from_base64(text)
        record = Record(data["id"], version, vector, data.get(MADE_BY))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError("is not a version of a memory") from error
    if not trusted:
        _check(record, limits)
    return record


def is_bookkeeping(line: bytes) -> bool:
    """Whether a line that this program wrote tells nobody of a change.

    It is a deletion that has nothing to delete any more, or one that stands for several.
    """
    if b'"memory":' in line:
        return False
    version = read_record(line, NO_LIMITS, trusted=True).version
    made = version.stamp[:2]  # a change has another time than what it replaces
    return version.spent or any(stamp[:2] == made for stamp in version.ancestors)


def _check(record: Record, limits: Limits) -> None:
    version = record.version
    if type(record.id) is not str:
        raise EntryError("has an id that is not text")
    if version.fields is not None and type(version.fields) is not dict:
        raise EntryError("has a memory that is not a JSON object")
    if record.made_by is not None and type(record.made_by) is not str:
        raise EntryError("names a model that is not text")
    if not all(type(part) is str for atom in version.since for part in atom):
        raise EntryError("has a part of a memory whose name is not text")
    stamps = (version.stamp, *version.ancestors, *version.since.values())
    if any(abs(stamp.wall) >= _MOST_US for stamp in stamps):
        raise EntryError("has a time that is out of range")
    check_id("id", record.id, limits)
    if version.origin:
        _checked(_OPERATION, version.origin.operation)
        _checked(_WAS, version.origin.was)
    fits = (
        version.stamp.digest == digest_of(version.fields)
        and (version.compact or version.stamp.replaced == digest_of_stamps(version.ancestors))
        and version.stamp not in version.ancestors
    )
    if fits and version.fields is not None:
        entry = entry_of(record.id, version.fields, limits)
        fits = version.stamp.digest == digest_of(fields_of(entry_fields(entry)))
    if not fits:
        raise EntryError("is not what its stamp says")


def _checked(pattern: re.Pattern[str], text: object) -> str:
    if type(text) is not str or not pattern.fullmatch(text):
        raise EntryError("names an operation that is not valid")
    return text


def _dated(point: str) -> str:
    datetime.strptime(_checked(_OPERATION, point), "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)
    return point


def operation_of(line: bytes) -> str:
    """The restore point that the line of a version names as its origin; empty if there is none."""
    _, found, rest = line.partition(ORIGIN)
    return rest[:OPERATION_BYTES].decode(errors="replace") if found else ""


def check_readable(memory_id: str, line: bytes, limits: Limits) -> None:
    """Check that other machines can read a version that was made here.

    Raises:
        EntryError: it exceeds a limit, or has a value that would not read back the same.
    """
    if len(line) >= limits.line_bytes:
        raise EntryError(
            f"it is {len(line):,} bytes as JSON; the limit is {limits.line_bytes:,} "
            "(TRIBAL_LIMIT_LINE_BYTES)"
        )
    check_id("id", memory_id, limits)
    if len(line) >= _SHORT:  # it can have many values
        read_record(line, limits)
    data = orjson.loads(line)
    fields = data.get("memory")
    if fields is not None and not _is_plain(fields, len(line), limits):
        entry = entry_of(memory_id, fields, limits)
        check([[entry.metadata, entry.extra]], limits.nesting + 1)
        if digest_of(fields_of(entry_fields(entry))) != Stamp.read(data["stamp"]).digest:
            raise EntryError("a value would not read back the same")


def _is_plain(fields: Fields, size: int, limits: Limits) -> bool:
    """Whether a memory of this machine is so short and simple that other machines can read it."""
    lowest = min(limits.label_bytes, limits.id_bytes, limits.content_bytes, limits.tags)
    return (
        size <= lowest
        and fields.keys() <= _PLAIN
        and type(fields["confidence"]) is float
        and 0 < fields["confidence"] <= 1
    )


def entry_of(memory_id: str, fields: Fields, limits: Limits = NO_LIMITS) -> MemoryEntry:
    """The memory with these fields, without a vector.

    Raises:
        EntryError: they are not those of a memory, or exceed a limit.
    """
    return entry_from_dict({**fields, "id": memory_id}, limits)


def content_of(line: bytes) -> str | None:
    """The text of a version that was made here; None if it is a deletion."""
    content: str | None = (orjson.loads(line).get("memory") or {}).get("content")
    return content


def line_with_vector(line: bytes, vector: Vector, made_by: str | None) -> bytes:
    """The line of a version, with a vector; the arguments are as in `Record`."""
    data = {"vector": vector_to_base64(vector)} | ({MADE_BY: made_by} if made_by else {})
    return line[:-1] + b"," + orjson.dumps(data)[1:]


def with_vector_of(entry: MemoryEntry, record: Record) -> MemoryEntry:
    """The memory with the vector of a version."""
    return with_vector(entry, record.vector, record.made_by)


def _object(line: bytes, limits: Limits) -> dict[str, Any]:
    try:
        data = parse_line(line, limits.nesting + 1)
    except NotJSON:
        raise EntryError("is not JSON") from None
    if type(data) is not dict:
        raise EntryError("is not a JSON object")
    return data
