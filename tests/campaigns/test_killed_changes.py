"""Undo, forget, repair, copy and incremental exports are killed: each batch is whole or not there.

The same call again then gives the state of a call that was not killed.
"""

import random
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns import power
from tests.campaigns.processes import FULL, ask, kill_at_random, report, start, times
from tests.campaigns.use_cases import (
    BATCH,
    FURTHER,
    OPERATIONS,
    Found,
    Place,
    call_in_batches,
    find,
    find_and_repeat,
    order,
)
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.limits import Limits

pytestmark = pytest.mark.campaign

KILLED = {name: OPERATIONS[name] for name in ("undo", "forget", "repair")} | FURTHER
_DONE = {"undo": re.compile(r"Compared (\d+) of"), "copy": re.compile(r"Copied (\d+) of")}


@pytest.fixture(params=KILLED if FULL else ["undo", "since"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    name, arguments = KILLED[request.param]
    return Place.new(tmp_path / "here", name, arguments)


class Campaign:
    """Kills of one use case, each from the same folder."""

    def __init__(self, place: Place, before: Path) -> None:
        self.place, self._before = place, before
        shutil.copytree(place.folder, before)
        self.before = ask(find, place).held
        self.order = ask(order, place)
        self.old_count = self._bundled()
        begin = time.monotonic()
        answer = ask(call_in_batches, place)
        self.whole_s = time.monotonic() - begin
        assert not answer.error, answer
        self.after = ask(find, place).held
        self.new_count = self._bundled()
        self.batch = len(self.order) if place.name == "forget" else BATCH
        self.outcomes: Counter[str] = Counter()

    def _bundled(self) -> int:
        with self.place.bundle.open("rb") as file:
            return BundleReader(file, Limits()).verify().count

    def kill(self, chance: random.Random) -> list[str]:
        """Kill one call, and perhaps what recovers the folder; what is wrong then."""
        shutil.rmtree(self.place.folder)
        shutil.copytree(self._before, self.place.folder)
        index = max(self.place.store.glob("*/index_metadata.pickle"), key=_size).parent
        victim = start(call_in_batches, self.place)
        kill_at_random(victim, chance, self.whole_s, index)
        reports = victim.reports()
        victim.close()
        complete = any(kind == "done" for kind, _ in reports)
        self.outcomes["killed"] += not complete
        writing = (self.place.store / "tribal-mcp" / "writing.json").exists()
        self.outcomes["killed during a write"] += writing
        while chance.random() < 0.3:
            recovering = start(find, self.place)
            time.sleep(chance.uniform(0, 0.15))
            self.outcomes["recovery killed"] += recovering.process.is_alive()
            recovering.kill()
            recovering.close()
        count = self._bundled()
        first, again, last = ask(find_and_repeat, self.place)
        wrong = self._compared(first, [self.after] if complete else [self.before, self.after])
        wrong += self._halves(first, self._acknowledged(reports))
        if count not in (self.old_count, self.new_count):
            wrong.append(f"the bundle has {count} memories")
        if again.error:
            wrong.append(f"not repeatable: {again.message}")
        wrong += [f"repeated: {problem}" for problem in self._compared(last, [self.after])]
        if self._bundled() != self.new_count:
            wrong.append(f"repeated: the bundle has {self._bundled()} memories")
        return wrong

    def _acknowledged(self, reports: list[tuple[str, str]]) -> int:
        """How many memories of `order` were acknowledged before the kill."""
        pattern = _DONE.get(self.place.name)
        messages = [message for kind, message in reports if kind == "progress" and pattern]
        found = [match for message in messages if pattern and (match := pattern.match(message))]
        return max((int(match[1]) for match in found), default=0)

    def _compared(self, found: Found, expected: list[power.Held]) -> list[str]:
        damaged = self.place.name == "check" and self.before in expected
        wrong = [] if damaged else list(found.problems)
        wrong += power.differences("memory", found.held.memories, [e.memories for e in expected])
        wrong += power.differences(
            "tombstone", found.held.tombstones, [e.tombstones for e in expected]
        )
        return wrong + [f"point {p} lost" for p in self.before.points if p not in found.held.points]

    def _halves(self, found: Found, acknowledged: int) -> list[str]:
        """Batches that are only partly done, and acknowledged ones that are not there."""
        wrong: list[str] = []
        for begin in range(0, len(self.order), self.batch):
            ids = self.order[begin : begin + self.batch]
            now, old, new = (
                {i: held.memories.get(i) for i in ids}
                for held in (found.held, self.before, self.after)
            )
            if now not in (old, new):
                wrong.append(f"the batch from {begin} is half")
            elif now != new and begin + len(ids) <= acknowledged:
                wrong.append(f"the batch from {begin} was acknowledged")
        return wrong


def _size(path: Path) -> int:
    return path.stat().st_size


def test_a_killed_call_loses_nothing_and_can_be_repeated(place: Place, tmp_path: Path) -> None:
    kills = times(2, 300)
    chance = random.Random(3)  # noqa: S311
    campaign = Campaign(place, tmp_path / "before")
    for trial in range(kills):
        wrong = campaign.kill(chance)
        assert not wrong, f"trial {trial}: {'; '.join(wrong[:10])}"
    report(f"{place.name}: {kills} calls: {dict(campaign.outcomes)}")
