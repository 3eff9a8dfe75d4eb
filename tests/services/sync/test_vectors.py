"""The vectors with which versions are published, the order of these, and the progress."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.sync.machines import in_step, machines
from tests.support.examples import memories, memory, vector
from tribal_mcp.files.replica_folders import SharedFolder
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.replication.reconcile import Known, Maker, reconcile
from tribal_mcp.portability.replication.records import (
    Record,
    dump_record,
    read_record,
    with_vector_of,
)
from tribal_mcp.portability.replication.versions import Stamp, Version, digest_of, fields_of
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.sync import exchange
from tribal_mcp.services.sync.state import SyncState, Unpublished
from tribal_mcp.services.sync.sync import sync
from tribal_mcp.services.sync.vectors import Vectors
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.in_memory import InMemoryStore

MODEL, OTHER = (EmbeddingMetadata(name, 8, "test") for name in ("one", "other"))
MAKER = Maker("0123456789abcdef", lambda: 1)


def version_of(entry: MemoryEntry) -> Unpublished:
    """The first version of a memory, which the store holds."""
    outcome = reconcile(Known(), fields_of(entry_fields(entry)), (), MAKER)
    assert outcome.new
    line = dump_record(Record(entry.id, outcome.new))
    return Unpublished(entry.id, str(outcome.new.stamp), line, outcome.new.stamp.digest)


async def published(vectors: Vectors, entry: MemoryEntry) -> MemoryEntry:
    """The memory as it is published, with its vector."""
    [line] = await vectors.added([version_of(entry)], 1 << 20, None)
    return with_vector_of(entry, read_record(line, DEFAULT_LIMITS))


@pytest.mark.parametrize("knows_changes", [True, False], ids=["folder", "in memory"])
async def test_a_vector_is_published_only_with_the_text_it_was_made_of(
    tmp_path: Path,
    knows_changes: bool,
) -> None:
    store = ChromaStore(tmp_path) if knows_changes else InMemoryStore()
    plain, without = memory(1), memory(2, embedding=None)
    foreign = memory(3, extra={"embedding_model": "another"})
    await store.upsert([plain, without, foreign])
    mark = (await store.changes(""))[0] if isinstance(store, ChromaStore) else ""
    vectors = Vectors(store, mark)
    for entry in (plain, without, foreign):
        assert await published(vectors, entry) == entry
    again = memory(1, embedding=vector(7))
    await store.upsert([memory(3, content="edited", embedding=vector(8)), again])
    assert await published(vectors, again) == again
    assert (await published(vectors, foreign)).embedding is None
    await store.delete([plain.id])
    assert (await published(vectors, plain)).embedding is None
    await store.close()


async def test_of_several_versions_each_has_the_vector_of_its_own_text(tmp_path: Path) -> None:
    async with ChromaStore(tmp_path) as store:
        entry, other = memory(1), memory(1, content="other", tags=["other"])
        await store.upsert([entry])
        vectors = Vectors(store, (await store.changes(""))[0])
        rows = [version_of(entry), version_of(other)._replace(shown=version_of(entry).shown)]
        lines = await vectors.added(rows, 1 << 20, None)
        found = [read_record(line, DEFAULT_LIMITS).vector is not None for line in lines]
        assert found == [True, False]


class ModelChanges(InMemoryStore):
    """A store whose model another program changes whenever something is written."""

    async def apply(self, change: Change) -> None:
        await super().apply(change)
        await self.set_identity(OTHER)


async def test_vectors_of_two_models_are_not_mixed_if_a_model_changes_during_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STEP", 1)
    one, two = machines(tmp_path)
    two.store = ModelChanges(tmp_path / "changes")
    for machine in (one, two):
        await machine.store.set_identity(MODEL)
    await one.store.upsert(memories(3))
    await one.sync()
    assert (await two.sync()).without_vector == 2
    row = version_of(memory(1))
    assert await Vectors(one.store, "").added([row], 1 << 20, OTHER) == [row.line]
    assert await Vectors(one.store, "").added([row], 1 << 20, MODEL) != [row.line]


async def test_all_memories_arrive_if_they_take_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BATCH", 2)
    monkeypatch.setattr(exchange, "PER_FILE", 3)
    one, two = machines(tmp_path)
    for number in range(8):
        await one.put(number, metadata={"n": 2**63 if number in {2, 3} else number})
    result = await one.sync()
    assert (result.published, result.files_written, len(result.problems)) == (6, 2, 2)
    assert (await two.sync()).added == 6
    await one.put(2)
    await one.put(3)
    await in_step(one, two)
    assert len(await two.texts()) == 8


def test_versions_of_one_memory_are_listed_one_by_one(tmp_path: Path) -> None:
    state = SyncState(tmp_path / "state.db")
    fields = [fields_of(entry_fields(memory(1, content=text))) for text in ("one", "two")]
    heads = tuple(Version(Stamp(n, "a", digest_of(f)), f) for n, f in enumerate(fields))
    lines = {head.stamp: (dump_record(Record("memory-1", head)), "") for head in heads}
    state.save({"memory-1": (Known(heads), lines)})
    last, found = ("", ""), []
    while rows := state.unpublished(last, 1):
        found += [row.stamp for row in rows]
        last = rows[-1].id, rows[-1].stamp
    assert found == [str(head.stamp) for head in heads]
    state.close()


async def test_the_progress_says_how_much_was_recorded_published_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STEP", 1)
    said: list[tuple[float, str]] = []
    one, two = machines(tmp_path)
    await one.store.upsert(memories(2))
    for machine in (one, two):
        told = replace(machine.context(), progress=lambda *how: said.append(how))
        request, folder = SyncRequest(name=machine.home.name), SharedFolder(machine.shared)
        await sync(told, request, folder, machine.store)
    assert (80, "Recorded 2 of 2 memories") in said
    assert (80, "Published 0 of 2") in said
    texts = [text for _, text in said if text.startswith("Reading")]
    assert texts[1:] == [f"Reading file 1 of 1: {what}" for what in ("1 memory", "2 memories")]
