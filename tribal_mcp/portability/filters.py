"""Which memories an export takes: any of the tags, and created within a range of time."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.memory import MemoryEntry, read_date


def read_bound(value: object, *, whole_day: bool) -> object:
    """A point in time from ISO 8601 text; a date alone is its first instant, or the next day's.

    Raises:
        ValueError: text that is not ISO 8601.
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
        day_only = "T" not in text.upper() and ":" not in text
        return moment + timedelta(days=1) if whole_day and day_only else moment
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is not an ISO 8601 date. Write it as 2026-01-15, "
            "2026-01-15T10:30:00 or 2026-01-15T10:30:00+00:00."
        ) from None


class ExportFilter(BaseModel):
    """At least one of `tags`, and `date_from` <= `created_at` < `date_to`.

    No tags means any memory. Without an offset a date is UTC. A `date_to` given as a date alone
    ("2026-01-15") includes that whole day. The end is exclusive so that ranges laid end to end
    cover every memory exactly once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tags: Annotated[list[str], BeforeValidator(lambda v: [] if v is None else v)] = Field(
        default_factory=list
    )
    date_from: Annotated[
        datetime | None, BeforeValidator(lambda v: read_bound(v, whole_day=False))
    ] = None
    date_to: Annotated[
        datetime | None, BeforeValidator(lambda v: read_bound(v, whole_day=True))
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.date_from and self.date_to and self.date_from > self.date_to:
            raise ValueError("date_from is after date_to. Swap them.")
        return self

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.tags or self.date_from or self.date_to)

    def matches(self, entry: MemoryEntry) -> bool:
        """Whether the entry is taken."""
        return (
            (not self.tags or not set(self.tags).isdisjoint(entry.tags))
            and (self.date_from is None or self.date_from <= entry.created_at)
            and (self.date_to is None or entry.created_at < self.date_to)
        )

    def in_words(self) -> str:
        """What is taken, as a phrase for people."""
        parts: list[str] = []
        if self.tags:
            parts.append("tagged " + _either(self.tags))
        if self.date_from:
            parts.append(f"created from {self.date_from.isoformat()}")
        if self.date_to:
            parts.append(f"created before {self.date_to.isoformat()}")
        return "memories " + " and ".join(parts) if parts else "all memories"


def read_filter(tags: list[str], date_from: str, date_to: str) -> ExportFilter:
    """The filter of a door's arguments.

    Raises:
        UsageError: a date is not ISO 8601, the range is reversed, or a tag is empty.
    """
    if "" in tags:
        raise UsageError("A tag is empty. Leave it out, or leave tags out to take all memories.")
    try:
        return ExportFilter(tags=tags, date_from=date_from, date_to=date_to)  # type: ignore[arg-type]
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{field}: {message}" if field else message) from None


def _either(words: Iterable[str]) -> str:
    return " or ".join(repr(word) for word in words)
