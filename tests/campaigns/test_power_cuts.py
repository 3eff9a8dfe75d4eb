"""The power may fail at any moment: what was acknowledged is there, and no vector is another's.

The system calls of a program are logged, and turned into states that a disk may legally hold after
a cut. Each is opened as after a reboot.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.campaigns import disk, power, trace
from tests.campaigns.processes import FULL, PROTECTIONS, ask, report, times

MEMORY = Path("/dev/shm")  # noqa: S108 - the names in it are random
_INDEX = ("data_level0.bin", "index_metadata.pickle")

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
]


@dataclass(frozen=True, slots=True)
class Run:
    """A program that ran: its operations, and what the store held after each step."""

    trace: trace.Trace
    held: list[power.Held]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Which power cuts to make.

    Attributes:
        count: how many.
        seed: of the choices.
        rules: of the disk.
        whole: whether each step is done whole or not at all.
    """

    count: int
    seed: int
    rules: disk.Rules
    whole: bool


def run(program: str, place: Path, prepare: Callable[[Path], None]) -> Run:
    """Log a program, and check that replaying the log gives the folder byte for byte."""
    store, before, out = place / "store", place / "before", place / "out"
    prepare(store)
    shutil.copytree(store, before)
    out.mkdir()
    subprocess.run(
        [
            *(*trace.COMMAND, "-o", place / "log"),
            *(sys.executable, "-m", "tests.campaigns.power", program, store, out),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "TRIBAL_CAMPAIGN_WITHOUT": " ".join(PROTECTIONS)},
    )
    found = trace.read(place / "log", store, before)
    (place / "log").unlink()
    replayed = disk.cut(found, len(found.operations), "ext4", "everything", random.Random(0))  # noqa: S311
    real = {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }
    assert replayed.files == real
    count = max(int(path.name) for path in out.iterdir() if path.name.isdigit())
    held = [power.Held(**json.loads((out / str(n)).read_text())) for n in range(count + 1)]
    return Run(found, held)


def judged(
    _report: object,
    found: Run,
    place: Path,
    cuts: Cuts,
) -> tuple[Counter[str], list[str]]:
    """Cut the power some times: how often what came of it, and the problems."""
    from tribal_mcp.stores.chroma import lock  # noqa: PLC0415 - in the child only

    lock.boot_id = lambda: "after the cut"
    chance = random.Random(cuts.seed)  # noqa: S311
    outcomes: Counter[str] = Counter()
    examples: list[str] = []
    for number in range(cuts.count):
        at = _moment(found.trace, chance)
        fate = chance.choice(disk.FATES)
        state = disk.cut(found.trace, at, cuts.rules, fate, chance)
        done = sum(mark != "end" for mark in state.marks) - 1
        expected = found.held[done : done + (1 if "end" in state.marks else 2)]
        folder = place / f"{cuts.rules}-{cuts.seed}-{number}"
        state.put(folder)
        wrong = anyio.run(lambda f, e: power.problems(f, e, whole=cuts.whole), folder, expected)
        outcomes[wrong[0].partition(":")[0].partition(" ")[0] if wrong else "sound"] += 1
        if wrong:
            examples.append(f"{cuts.rules}, {fate}, before operation {at}: {'; '.join(wrong[:3])}")
        shutil.rmtree(folder)
    return outcomes, examples


def _moment(traced: trace.Trace, chance: random.Random) -> int:
    """Where to cut: anywhere, while an index has unsynced writes, or just before its sync."""
    operations = traced.operations
    first = next(n for n, o in enumerate(operations) if o.kind == "mark") + 1
    indexes = {o.file for o in operations if o.kind == "create" and o.path.endswith(_INDEX)}
    indexes |= {file for path, file in traced.names.items() if path.endswith(_INDEX)}
    dirty: set[int] = set()
    moments: list[int] = []
    before_syncs: list[int] = []
    for number, operation in enumerate(operations):
        if operation.file in indexes:
            if operation.kind == "sync" and number >= first:
                before_syncs.append(number)
            (dirty.discard if operation.kind == "sync" else dirty.add)(operation.file)
        if dirty and number >= first:
            moments.append(number + 1)
    if before_syncs and chance.random() < 1 / 4:
        return chance.choice(before_syncs)
    if moments and chance.random() < 2 / 3:
        return chance.choice(moments)
    return chance.randint(first, len(operations))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where a sync costs nothing, if there is one."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("program", power.PROGRAMS if FULL else ["import and undo", "repair"])
def test_a_power_cut_loses_nothing_that_was_acknowledged(program: str, place: Path) -> None:
    found = run(program, place, lambda store: ask(power.prepared, store, program))
    outcomes: Counter[str] = Counter()
    examples: list[str] = []
    for seed, rules in enumerate(disk.RULES):
        cuts = Cuts(times(3, 75), seed, rules, power.PROGRAMS[program].atomic)
        some, those = ask(judged, found, place, cuts, timeout_s=3000)
        outcomes += some
        examples += those
    report(f"{program}: {outcomes.total()} power cuts: {dict(outcomes)}")
    assert not examples, "\n".join(examples[:20])


ACTIONS = st.builds(
    power.Action,
    st.sampled_from(["upsert", "replace", "strip", "delete", "import", "undo"]),
    st.integers(0, 160),
    st.integers(1, 70),
)


@settings(
    max_examples=times(1, 12),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
)
@given(actions=st.lists(ACTIONS, min_size=3, max_size=8), seed=st.integers(0, 2**16))
def test_a_power_cut_of_any_program_loses_nothing(actions: list[power.Action], seed: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        place = Path(name)
        program = json.dumps(actions)
        found = run(program, place, lambda store: ask(power.prepared, store, program))
        for rules in disk.RULES:
            cuts = Cuts(times(3, 8), seed, rules, whole=False)
            _, examples = ask(judged, found, place, cuts, timeout_s=3000)
            assert not examples, "\n".join(examples[:20])
