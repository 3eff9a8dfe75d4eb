"""Two stores that exchange bundles in any order, compared with plain dictionaries.

Hypothesis generates the steps: memories are written and deleted, exported in full or since a time,
imported under every strategy, stopped between batches, repeated and undone. The dictionaries know
nothing of the implementation. 50 runs by default, 5,000 in a full campaign.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.campaigns.processes import times
from tests.support.examples import BEGIN, vector
from tribal_mcp.errors import ImportConflict, Stopped
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.context import Watch
from tribal_mcp.services.import_export import export_memories
from tribal_mcp.services.importing import importer as importing
from tribal_mcp.services.importing.importer import Options, import_entries
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results.bundles import ImportSummary
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

MODEL = create_embedding_metadata("all-MiniLM-L6-v2", 8, "onnx")
SKIP, OVERWRITE, MERGE, KEEP_BOTH, FAIL, _MIRROR = ConflictResolution
T = TypeVar("T")
Held = dict[str, MemoryEntry]
Tombstones = dict[str, int]
State = tuple[Held, Tombstones]

IDS = [f"memory-{n}" for n in range(5)]
which = st.sampled_from(["one", "two"])


@st.composite
def entries(draw: st.DrawFn, count: int = 5) -> list[MemoryEntry]:
    """Versions of few memories, so that two stores often have the same one."""
    made: list[MemoryEntry] = []
    for memory_id in draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=count, unique=True)):
        seed = draw(st.sampled_from([None, 1, 2]))
        made.append(
            MemoryEntry(
                id=memory_id,
                content=draw(st.sampled_from(["tea", "coffee"])),
                created_at=BEGIN,
                updated_at=BEGIN + timedelta(days=draw(st.integers(0, 2))),
                embedding=None if seed is None else vector(seed),
                supersedes=draw(st.sampled_from([None, None, *IDS[:2]])),
            )
        )
    return made


def same(one: MemoryEntry, two: MemoryEntry) -> bool:
    """Whether they differ only in their vectors, or not at all."""
    return dump_entry(_bare(one)) == dump_entry(_bare(two))


def _bare(entry: MemoryEntry) -> MemoryEntry:
    return MemoryEntry(
        id=entry.id, content=entry.content, created_at=entry.created_at,
        updated_at=entry.updated_at, supersedes=entry.supersedes,
    )  # fmt: skip


def expected(  # noqa: C901 - a line a rule
    state: State, bundle: PortableBundle, strategy: ConflictResolution, restore: bool
) -> State:
    """The result of an import by the rules of the guide; not for KEEP_BOTH."""
    held, tombstones = dict(state[0]), dict(state[1])
    for tombstone in bundle.deleted:
        i, moment = tombstone.id, tombstone.deleted_at_us
        if i not in held:
            tombstones[i] = max(moment, tombstones.get(i, moment))
        elif strategy is OVERWRITE or (
            strategy is MERGE and moment >= microseconds(held[i].updated_at)
        ):
            del held[i]
            tombstones[i] = moment
    for entry in bundle.entries:
        i = entry.id
        if i in tombstones and not restore and microseconds(entry.updated_at) <= tombstones[i]:
            continue
        here = held.get(i)
        if here is None:
            held[i] = entry
            tombstones.pop(i, None)
        elif strategy is OVERWRITE:
            if dump_entry(here) != dump_entry(entry):
                held[i] = entry
        elif strategy is MERGE:
            newer = entry.updated_at > here.updated_at
            if newer or (same(here, entry) and here.embedding is None):
                held[i] = entry
        elif strategy is FAIL and same(here, entry) and here.embedding is None:
            held[i] = entry
    return held, tombstones


class TwoStores(RuleBasedStateMachine):
    """The stores `one` and `two`, and a mirror that only gets the changes of `one`."""

    exported: Bundle[PortableBundle] = Bundle("exported")

    def open(self, name: str) -> MemoryStore:
        """A store for this run."""
        return InMemoryStore(self.folder / name / "own")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()  # a Runner installs a signal handler for each call
        self.store = {name: self.open(name) for name in ("one", "two", "mirror")}
        self.model: dict[str, State] = {"one": ({}, {}), "two": ({}, {})}
        self.mirrored = datetime(2000, 1, 1, tzinfo=UTC)

    def teardown(self) -> None:
        """Close and remove the stores of this run."""
        for store in self.store.values():
            self.run(store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, work: Awaitable[T]) -> T:
        """The result of a call."""

        async def waiting() -> T:
            return await work

        return self.loop.run_until_complete(waiting())

    @initialize(one=entries(), two=entries())
    def begin(self, one: list[MemoryEntry], two: list[MemoryEntry]) -> None:
        """All embed with one model, so that vectors are kept, and two have some memories."""
        for store in self.store.values():
            self.run(store.set_identity(MODEL))
        self.write("one", one)
        self.write("two", two)

    def state_of(self, name: str) -> State:
        """The contents of a store."""
        store = self.store[name]
        held = self.run(store.get_many(self.run(store.list_ids())))
        return held, self.run(store.forgotten())

    @invariant()
    def stores_are_as_their_models(self) -> None:
        """After each step the stores hold what the dictionaries say, to the byte."""
        for name, (held, tombstones) in self.model.items():
            found, forgotten = self.state_of(name)
            assert {i: dump_entry(e) for i, e in found.items()} == {
                i: dump_entry(e) for i, e in held.items()
            }
            assert forgotten == tombstones

    @rule(name=which, written=entries(3))
    def write(self, name: str, written: list[MemoryEntry]) -> None:
        """Write some memories."""
        self.run(self.store[name].upsert(written))
        held, tombstones = self.model[name]
        for entry in written:
            held[entry.id] = entry
            tombstones.pop(entry.id, None)

    @rule(name=which, ids=st.sets(st.sampled_from(IDS), min_size=1, max_size=2))
    def forget(self, name: str, ids: set[str]) -> None:
        """Delete some memories, some of which may not exist."""
        held, tombstones = self.model[name]
        assert self.run(self.store[name].delete(ids)) == len(ids & held.keys())
        forgotten = self.run(self.store[name].forgotten())
        for i in ids & held.keys():
            del held[i]
            tombstones[i] = forgotten[i]

    @rule(target=exported, name=which)
    def export(self, name: str) -> Any:  # noqa: ANN401 - as Hypothesis has it
        """Export everything, and convert the bundle to its file format and back."""
        bundle = PortableBundle.from_dict(self.run(export_memories(self.store[name])).to_dict())
        held, tombstones = self.model[name]
        assert {e.id for e in bundle.entries} == held.keys()
        assert {t.id: t.deleted_at_us for t in bundle.deleted} == tombstones
        return bundle

    @rule(target=exported, name=which, earlier=exported)
    def export_since(self, name: str, earlier: PortableBundle) -> Any:  # noqa: ANN401
        """Export the changes since an earlier bundle, if that is a full one."""
        if earlier.manifest.extra.get("since"):
            return multiple()
        changes = self.run(export_memories(self.store[name], since=earlier))
        held, _ = self.model[name]
        before = {e.id: dump_entry(e) for e in earlier.entries}
        assert {e.id for e in changes.entries} == {
            i for i, e in held.items() if before.get(i) != dump_entry(e)
        }
        return changes

    @rule(
        name=which,
        bundle=exported,
        strategy=st.sampled_from([SKIP, OVERWRITE, MERGE, FAIL, KEEP_BOTH]),
        restore=st.booleans(),
        stops_after=st.none() | st.integers(1, 3),
        back=st.booleans(),
    )
    def import_bundle(  # noqa: PLR0917 - as drawn
        self,
        name: str,
        bundle: PortableBundle,
        strategy: ConflictResolution,
        restore: bool,
        stops_after: int | None,
        back: bool,
    ) -> None:
        """Import a bundle: a dry run, perhaps stopped, for real, again; and perhaps undo it."""
        before = self.model[name]
        marks = self.files()
        try:
            dry = self.import_into(name, bundle, strategy, restore, dry_run=True)
        except ImportConflict:
            self.refused(name, bundle)
            return
        assert self.files() == marks
        self.stores_are_as_their_models()
        if stops_after:
            self.stopped(name, bundle, strategy, restore, stops_after)
        real = self.import_into(name, bundle, strategy, restore)
        if not stops_after:
            only = {"dry_run", "duration_ms", "restore_point", "changes"}
            assert dry.model_dump(exclude=only) == real.model_dump(exclude=only)
        buckets = (real.imported, real.skipped, real.overwritten, real.errors)
        assert sum(buckets) == real.total == len(bundle.entries)
        if strategy is KEEP_BOTH:
            self.both_are_there(name, before, bundle)
        else:
            self.model[name] = expected(before, bundle, strategy, restore)
        self.stores_are_as_their_models()
        again = self.import_into(name, bundle, strategy, restore)
        assert (again.imported, again.overwritten, again.deleted) == (0, 0, 0)
        assert again.restore_point == ""
        if back and real.restore_point:
            self.run(undo(self.store[name], real.restore_point))
            self.model[name] = before

    def import_into(
        self,
        name: str,
        bundle: PortableBundle,
        strategy: ConflictResolution,
        restore: bool,
        *,
        dry_run: bool = False,
        stops_after: int = 0,
    ) -> ImportSummary:
        """An import whose restore point has the hash of the bundle."""
        store, batches = self.store[name], 0

        def stop() -> bool:
            nonlocal batches
            batches += 1
            return batches == stops_after

        points = RestorePoints.of(store)
        assert points is not None
        point = points.begin(
            "import",
            "some.json",
            str(id(bundle)),
            f"{strategy} {restore}",
            model=self.run(store.identity()),
        )
        return self.run(
            import_entries(
                EntrySource.in_memory(bundle), store, None,
                Options(strategy, dry_run=dry_run, restore_deleted=restore),
                watch=Watch(stop=stop),
                point=None if dry_run else point,
            )
        )  # fmt: skip

    def stopped(
        self,
        name: str,
        bundle: PortableBundle,
        strategy: ConflictResolution,
        restore: bool,
        after: int,
    ) -> None:
        """The same import, stopped after a batch or two."""
        with suppress(Stopped):
            self.import_into(name, bundle, strategy, restore, stops_after=after)

    def refused(self, name: str, bundle: PortableBundle) -> None:
        """An import with FAIL met a difference."""
        held, _ = self.model[name]
        differing = [e for e in bundle.entries if e.id in held and not same(held[e.id], e)]
        assert differing or {t.id for t in bundle.deleted} & held.keys()
        self.stores_are_as_their_models()

    def both_are_there(self, name: str, before: State, bundle: PortableBundle) -> None:
        """The stored memories are unchanged, and the different ones are there, too."""
        held, tombstones = self.state_of(name)
        for i, entry in before[0].items():
            assert same(held[i], entry)
        incoming = {e.content for e in bundle.entries if e.id in before[0]}
        assert incoming <= {e.content for e in held.values()}
        assert tombstones.keys() <= before[1].keys() | {t.id for t in bundle.deleted}
        self.model[name] = held, tombstones

    def files(self) -> dict[str, bytes]:
        """No files exist except restore points."""
        return {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    @rule()
    def mirror(self) -> None:
        """Bring the mirror up to date with the changes since the last time."""
        if self.erased():
            return
        bundle = self.run(export_memories(self.store["one"], since=self.mirrored))
        self.mirrored = datetime.fromisoformat(bundle.manifest.exported_at)
        self.import_into("mirror", bundle, OVERWRITE, restore=True)
        held, tombstones = self.state_of("mirror")
        assert {i: dump_entry(e) for i, e in held.items()} == {
            i: dump_entry(e) for i, e in self.model["one"][0].items()
        }
        assert tombstones == self.model["one"][1]

    def erased(self) -> bool:
        """Whether an undo has removed memories or tombstones from `one` without a tombstone."""
        mirror, forgotten = self.state_of("mirror")
        held, tombstones = self.model["one"]
        return not mirror.keys() | forgotten.keys() <= held.keys() | tombstones.keys() or any(
            tombstones[i] < forgotten[i] for i in tombstones.keys() & forgotten.keys()
        )


class TwoFolders(TwoStores):
    """The same test on Chroma folders."""

    def open(self, name: str) -> MemoryStore:
        """A store for this run."""
        return open_store(self.folder / name)

    def files(self) -> dict[str, bytes]:
        """Every file of the folders except the lock."""
        return {
            str(path): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in {"lock", "next"}
        }


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("machine", "runs"), [(TwoStores, times(50, 5000)), (TwoFolders, times(3, 100))]
)
def test_two_stores_that_exchange_bundles_follow_the_rules(
    machine: type[TwoStores], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "STEP", 2)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.generate],  # shrinking a failure takes minutes
            derandomize=runs < 1000,
            suppress_health_check=list(HealthCheck),
        ),
    )
