"""Random histories of machines that share a folder; see `model`."""

import os

from tests.portability.replication.model import run_schedules

SCHEDULES = int(os.environ.get("TRIBAL_SYNC_SCHEDULES", "200"))
FIRST = int(os.environ.get("TRIBAL_SYNC_SEED", "0"))


def test_all_machines_agree_and_nothing_is_lost_that_nobody_removed() -> None:
    rate = run_schedules(FIRST, SCHEDULES)
    print(f"{SCHEDULES:,} schedules, {rate:,.0f} a second")  # noqa: T201
