"""A backup is killed at any moment: there are never fewer good backups than before."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.campaigns import work
from tests.campaigns.processes import FULL, ask, report, start, times
from tests.campaigns.work import Report
from tests.support.examples import memory

pytestmark = pytest.mark.campaign

KEPT = 4
MEMORIES = 400


def back_up(told: Report, folder: Path, backups: Path, number: int) -> float:
    """Change one memory and back up, keeping the newest backups; how long that took."""
    changed = [memory(number, work.DIMENSIONS, content=f"changed {number}")]
    work.store_entries(told, folder, changed)
    told(("begin", ""))
    begin = time.monotonic()
    arguments = {"folder": os.fspath(backups), "keep_last": KEPT}
    assert work.job(told, folder, "backup", arguments)["path"]
    return time.monotonic() - begin


def back_up_often(told: Report, folder: Path, backups: Path, count: int) -> float:
    """Back up several times; how long the last one took."""
    return [back_up(told, folder, backups, number) for number in range(count)][-1]


def good(told: Report, folder: Path, backups: Path) -> list[str]:
    """The times of the backups that can be restored, the newest first."""
    arguments = {"folder": os.fspath(backups), "verify": True}
    found = work.job(told, folder, "backup", arguments)["backups"]
    assert not [backup["problem"] for backup in found if backup["problem"]]
    return [backup["at"] for backup in found]


def restored(told: Report, backups: Path, at: str, folder: Path) -> int:
    """Restore a state into a new store; how many memories it has."""
    work.job(told, folder, "restore", {"folder": os.fspath(backups), "at": at})
    return len(work.read_all(told, folder)[0])


def parts_in(backups: Path) -> list[Path]:
    """What killed backups have left."""
    return list(backups.glob(".*.part"))


def test_a_killed_backup_never_leaves_fewer_good_ones(tmp_path: Path) -> None:
    kills = times(3, 100)
    chance = random.Random(7)  # noqa: S311
    folder, backups = tmp_path / "store", tmp_path / "backups"
    backups.mkdir()
    ask(work.make_collection, folder, 1000)
    entries = [
        memory(n, work.DIMENSIONS, content=f"{n} {chance.random()}") for n in range(MEMORIES)
    ]
    ask(work.store_entries, folder, entries)
    whole_s = ask(back_up_often, folder, backups, KEPT + 2)
    before = ask(good, folder, backups)
    assert len(before) >= KEPT
    interrupted = leftovers = 0
    for trial in range(kills):
        victim = start(back_up, folder, backups, 10 + trial)
        victim.lines.poll(60)  # until it begins
        time.sleep(chance.uniform(0, 1.2 * whole_s))
        victim.kill()
        interrupted += not any(kind == "done" for kind, _ in victim.reports())
        victim.close()
        leftovers += bool(parts_in(backups))
        after = ask(good, folder, backups)
        assert len(after) >= KEPT
        assert set(after) >= set(before[: KEPT - 1]), f"trial {trial}"  # at most one was replaced
        before = after
    ask(back_up, folder, backups, 9_999)
    now = ask(good, folder, backups)
    assert not parts_in(backups)
    for number, at in enumerate(now if FULL else now[-1:]):
        assert ask(restored, backups, at, tmp_path / f"restored-{number}") >= MEMORIES
    report(
        f"{kills} kills of a backup, {interrupted} before its end, {leftovers} left a part: 0 lost"
    )
