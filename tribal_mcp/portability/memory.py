"""A memory: what stores hold and bundles carry.

Dates are aware; a naive one is UTC. A vector is a read-only float32 array. `verbatim` keeps the
original text of a value that reads the same but is spelled otherwise (a date such as "2026-01-15",
an unknown source type). That text is written back as long as the value is unchanged.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tribal_mcp.errors import EntryError
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.vectors import Vector, as_vector, is_vector, kind_of, same_vector

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MADE_BY = "embedding_model"
"""The field that names a vector's model if it is not the model of the bundle or store."""

REDACTED_KINDS = "redacted_kinds"
"""The field that lists what was redacted in a memory, such as passwords."""

MARK = re.compile(r"\[redacted:([a-z0-9-]+):(\d+)\]")
"""What takes the place of a secret: its kind, and its number within the memory."""

_MICROSECOND = timedelta(microseconds=1)
_CLOCKS_DIFFER_BY = timedelta(minutes=5)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True, eq=False)
class MemoryEntry:
    """One memory.

    Attributes:
        id: identifies the memory in every store and bundle; never empty.
        content: the text.
        embedding: the vector, float32 of shape (dimensions,), or None. Any sequence of numbers is
            converted.
        confidence: from 0 to 1.
        supersedes: id of the memory that this one corrects.
        related_to: ids of other memories.
        metadata: metadata of a collection that another program created.
        extra: unknown fields of the JSON form, kept for the next export.
        verbatim: the original text of `created_at`, `updated_at` or `source_type`.

    Raises:
        EntryError: a value has a wrong type or is out of range.
    """

    content: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    embedding: Vector | None = None
    source_instance: str = "unknown"
    source_type: MemorySource = MemorySource.UNKNOWN
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime = None  # type: ignore[assignment]  # created_at by default
    tags: list[str] = field(default_factory=list)
    context: str | None = None
    confidence: float = 1.0
    supersedes: str | None = None
    related_to: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    verbatim: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.created_at = aware(self.created_at, "created_at")
        if self.updated_at is None:
            self.updated_at = self.created_at  # type: ignore[unreachable]  # None until here
        self.updated_at = aware(self.updated_at, "updated_at")
        if type(self.source_type) is not MemorySource:
            self.verbatim = {**self.verbatim, "source_type": self.source_type}
            self.source_type = MemorySource.read(self.source_type)
        self.confidence = _float(self.confidence)
        vector = self.embedding
        if vector is not None and not is_vector(vector):
            self.embedding = as_vector(vector)

    def __eq__(self, other: object) -> bool:
        """Whether all values are equal; dates are compared as points in time."""
        if not isinstance(other, MemoryEntry):
            return NotImplemented
        return (
            self.same_but_for_vector(other)
            and same_vector(self.embedding, other.embedding)
            and self.extra == other.extra
        )

    __hash__ = None  # type: ignore[assignment]

    def same_but_for_vector(self, other: "MemoryEntry") -> bool:
        """Whether all values are equal, except for the vector and its model."""
        return (
            self.id == other.id
            and self.content == other.content
            and self.updated_at == other.updated_at
            and self.created_at == other.created_at
            and self.tags == other.tags
            and self.context == other.context
            and self.confidence == other.confidence
            and self.supersedes == other.supersedes
            and self.related_to == other.related_to
            and self.source_instance == other.source_instance
            and source_text(self) == source_text(other)
            and self.metadata == other.metadata
            and (
                self.extra == other.extra
                or _without_model(self.extra) == _without_model(other.extra)
            )
        )


def _without_model(extra: dict[str, Any]) -> dict[str, Any]:
    if type(extra.get(MADE_BY)) is not str:
        return extra
    return {key: value for key, value in extra.items() if key != MADE_BY}


def _float(value: Any) -> Any:  # noqa: ANN401 - `check_entry` refuses other types
    return float(value) if type(value) is int else value


def aware(value: object, name: str) -> datetime:
    """The date with its offset; without one it is UTC.

    Raises:
        EntryError: it is not a datetime.
    """
    if not isinstance(value, datetime):
        raise EntryError(f"{name} is {kind_of(value)}, not a datetime")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def read_date(text: str) -> datetime:
    """The point in time that an ISO 8601 text names; without an offset it is UTC.

    Raises:
        ValueError: it is not ISO 8601.
    """
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def microseconds(value: datetime) -> int:
    """Microseconds since 1970-01-01 UTC."""
    return (value - EPOCH) // _MICROSECOND


def is_ahead(value: datetime) -> bool:
    """Whether a stored time is in the future: the clock was ahead then, or is behind now."""
    return value > datetime.now(UTC) + _CLOCKS_DIFFER_BY


def from_microseconds(value: int) -> datetime:
    """The point in time, in UTC, of microseconds since 1970-01-01 UTC."""
    return EPOCH + timedelta(microseconds=value)


def date_text(entry: MemoryEntry, name: str) -> str:
    """The text of `created_at` or `updated_at`: the original text if the time is unchanged."""
    value: datetime = getattr(entry, name)
    text = entry.verbatim.get(name)
    return text if text is not None and read_date(text) == value else value.isoformat()


def source_text(entry: MemoryEntry) -> str:
    """The text of `source_type`: the original text if the source is unchanged."""
    text = entry.verbatim.get("source_type")
    if text is not None and MemorySource.read(text) is entry.source_type:
        return text
    return entry.source_type.value


def own_model(entry: MemoryEntry) -> str | None:
    """The model that the memory itself names for its vector, if it is one of other models."""
    name = entry.extra.get(MADE_BY)
    return name if entry.embedding is not None and type(name) is str and name.strip() else None


def kinds_in(extra: Mapping[str, Any]) -> list[str]:
    """What was redacted in a memory, by its extra fields; empty if nothing was."""
    kinds = extra.get(REDACTED_KINDS)
    if type(kinds) is not list or not all(type(kind) is str for kind in kinds):
        return []
    return kinds


def is_redacted(entry: MemoryEntry) -> bool:
    """Whether the memory lacks secrets that its original has.

    Other systems' formats lose the field that says so, and keep the marks in the texts.
    """
    if entry.extra and kinds_in(entry.extra):
        return True
    texts = [entry.content, *entry.tags, entry.context or ""]
    if entry.metadata:
        texts.append(str(entry.metadata))
    return any("[redacted:" in text and MARK.search(text) for text in texts)


def with_vector(
    entry: MemoryEntry, vector: Vector | None, made_by: str | None = None
) -> MemoryEntry:
    """A copy of the memory with this vector.

    Args:
        entry: the memory. Without a vector before and after, it is returned unchanged.
        vector: the new vector, or None.
        made_by: the vector's model if it is not the model of the bundle or store.
    """
    if vector is None and entry.embedding is None:
        return entry
    extra = entry.extra
    if type(extra.get(MADE_BY)) is str:
        extra = {key: value for key, value in extra.items() if key != MADE_BY}
    if made_by is not None:
        extra = {**extra, MADE_BY: made_by}
    return replace(entry, embedding=vector, extra=extra)
