"""Which memories an export takes."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from tests.support.bundles import read, written
from tests.support.examples import memory
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.filters import ExportFilter, read_filter

DATES = {
    # the date_from that is given, and the time that it means
    "a day": ("2026-01-15", datetime(2026, 1, 15, tzinfo=UTC)),
    "a time without offset": ("2026-01-15T10:30:00", datetime(2026, 1, 15, 10, 30, tzinfo=UTC)),
    "a time with an offset": (
        "2026-01-15T10:30:00+02:00",
        datetime(2026, 1, 15, 8, 30, tzinfo=UTC),
    ),
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
def test_a_date_is_read_as_the_start_of_the_range(case: str) -> None:
    given, expected = DATES[case]
    assert ExportFilter(date_from=given).date_from == expected


def taken(entry_at: str, **filters: Any) -> bool:  # noqa: ANN401 - the arguments of a filter
    return ExportFilter(**filters).matches(memory(1, created_at=datetime.fromisoformat(entry_at)))


def test_a_range_of_one_date_covers_that_whole_day() -> None:
    day = {"date_from": "2026-01-15", "date_to": "2026-01-15"}
    assert not taken("2026-01-14T23:59:59.999999+00:00", **day)
    assert taken("2026-01-15T00:00:00+00:00", **day)
    assert taken("2026-01-15T23:59:59.999999+00:00", **day)
    assert not taken("2026-01-16T00:00:00+00:00", **day)
    assert taken("2026-01-16T01:00:00+02:00", **day)


@pytest.mark.parametrize(
    "date_to",
    ["2026-01-15T10:00:00", "2026-01-15 10:00", "2026-01-15 10", "20260115 1000", "2026-W03-4t10"],
)
def test_a_range_with_an_end_time_excludes_that_time_and_the_rest_of_the_day(date_to: str) -> None:
    assert taken("2026-01-15T09:59:59.999999+00:00", date_to=date_to)
    assert not taken("2026-01-15T10:00:00+00:00", date_to=date_to)
    assert not taken("2026-01-15T23:59:59+00:00", date_to=date_to)


def test_one_matching_tag_is_enough_and_tags_and_dates_must_both_match() -> None:
    entry = memory(1, tags=["work", "ideas"])
    assert ExportFilter(tags=["ideas", "other"]).matches(entry)
    assert not ExportFilter(tags=["Work", "wor"]).matches(entry)
    assert ExportFilter(tags=[]).matches(entry)
    assert ExportFilter(tags=None).matches(entry)
    assert not ExportFilter(tags=["work"], date_from="2027-01-01").matches(entry)


REFUSED: dict[str, dict[str, Any]] = {
    "tags as text": {"tags": "work"},
    "a tag that is a number": {"tags": [1]},
    "a word instead of a date": {"date_from": "yesterday"},
    "a month without a day": {"date_from": "2026-01"},
    "a day that does not exist": {"date_to": "2026-02-30"},
    "a tuple of tags": {"tags": ("a",)},
    "a date that is not a datetime": {"date_from": date(2026, 1, 15)},
    "a date as number": {"date_from": 20260115},
    "a range that ends before it begins": {"date_from": "2026-02-01", "date_to": "2026-01-01"},
    "an unknown argument": {"tag": ["work"]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_filter_refuses_invalid_arguments(case: str) -> None:
    with pytest.raises(UsageError) as refused:
        ExportFilter(**REFUSED[case])
    assert "pydantic" not in str(refused.value)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize("text", ["2026-01-15 10", "20260115 1000", "2026-W03-4 10"])
def test_an_end_with_a_time_is_not_moved_to_the_next_day(text: str) -> None:
    moment = datetime(2026, 1, 15, 10, tzinfo=UTC)
    assert ExportFilter(date_to=text).date_to == moment


@pytest.mark.parametrize("text", ["9999-12-31", "99991231", "9999-W52-5"])
def test_the_last_day_of_the_calendar_is_no_end(text: str) -> None:
    assert ExportFilter(date_to=text).date_to is None
    assert read_filter([], "", text).date_to is None


def test_a_filter_describes_the_memories_that_match() -> None:
    assert ExportFilter().in_words() == "all memories"
    assert not ExportFilter()
    some = ExportFilter(tags=["a", "b"], date_from="2026-01-01", date_to="2026-01-31")
    assert some
    assert some.in_words() == (
        "memories tagged 'a' or 'b' and created from 2026-01-01T00:00:00+00:00 "
        "and created before 2026-02-01T00:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("tags", "date_from", "date_to", "message"),
    [
        (["a", ""], "", "", "A tag is empty"),
        ([], "yesterday", "", "The start date 'yesterday' is not an ISO 8601 date"),
        ([], "", "2026-02-30", "The end date '2026-02-30' is not an ISO 8601 date"),
        ([], "2026-02-01", "2026-01-01", "The start date is after the end date. Swap them"),
    ],
)
def test_invalid_arguments_are_refused_in_plain_words(
    tags: list[str], date_from: str, date_to: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_filter(tags, date_from, date_to)


def test_arguments_become_a_filter() -> None:
    assert read_filter(["a"], "2026-01-01", "2026-01-31") == ExportFilter(
        tags=["a"],
        date_from=datetime(2026, 1, 1, tzinfo=UTC),
        date_to=datetime(2026, 2, 1, tzinfo=UTC),
    )


def test_consecutive_ranges_cover_every_memory_exactly_once() -> None:
    entries = [memory(number * 29) for number in range(300)]
    bounds = [f"2026-{month:02}-01" for month in range(1, 13)] + ["2027-01-01T00:00:00"]
    found = []
    for begin, end in pairwise(bounds):
        month = ExportFilter(date_from=begin, date_to=f"{end[:10]}T00:00:00")
        part = [entry for entry in entries if month.matches(entry)]
        found += read(written(part, "jsonl")).entries
    assert sorted(entry.id for entry in found) == sorted(entry.id for entry in entries)
