"""Which memories an export takes."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.examples import memory
from tribal_mcp.portability.filters import ExportFilter

DATES = {
    # what the user gives as date_from, and the instant that it means
    "a day": ("2026-01-15", datetime(2026, 1, 15, tzinfo=UTC)),
    "a time without offset": ("2026-01-15T10:30:00", datetime(2026, 1, 15, 10, 30, tzinfo=UTC)),
    "a time with one": ("2026-01-15T10:30:00+02:00", datetime(2026, 1, 15, 8, 30, tzinfo=UTC)),
    "with Z": ("2026-01-15T10:30:00Z", datetime(2026, 1, 15, 10, 30, tzinfo=UTC)),
    "with a space": ("2026-01-15 10:30", datetime(2026, 1, 15, 10, 30, tzinfo=UTC)),
    "with white space around": (" 2026-01-15\n", datetime(2026, 1, 15, tzinfo=UTC)),
    "without dashes": ("20260115", datetime(2026, 1, 15, tzinfo=UTC)),
    "a week": ("2026-W03-4", datetime(2026, 1, 15, tzinfo=UTC)),
    "a datetime": (datetime(2026, 1, 15), datetime(2026, 1, 15, tzinfo=UTC)),  # noqa: DTZ001
    "an aware datetime": (
        datetime(2026, 1, 15, tzinfo=timezone(timedelta(hours=1))),
        datetime(2026, 1, 14, 23, tzinfo=UTC),
    ),
    "nothing": ("", None),
    "None": (None, None),
}


@pytest.mark.parametrize("case", DATES)
def test_what_a_date_means(case: str) -> None:
    given, expected = DATES[case]
    assert ExportFilter(date_from=given).date_from == expected  # type: ignore[arg-type]


def taken(entry_at: str, **filters: Any) -> bool:  # noqa: ANN401 - as a user gives them
    return ExportFilter(**filters).matches(memory(1, created_at=datetime.fromisoformat(entry_at)))


def test_a_range_ends_with_its_last_day_or_before_its_last_instant() -> None:
    day = {"date_from": "2026-01-15", "date_to": "2026-01-15"}
    assert not taken("2026-01-14T23:59:59.999999+00:00", **day)
    assert taken("2026-01-15T00:00:00+00:00", **day)
    assert taken("2026-01-15T23:59:59.999999+00:00", **day)
    assert not taken("2026-01-16T00:00:00+00:00", **day)
    assert taken("2026-01-16T01:00:00+02:00", **day)
    assert not taken("2026-01-15T10:00:00+00:00", date_to="2026-01-15T10:00:00")


def test_any_of_the_tags_is_enough_and_both_kinds_of_filter_must_hold() -> None:
    entry = memory(1, tags=["work", "ideas"])
    assert ExportFilter(tags=["ideas", "other"]).matches(entry)
    assert not ExportFilter(tags=["Work", "wor"]).matches(entry)
    assert ExportFilter(tags=[]).matches(entry)
    assert ExportFilter(tags=None).matches(entry)  # type: ignore[arg-type]
    assert not ExportFilter(tags=["work"], date_from="2027-01-01").matches(entry)  # type: ignore[arg-type]


REFUSED: dict[str, dict[str, Any]] = {
    "tags as text": {"tags": "work"},
    "a tag that is a number": {"tags": [1]},
    "a date in words": {"date_from": "yesterday"},
    "a month": {"date_from": "2026-01"},
    "a day that is none": {"date_to": "2026-02-30"},
    "the last day there is": {"date_to": "9999-12-31"},
    "a date as number": {"date_from": 20260115},
    "a range that ends before it begins": {"date_from": "2026-02-01", "date_to": "2026-01-01"},
    "an argument that is none": {"tag": ["work"]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    with pytest.raises(ValidationError):
        ExportFilter(**REFUSED[case])


def test_a_filter_says_in_words_what_it_takes() -> None:
    assert ExportFilter().in_words() == "all memories"
    assert not ExportFilter()
    some = ExportFilter(tags=["a", "b"], date_from="2026-01-01", date_to="2026-01-31")  # type: ignore[arg-type]
    assert some
    assert some.in_words() == (
        "memories tagged 'a' or 'b' and created from 2026-01-01T00:00:00+00:00 "
        "and created before 2026-02-01T00:00:00+00:00"
    )
