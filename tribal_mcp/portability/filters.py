"""Which memories an export takes: those with any of the tags, created within a time range."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tribal_mcp.errors import UsageError, invalid_field
from tribal_mcp.portability.memory import MemoryEntry, microseconds, read_date
from tribal_mcp.text import counted

MOST_TAGS = 1_000
"""Tags that a filter of a use case may name."""

_SHOWN_TAGS = 20
_REVERSED = "The start date is after the end date. Swap them."
_DATE_ALONE = re.compile(r"\d{4}(-?\d\d-?\d\d|-?W\d\d(-?\d)?)", re.ASCII)


def read_bound(value: object, *, whole_day: bool) -> object:
    """A start or end of a time range, from ISO 8601 text.

    Args:
        value: the text; without an offset it is UTC. Empty text is None, and a value that is not
            text is returned as it is, with a naive datetime made UTC.
        whole_day: a date without a time means the start of the next day, so that a range that
            ends there includes the whole day. The last day of the calendar is no end: None.

    Raises:
        ValueError: the text is not ISO 8601.
    """
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    try:
        moment = read_date(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not an ISO 8601 date. Write it as 2026-01-15, "
            "2026-01-15T10:30:00 or 2026-01-15T10:30:00+00:00."
        ) from None
    if not whole_day or not _DATE_ALONE.fullmatch(text):
        return moment
    try:
        return moment + timedelta(days=1)
    except OverflowError:
        return None


class ExportFilter(BaseModel):
    """Memories with at least one of `tags`, and `date_from` <= `created_at` < `date_to`.

    No tags means any memory. A time without an offset is UTC. A `date_to` without a time
    ("2026-01-15") includes that whole day. The end is exclusive, so that consecutive ranges cover
    every memory exactly once.

    Raises:
        UsageError: an argument is unknown, has a wrong type or is not ISO 8601, or the range is
            reversed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    tags: Annotated[list[str], BeforeValidator(lambda v: [] if v is None else v)] = Field(
        default_factory=list
    )
    date_from: Annotated[
        datetime | None, BeforeValidator(lambda v: read_bound(v, whole_day=False))
    ] = None
    date_to: Annotated[
        datetime | None, BeforeValidator(lambda v: read_bound(v, whole_day=True))
    ] = None

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - checked by the fields
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise UsageError(_in_words(error)) from None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.date_from and self.date_to and self.date_from > self.date_to:
            raise ValueError(_REVERSED)
        return self

    def __bool__(self) -> bool:
        """Whether it excludes anything."""
        return bool(self.tags or self.date_from or self.date_to)

    def matches(self, entry: MemoryEntry) -> bool:
        """Whether the filter includes this entry."""
        return (
            (not self.tags or not set(self.tags).isdisjoint(entry.tags))
            and (self.date_from is None or self.date_from <= entry.created_at)
            and (self.date_to is None or entry.created_at < self.date_to)
        )

    @property
    def bounds_us(self) -> tuple[int | None, int | None]:
        """The first and the last microsecond since 1970 UTC of its dates; None if open."""
        return (
            microseconds(self.date_from) if self.date_from else None,
            microseconds(self.date_to) - 1 if self.date_to else None,
        )

    def in_words(self) -> str:
        """A description of the memories that match, to use in a sentence."""
        parts: list[str] = []
        if self.tags:
            parts.append("tagged " + _either(self.tags))
        if self.date_from:
            parts.append(f"created from {self.date_from.isoformat()}")
        if self.date_to:
            parts.append(f"created before {self.date_to.isoformat()}")
        return "memories " + " and ".join(parts) if parts else "all memories"


def read_filter(tags: list[str], date_from: str, date_to: str) -> ExportFilter:
    """The filter for the arguments of a use case.

    Raises:
        UsageError: a date is not ISO 8601, the range is reversed, or a tag is empty.
    """
    if "" in tags:
        raise UsageError("A tag is empty. Remove it, or give no tags to include all memories.")
    if len(tags) > MOST_TAGS:
        raise UsageError(f"{len(tags):,} tags are too many at once. Give at most {MOST_TAGS:,}.")
    bounds = {}
    for name, text in {"start": date_from, "end": date_to}.items():
        try:
            bounds[name] = read_bound(text, whole_day=name == "end")
        except ValueError as error:
            raise UsageError(f"The {name} date {error}") from None
    return ExportFilter(tags=tags, date_from=bounds["start"], date_to=bounds["end"])


def _in_words(error: ValidationError) -> str:
    problem = error.errors()[0]
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    if problem["type"].startswith("datetime"):
        return f"{problem['loc'][0]} must be ISO 8601 text or a datetime, such as 2026-01-15."
    text = invalid_field(problem["loc"], problem)
    return text if text.endswith(".") else f"{text}."


def _either(words: Sequence[str]) -> str:
    shown = [f"{word!r:.80}" for word in words[:_SHOWN_TAGS]]
    if (more := len(words) - len(shown)) > 0:
        shown.append(counted(more, "other"))
    return " or ".join(shown)
