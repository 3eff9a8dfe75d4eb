"""The period that a question mentions."""

from datetime import UTC, datetime

import pytest

from tribal_mcp.search.dates import mentioned_period

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("question", "period"),
    [
        ("What did we decide in May 2026?", "2026-05-01 to 2026-05-31"),
        ("the meeting last May", "2026-05-01 to 2026-05-31"),
        ("last November", "2025-11-01 to 2025-11-30"),
        ("in November", "2026-11-01 to 2026-11-30"),
        ("in December", "2025-12-01 to 2025-12-31"),
        ("on 3 June 2026", "2026-06-03"),
        ("June 3rd, 2026", "2026-06-03"),
        ("in Nov 2025", "2025-11-01 to 2025-11-30"),
        ("3 Sept. 2026", "2026-09-03"),
        ("am 18.11.2025", "2025-11-18"),
        ("since 2026-05-12", "2026-05-12"),
        ("2026-02", "2026-02-01 to 2026-02-28"),
        ("what broke last month", "2026-10-01 to 2026-10-31"),
        ("Yesterday?", "2026-11-19"),
        ("this week", "2026-11-16 to 2026-11-22"),
        ("in 2025", "2025-01-01 to 2025-12-31"),
        ("Messe im März", "2026-03-01 to 2026-03-31"),
        ("letzte Woche", "2026-11-09 to 2026-11-15"),
        ("en octubre de 2026", "2026-10-01 to 2026-10-31"),
        ("en août dernier", "2026-08-01 to 2026-08-31"),
        ("в прошлом месяце", "2026-10-01 to 2026-10-31"),
        ("2026年5月の会議", "2026-05-01 to 2026-05-31"),
        ("지난달 회의", "2026-10-01 to 2026-10-31"),
        ("上个月", "2026-10-01 to 2026-10-31"),
    ],
)
def test_a_period_is_recognized(question: str, period: str) -> None:
    found = mentioned_period(question, NOW)
    assert found is not None
    assert found.in_words() == period


@pytest.mark.parametrize(
    "question",
    [
        "May I go?",
        "you may march on",
        "Marsmission",
        "31 June",
        "31.6.2026",
        "Does Jan like tea in Dez?",
        "version 1.22.2026",
        "2026-13",
        "invoice 20265",
        "0000-01",
        "9999-12-31",
    ],
)
def test_other_words_and_impossible_dates_are_no_period(question: str) -> None:
    assert mentioned_period(question, NOW) is None
