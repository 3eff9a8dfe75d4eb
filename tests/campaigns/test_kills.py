"""A writer is killed at any moment: nothing acknowledged is lost, and no batch is half written."""

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.campaigns import work
from tests.campaigns.processes import ask, kill_at_random, report, start, times
from tests.support.examples import memory
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry

pytestmark = pytest.mark.campaign

BATCH = 25
ENTRIES = 150
SYNC_THRESHOLD = 20


def _before() -> list[MemoryEntry]:
    """Return what the store has before: every third memory, every ninth without a vector."""
    return [
        memory(n, work.DIMENSIONS, **({"embedding": None} if n % 9 == 0 else {}), content="before")
        for n in range(0, ENTRIES, 3)
    ]


def _incoming() -> list[MemoryEntry]:
    """Return the memories in the order of their bundle: those without a vector come last."""
    entries = [
        memory(n, work.DIMENSIONS, **({"embedding": None} if n % 10 == 0 else {}))
        for n in range(ENTRIES)
    ]
    return sorted(entries, key=lambda entry: entry.embedding is None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a store to import into and a bundle."""
    place = tmp_path_factory.mktemp("prepared")
    ask(work.make_collection, place / "store", SYNC_THRESHOLD)
    ask(work.store_entries, place / "store", _before())
    ask(work.store_entries, place / "source", _incoming())
    ask(work.export_bundle, place / "source", place / "bundle.json")
    return place


def test_a_killed_import_loses_nothing_and_can_be_run_again(prepared: Path, tmp_path: Path) -> None:
    kills = times(5, 300)
    chance = random.Random(1)  # noqa: S311
    before = {e.id: e for e in _before()}
    arriving = {e.id: e for e in _incoming()}
    batches = [_incoming()[s : s + BATCH] for s in range(0, ENTRIES, BATCH)]
    uninterrupted = tmp_path / "uninterrupted"
    shutil.copytree(prepared / "store", uninterrupted)
    begin = time.monotonic()
    ask(work.import_bundle, uninterrupted, prepared / "bundle.json", BATCH, "overwrite")
    whole_s = time.monotonic() - begin
    expected, _ = ask(work.read_all, uninterrupted)
    assert expected == arriving
    found = {"killed": 0, "recovered": 0, "index rebuilt": 0, "recovery killed": 0}
    for trial in range(kills):
        folder = tmp_path / f"store-{trial}"
        shutil.copytree(prepared / "store", folder)
        (index,) = {p.parent for p in folder.glob("*/data_level0.bin")} - {_pending(folder)}
        victim = start(work.import_bundle, folder, prepared / "bundle.json", BATCH, "overwrite")
        kill_at_random(victim, chance, whole_s, index)
        reports = victim.reports()
        victim.close()
        found["killed"] += not any(kind == "done" for kind, _ in reports)
        done = max((_entries_done(m) for kind, m in reports if kind == "progress"), default=0)
        while chance.random() < 0.3:
            recovering = start(work.read_all, folder)
            time.sleep(chance.uniform(0, 0.15))
            found["recovery killed"] += recovering.process.is_alive()
            recovering.kill()
            recovering.close()
        now, notes, damage = ask(work.audit, folder)
        found["recovered"] += bool(notes)
        found["index rebuilt"] += any("was rebuilt" in note for note in notes)
        for n, batch in enumerate(batches):
            new = {e.id: now.get(e.id) for e in batch} == {e.id: arriving[e.id] for e in batch}
            old = all(now.get(e.id) == before.get(e.id) for e in batch)
            assert new or old, f"trial {trial}: batch {n} is half, or damaged; {notes}"
            assert new or done < (n + 1) * BATCH, f"trial {trial}: batch {n} was acknowledged"
        assert damage == []
        ask(work.import_bundle, folder, prepared / "bundle.json", BATCH, "overwrite")
        now, _, damage = ask(work.audit, folder)
        assert now == expected, f"trial {trial}"
        assert damage == []
        assert not (folder / "tribal-mcp" / "rebuild").exists()
        shutil.rmtree(folder)
    report(f"{kills} kills of an import: {found}")


def _pending(folder: Path) -> Path:
    from tribal_mcp.stores.chroma.files.reader import ChromaFiles  # noqa: PLC0415

    with ChromaFiles(folder) as files:
        raw = files.collection("memories.pending")
        assert raw is not None
        return folder / files.vector_segment(raw)[0]


def _entries_done(message: str) -> int:
    words = message.split()
    return int(words[1].replace(",", "")) if words[0] == "Imported" else 0


def test_a_killed_export_leaves_no_half_bundle(prepared: Path, tmp_path: Path) -> None:
    kills = times(5, 300)
    chance = random.Random(2)  # noqa: S311
    bundle = tmp_path / "bundle.json.gz"
    begin = time.monotonic()
    ask(work.export_bundle, prepared / "source", bundle)
    whole_s = time.monotonic() - begin
    killed = 0
    for trial in range(kills):
        if trial % 2:
            bundle.unlink(missing_ok=True)
        victim = start(work.export_bundle, prepared / "source", bundle)
        time.sleep(chance.uniform(0, whole_s))
        victim.kill()
        killed += not any(kind == "done" for kind, _ in victim.reports())
        victim.close()
        if bundle.exists():
            with bundle.open("rb") as file:
                assert BundleReader(file, Limits()).verify().count == ENTRIES
    report(f"{kills} exports, {killed} killed in the middle: no half bundle")
