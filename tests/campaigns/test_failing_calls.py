"""Any system call on the store or a bundle may fail: the user gets words, and nothing is lost.

Each run makes one call fail, of all on the files of the data folder and the bundle folder. Then the
store holds all that was acknowledged, and the same call again gives the right result.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns import power
from tests.campaigns.failing_calls import ERRORS, Call, Supervisor, unavailable
from tests.campaigns.processes import FULL, ask, report
from tests.campaigns.use_cases import (
    OPERATIONS,
    Answer,
    Found,
    Place,
    call_and_fail,
    find,
    find_and_repeat,
)
from tests.campaigns.work import DIMENSIONS
from tests.support.embedding_server import embedding_server
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.limits import Limits

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable()),
]
_SHORT = 3
"""Runs of each operation in a short campaign."""


@pytest.fixture(params=OPERATIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    name, arguments = OPERATIONS[request.param]
    with embedding_server() as server:
        yield Place.new(tmp_path / "here", name, arguments, **server.settings(DIMENSIONS))


class Campaign:
    """Runs of one operation, each from the same folder."""

    def __init__(self, place: Place, before: Path) -> None:
        self.place, self._before = place, before
        shutil.copytree(place.folder, before)
        self.before = ask(find, place).held
        answer, self.calls = self.run(0, 0)
        assert not answer.error, answer
        self.after = ask(find, place).held
        self.outcomes: Counter[str] = Counter()
        self.examples: list[str] = []

    def run(self, number: int, choice: int) -> tuple[Answer, list[Call]]:
        """Run it with the call of that number failing; 0: none."""

        def fails(count: int, made: Call) -> int:
            errors = ERRORS[made.kind]
            return errors[choice % len(errors)] if count == number else 0

        shutil.rmtree(self.place.folder)
        shutil.copytree(self._before, self.place.folder)
        address = self.place.folder.parent / "socket"
        with Supervisor(self.place.folder, fails, address) as supervisor:
            try:
                answer = ask(call_and_fail, self.place, supervisor.address, timeout_s=60)
            except (AssertionError, TimeoutError) as problem:
                answer = Answer(error="", message=str(problem)[-1500:] or "it hung")
                supervisor.calls[number:] = []
                return answer, supervisor.calls
        return answer, supervisor.calls

    def judge(self, number: int, choice: int) -> None:
        """Run it, and note what is wrong."""
        answer, calls = self.run(number, choice)
        if len(calls) < number:
            self.outcomes["not reached"] += 1
            return
        made = calls[number - 1]
        error = os.strerror(ERRORS[made.kind][choice % len(ERRORS[made.kind])])
        failed = f"call {number} ({made.kind} {made.path}: {error}): {answer.message}"
        if answer.message and not answer.error:
            self._note("no words", failed, [])
            return
        try:
            first, again, last = ask(find_and_repeat, self.place, timeout_s=60)
        except (AssertionError, TimeoutError) as problem:
            self._note("unusable afterwards", failed, [str(problem)[-1500:] or "it hung"])
            return
        self.outcomes["in words" if answer.error else "right result"] += 1
        expected = [self.before, self.after] if answer.error else [self.after]
        wrong = self._wrong(first, expected)
        if wrong:
            self._note("lost or half", failed, wrong)
        elif again.error:
            self._note("not repeatable", failed, [again.message])
        elif wrong := self._wrong(last, [self.after]):
            self._note("wrong when repeated", failed, wrong)
        blame = answer.message.replace("is not damaged", "")
        if "damaged" in blame or "malformed" in blame:
            self._note("called damage", failed, [answer.error])

    def _wrong(self, found: Found, expected: list[power.Held]) -> list[str]:
        repairing = self.place.name == "check" and self.before in expected
        wrong = [] if repairing else list(found.problems)
        wrong += power.differences("memory", found.held.memories, [e.memories for e in expected])
        wrong += power.differences(
            "tombstone", found.held.tombstones, [e.tombstones for e in expected]
        )
        wrong += [f"point {p} lost" for p in self.before.points if p not in found.held.points]
        with self.place.bundle.open("rb") as file:
            reader = BundleReader(file, Limits())
            reader.verify()
            count = reader.manifest.memory_count
        if self.place.name == "export" and expected == [self.after] and count != 99:
            wrong.append(f"the bundle has {count} memories")
        return wrong

    def _note(self, outcome: str, failed: str, problems: list[str]) -> None:
        self.outcomes[outcome] += 1
        self.examples.append(f"{outcome}: {failed}: {'; '.join(problems[:3])}")


def test_a_failed_system_call_ends_in_words_and_loses_nothing(place: Place, tmp_path: Path) -> None:
    campaign = Campaign(place, tmp_path / "before")
    count = len(campaign.calls)
    if FULL:
        runs = [(n, choice) for n in range(1, count + 1) for choice in range(2)]
    else:
        runs = [(1 + (2 * k + 1) * count // (2 * _SHORT), k) for k in range(_SHORT)]
    for number, choice in runs:
        campaign.judge(number, choice)
    report(f"{place.name}: {len(runs)} of {count} calls failed: {dict(campaign.outcomes)}")
    assert not campaign.examples, "\n".join(campaign.examples[:20])
