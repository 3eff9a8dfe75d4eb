"""Many processes on one folder lose nothing and read nothing stale."""

import time
from pathlib import Path

import pytest

from tests.campaigns import work
from tests.campaigns.processes import answer, ask, report, start, times
from tests.support.examples import memory

pytestmark = pytest.mark.campaign


SYNC_THRESHOLD = times(10, 100)


def test_many_writers_and_readers_lose_nothing(tmp_path: Path) -> None:
    writers, count = times(3, 8), times(20, 1000)
    folder, acknowledged, stop = tmp_path / "store", tmp_path / "acknowledged", tmp_path / "stop"
    acknowledged.mkdir()
    ask(work.make_collection, folder, SYNC_THRESHOLD)  # with an index that is written often
    begin = time.monotonic()
    crowd = [start(work.crowd, folder, me, writers, count, acknowledged) for me in range(writers)]
    watchers = [start(work.watch, folder, stop) for _ in range(2)]
    stale = sum(answer(child, 7200)["stale"] for child in crowd)
    stop.touch()
    seen = [answer(child, 7200) for child in watchers]
    found, _ = ask(work.read_all, folder)
    expected = {
        entry.id: entry
        for me in range(writers)
        for n in range(count)
        for entry in [memory(me * 1_000_000 + n, work.DIMENSIONS)]
    }
    assert found == expected
    assert stale == 0
    assert sum(watcher["wrong"] for watcher in seen) == 0
    assert ask(work.damage, folder) == []
    rounds = sum(watcher["rounds"] for watcher in seen)
    report(
        f"{writers} processes x {count} upserts beside {rounds} rounds of 2 readers: 0 lost, "
        f"0 stale, 0 errors, in {time.monotonic() - begin:.0f} s"
    )


def test_many_processes_can_create_one_store_at_once(tmp_path: Path) -> None:
    folder, acknowledged = tmp_path / "store", tmp_path / "acknowledged"
    acknowledged.mkdir()
    crowd = [start(work.crowd, folder, me, 6, 3, acknowledged) for me in range(6)]
    assert [answer(child)["stale"] for child in crowd] == [0] * 6
    found, _ = ask(work.read_all, folder)
    assert len(found) == 18
    assert ask(work.damage, folder) == []
