"""Which backups a rule keeps: the documented meaning of restic's options."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from tribal_mcp.services.backups.retention import Retention

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
MOMENTS = st.lists(
    st.integers(0, 3 * 365 * 24).map(lambda hours: BEGIN + timedelta(hours=hours)), max_size=60
)
RULES = st.builds(Retention, *[st.integers(0, 8)] * 5)


def periods(rules: Retention) -> list[tuple[int, Callable[[datetime], object]]]:
    return [
        (rules.daily, lambda t: (t.year, t.month, t.day)),
        (rules.weekly, lambda t: (t - timedelta(days=t.weekday())).date()),
        (rules.monthly, lambda t: (t.year, t.month)),
        (rules.yearly, lambda t: t.year),
    ]


def expected(rules: Retention, times: list[datetime]) -> set[int]:
    """The numbers of the kept ones, by the words of restic's manual."""
    if not rules or not times:
        return set(range(len(times)))
    kept = set(range(rules.last)) & set(range(len(times)))
    if rules.last > len(times):
        kept.add(len(times) - 1)
    for count, period_of in periods(rules):
        newest: dict[object, int] = {}
        for number, moment in enumerate(times):
            newest.setdefault(period_of(moment), number)
        kept.update(list(newest.values())[:count])
        if len(newest) < count:  # the oldest is kept as long as there are not enough
            kept.add(len(times) - 1)
    return kept


@given(MOMENTS, RULES)
@example([BEGIN], Retention())
@example([BEGIN + timedelta(days=6), BEGIN + timedelta(days=7), BEGIN], Retention(weekly=1))
def test_a_backup_is_kept_if_one_of_the_rules_keeps_it(
    times: list[datetime], rules: Retention
) -> None:
    times.sort(reverse=True)
    kept = rules.kept(times)
    assert {number for number, keep in enumerate(kept) if keep} == expected(rules, times)


def test_the_example_of_restics_manual_gives_the_same_backups() -> None:
    april = [21, 22, 23, 24, 25, 25.5, 28, 29]
    times = [datetime(2025, 4, 1, 11, tzinfo=UTC) + timedelta(days=day - 1) for day in april]
    times += [datetime(2025, 5, day, hour, tzinfo=UTC) for day, hour in ((1, 11), (2, 11), (2, 23))]
    times.sort(reverse=True)
    kept = [
        moment for moment, keep in zip(times, Retention(daily=5).kept(times), strict=True) if keep
    ]
    assert [(t.month, t.day, t.hour) for t in kept] == [
        (5, 2, 23),
        (5, 1, 11),
        (4, 29, 11),
        (4, 28, 11),
        (4, 25, 23),
    ]


def test_a_hundred_years_keep_what_the_manual_says() -> None:
    times = [BEGIN + timedelta(days=day) for day in reversed(range(36_525))]
    rules = Retention(daily=7, weekly=5, monthly=12, yearly=75)
    kept = {number for number, keep in enumerate(rules.kept(times)) if keep}
    assert kept == expected(rules, times)
    assert len(kept) == 93
