"""Which backups a rule keeps, with the meaning that restic gives to the same options."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime

Period = Callable[[datetime, int], object]

_PERIODS: tuple[Period, ...] = (
    lambda _moment, number: number,
    lambda moment, _: moment.date(),
    lambda moment, _: moment.isocalendar()[:2],
    lambda moment, _: (moment.year, moment.month),
    lambda moment, _: moment.year,
)
"""What two backups of the same period have in common; a period begins and ends in UTC."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many backups to keep: of the latest days that have one, the newest of each, and so on.

    All zero keeps everything.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def kept(self, times: Sequence[datetime]) -> list[bool]:
        """For each backup, whether at least one of the rules keeps it.

        A rule that has not found enough of them also keeps the oldest.

        Args:
            times: when the backups were made, the newest first.
        """
        left, latest = list(astuple(self)), [None] * len(_PERIODS)
        kept: list[bool] = []
        for number, moment in enumerate(times):
            keep = not self
            for rule, period_of in enumerate(_PERIODS):
                period = period_of(moment.astimezone(UTC), number)
                if left[rule] and (period != latest[rule] or number == len(times) - 1):
                    keep = True
                    left[rule] -= 1
                    latest[rule] = period  # type: ignore[call-overload]
            kept.append(keep)
        return kept
