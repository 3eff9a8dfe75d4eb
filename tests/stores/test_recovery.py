"""A folder whose writer was killed is recovered before it is used, and the user is informed."""

import json
import shutil
from pathlib import Path

import anyio.to_thread
import numpy as np
import pytest

from tests.support.chroma_folders import add, chroma, create, index_of, vectors
from tests.support.examples import memories, memory
from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch, Journal
from tribal_mcp.stores.chroma.lock import FolderLock
from tribal_mcp.stores.chroma.store import ChromaStore, open_store
from tribal_mcp.stores.record import OURS

pytestmark = pytest.mark.anyio

COUNT = 55


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A store of 55 memories, 40 of them in the index files and the rest in the log."""
    path = tmp_path / "store"
    path.mkdir()
    with chroma(path) as client:
        settings = {"hnsw": {"space": "l2", "sync_threshold": 20}}
        client.create_collection(
            "memories",
            embedding_function=None,
            configuration=settings,  # type: ignore[arg-type]
            metadata={OURS: 1},
        )
    async with ChromaStore(path) as store:
        for start in range(0, COUNT, 5):
            await store.upsert(memories(COUNT)[start : start + 5])
    return path


def leave_marker(folder: Path) -> None:
    """Leave a stale writer marker, as a killed writer does."""
    FolderLock(folder).set_marker()


def segment(folder: Path) -> Path:
    (found,) = (path.parent for path in folder.glob(f"*/{LABELS}"))
    return found


def tear(folder: Path, keep: int) -> None:
    """Truncate the labels, as a kill does while they are written."""
    labels = segment(folder) / LABELS
    labels.write_bytes(labels.read_bytes()[:keep])


def damage_first_labels(folder: Path) -> None:
    """Leave half of the first labels of an index."""
    for path in folder.glob("*/header.bin"):
        (path.parent / LABELS).write_bytes(b"half")


async def everything(folder: Path) -> tuple[dict[str, MemoryEntry], list[str]]:
    async with ChromaStore(folder) as store:
        found = await store.get_many(await store.list_ids())
        return found, (await store.state()).notes


def by_id(entries: list[MemoryEntry]) -> dict[str, MemoryEntry]:
    return {entry.id: entry for entry in entries}


ALMOST = COUNT - 2
"""How many a search finds at least: Chroma's is approximate, and in a small index may miss one."""


def found_by_vector(folder: Path) -> int:
    with chroma(folder) as client:
        collection = client.get_collection("memories", embedding_function=None)
        vectors = [entry.embedding for entry in memories(COUNT)]
        nearest = collection.query(query_embeddings=vectors, n_results=1)["ids"]  # type: ignore[arg-type]
    return sum(ids == [f"memory-{n}"] for n, ids in enumerate(nearest))


@pytest.mark.parametrize("keep", [0, 1, 60, 300])
async def test_an_index_whose_writing_was_killed_is_rebuilt(folder: Path, keep: int) -> None:
    tear(folder, keep)
    leave_marker(folder)
    found, notes = await everything(folder)
    assert found == by_id(memories(COUNT))
    assert "was rebuilt (55 vectors)" in notes[0]
    assert found_by_vector(folder) >= ALMOST
    left = {path.name for path in (folder / "tribal-mcp").iterdir()}
    assert left == {"guard", "lock", "next"}


async def test_an_index_killed_at_its_first_writing_is_rebuilt_from_the_log(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    await open_store(path).upsert(memories(COUNT))
    ChromaFolder.at(path).close()
    (index,) = (found.parent for found in path.glob("*/header.bin"))
    (index / LABELS).write_bytes(b"\x80\x03}(")
    leave_marker(path)
    found, notes = await everything(path)
    assert found == by_id(memories(COUNT))
    assert "was rebuilt" in notes[0]
    assert found_by_vector(path) >= ALMOST


async def test_a_killed_rebuild_is_started_again(folder: Path) -> None:
    tear(folder, 60)
    leave_marker(folder)
    before = shutil.copytree(folder, folder.with_name("before"))
    await everything(folder)
    # killed after the vectors were copied and the index was set aside, with half of a new index
    name = segment(folder).name
    place = before / "tribal-mcp" / "rebuild" / name
    place.mkdir(parents=True)
    with ChromaFiles(before) as files:
        raw = files.collection("memories")
        assert raw is not None
        vectors = files.vectors(raw, files.ids(raw))
    (place / "vectors.f32").write_bytes(b"".join(v.tobytes() for v in vectors.values()))
    (place / "ids.json").write_text(json.dumps(list(vectors)))
    (before / name).rename(place / "index")
    (before / name).mkdir()
    (before / name / LABELS).write_bytes(b"half")
    found, _ = await everything(before)
    assert found == by_id(memories(COUNT))
    assert found_by_vector(before) >= ALMOST
    assert not place.parent.exists()


async def test_a_batch_in_progress_is_completed(folder: Path) -> None:
    incoming = [memory(1, content="after"), memory(2, embedding=None), memory(60)]
    Journal(folder / "tribal-mcp" / "journal.jsonl").write(
        Batch("memories", Change(incoming, erase=["memory-3"]))
    )
    with chroma(folder) as client:  # the first step was done
        client.get_collection("memories", embedding_function=None).delete(["memory-1", "memory-2"])
    leave_marker(folder)
    found, notes = await everything(folder)
    expected = by_id(memories(COUNT)) | by_id(incoming)
    del expected["memory-3"]
    assert found == expected
    assert "A batch of 4 memories in progress was completed." in notes[0]
    assert (await everything(folder))[0] == expected


async def test_a_batch_stays_in_the_journal_if_its_completion_is_killed_as_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = [memory(1, content="after"), memory(2, embedding=None)]
    Journal(folder / "tribal-mcp" / "journal.jsonl").write(Batch("memories", Change(incoming)))
    with chroma(folder) as client:  # the first step was done
        client.get_collection("memories", embedding_function=None).delete(["memory-1", "memory-2"])
    leave_marker(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tribal_mcp.stores.chroma.journal.dump_entry", _killed)
        with pytest.raises(KeyboardInterrupt):
            await everything(folder)
    assert (await everything(folder))[0] == by_id(memories(COUNT)) | by_id(incoming)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


async def test_a_batch_with_an_incomplete_journal_was_never_started(folder: Path) -> None:
    journal = folder / "tribal-mcp" / "journal.jsonl"
    Journal(journal).write(Batch("memories", Change([memory(1, content="after"), memory(2)])))
    journal.write_bytes(journal.read_bytes()[:-20])
    leave_marker(folder)
    assert (await everything(folder))[0] == by_id(memories(COUNT))
    assert not journal.exists()


async def test_a_batch_that_chroma_refuses_is_set_aside_and_writing_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(folder / "tribal-mcp" / "journal.jsonl").write(Batch("memories", Change([memory(60)])))

    def refuse(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("tribal_mcp.stores.chroma.write._add", refuse)
    store = open_store(folder)
    async with store.session(writing=True):  # recovers first
        monkeypatch.undo()
        await store.upsert([memory(61)])
        assert (folder / "tribal-mcp" / "writing.json").exists()
    assert not (folder / "tribal-mcp" / "writing.json").exists()
    found, notes = await everything(folder)
    assert found == by_id([*memories(COUNT), memory(61)])
    assert "Chroma refused a batch of 1 memory (ValueError); it is kept in" in notes[0]
    (aside,) = (folder / "tribal-mcp").glob("refused-*.jsonl")
    assert b"memory-60" in aside.read_bytes()


async def test_a_write_that_fails_halfway_is_completed_by_the_next_session(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreDamaged("the index went wrong")

    store = open_store(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tribal_mcp.stores.chroma.write._add", fail)
        with pytest.raises(StoreDamaged, match="went wrong"):
            await store.upsert([memory(1, content="after")])
    assert (folder / "tribal-mcp" / "writing.json").exists()
    found, notes = await everything(folder)
    assert found == by_id(memories(COUNT)) | by_id([memory(1, content="after")])
    assert "was completed" in notes[0]


async def test_a_failed_recovery_leaves_everything_for_the_next_attempt(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tear(folder, 60)
    leave_marker(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tribal_mcp.stores.chroma.recovery._compare", _lost)
        with pytest.raises(StoreDamaged, match="lacks the vector"):
            await everything(folder)
    assert (folder / "tribal-mcp" / "writing.json").exists()
    assert (await everything(folder))[0] == by_id(memories(COUNT))
    assert found_by_vector(folder) >= ALMOST


def _lost(*_: object) -> None:
    raise StoreDamaged("lacks the vector of memory-1")


async def test_check_finds_a_truncated_index_and_repair_rebuilds_it(folder: Path) -> None:
    store = open_store(folder)
    assert await store.check() == []
    tear(folder, 60)
    shutil.rmtree(folder / "tribal-mcp" / "guard")
    (folder / "0b3f7a52-1111-4222-8333-444455556666").mkdir()
    kinds = {problem.kind for problem in await store.check()}
    assert kinds == {"index", "leftover"}
    done = await store.repair()
    assert any("was rebuilt" in sentence for sentence in done)
    assert await store.check() == []
    found, _ = await everything(folder)
    assert found.keys() == by_id(memories(COUNT)).keys()


async def test_memories_that_lost_their_vectors_are_kept_without_one(folder: Path) -> None:
    store = open_store(folder)
    ChromaFolder.at(folder).close()
    shutil.rmtree(segment(folder))
    (problem,) = await store.check()
    assert problem.kind == "index"
    done = await store.repair()
    assert "39 memories of 'memories' have lost their vectors" in done[-1]
    assert await store.check() == []
    found, _ = await everything(folder)
    in_log = {
        f"memory-{n}" for n in range(39, COUNT)
    }  # the log keeps the last entry that the index has
    assert {i for i, entry in found.items() if entry.embedding is not None} == in_log
    assert {i: entry.content for i, entry in found.items()} == {
        entry.id: entry.content for entry in memories(COUNT)
    }
    with chroma(folder) as client:  # Chroma can use it again
        got = client.get_collection("memories", embedding_function=None).get(include=["embeddings"])
    assert set(got["ids"]) == in_log


async def test_check_reports_what_a_killed_writer_left_without_changing_it(folder: Path) -> None:
    leave_marker(folder)
    Journal(folder / "tribal-mcp" / "journal.jsonl").write(Batch("memories", Change([memory(60)])))
    kinds = [problem.kind for problem in await open_store(folder).check()]
    assert kinds == ["unfinished", "unfinished"]
    assert (folder / "tribal-mcp" / "writing.json").exists()
    assert await open_store(folder).repair()
    assert await open_store(folder).count() == COUNT + 1


async def test_a_rebuilt_index_that_is_not_written_yet_is_safe_too(folder: Path) -> None:
    store = open_store(folder)
    await store.delete([f"memory-{n}" for n in range(45)])  # few enough: no index is written
    await store.upsert([memory(50)])
    ChromaFolder.at(folder).close()
    tear(folder, 60)
    leave_marker(folder)
    left = by_id(memories(COUNT)[45:])
    assert (await everything(folder))[0] == left
    assert await store.check() == []
    await store.upsert([memory(1)])
    ChromaFolder.at(folder).close()
    damage_first_labels(folder)
    leave_marker(folder)
    assert (await everything(folder))[0] == left | by_id([memory(1)])
    assert await store.check() == []


async def test_a_rebuilt_index_is_not_rebuilt_by_the_next_recovery(folder: Path) -> None:
    store = open_store(folder)
    await store.delete([f"memory-{n}" for n in range(45)])  # few enough: no index is written
    await store.upsert([memory(50)])
    ChromaFolder.at(folder).close()
    tear(folder, 60)
    leave_marker(folder)
    assert "was rebuilt" in (await everything(folder))[1][0]
    ChromaFolder.at(folder).notes.clear()
    leave_marker(folder)
    assert await everything(folder) == (by_id(memories(COUNT)[45:]), [])


@pytest.mark.parametrize("space", ["l2", "cosine"])
async def test_a_rebuilt_index_with_another_vector_is_an_error(tmp_path: Path, space: str) -> None:
    with chroma(tmp_path) as client:
        collection = create(client, space=space, sync_threshold=20)
        add(collection, [f"id{n}" for n in range(20)], vectors(20))
        add(collection, ["late"], vectors(1, seed=1))  # in the log, not in the index files
    place = tmp_path / "tribal-mcp" / "rebuild" / index_of(tmp_path).name
    place.mkdir(parents=True)
    (place / "ids.json").write_text(json.dumps(["late"]))
    (place / "vectors.f32").write_bytes((vectors(1, seed=1) + 1e-3).tobytes())
    with pytest.raises(StoreDamaged, match="lacks the vector of 'late'") as failure:
        await open_store(tmp_path).count()
    assert [step.action for step in failure.value.next_steps] == ["", "rescue"]
    assert place.exists()


async def test_a_transaction_that_could_not_end_is_rolled_back_by_the_next_session(
    tmp_path: Path,
) -> None:
    """The removal of SQLite's journal may fail; the header of one is enough here."""
    async with open_store(tmp_path) as store:
        await store.upsert(memories(3))
        folder = ChromaFolder.at(tmp_path)
        async with store.session(writing=True):
            await anyio.to_thread.run_sync(folder.client)
            journal = tmp_path / "chroma.sqlite3-journal"
            journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
        assert folder.lock.writer() is not None
        assert len(await store.list_ids()) == 3
        assert await store.check() == []
        assert folder.lock.writer() is None


@pytest.mark.parametrize("later", ["nothing else", "an update of its metadata", "an add of its id"])
@pytest.mark.parametrize("space", ["l2", "cosine"])
async def test_a_vector_that_another_program_replaced_does_not_stop_writes(
    tmp_path: Path, space: str, later: str
) -> None:
    with chroma(tmp_path) as client:
        client.create_collection(
            "memories",
            embedding_function=None,
            configuration={"hnsw": {"space": space, "sync_threshold": 20}},  # type: ignore[arg-type]
            metadata={OURS: 1},
        )
    async with ChromaStore(tmp_path) as store:
        await store.upsert(memories(15))
    ids, other = [memories(1)[0].id], np.array([[1, -1] * 4], np.float32)
    with chroma(tmp_path) as client:
        plain = client.get_collection("memories", embedding_function=None)
        plain.upsert(ids=ids, documents=["new"], embeddings=other)
        if later == "an update of its metadata":
            plain.update(ids=ids, metadatas=[{"kind": "newer"}])
        elif later == "an add of its id":
            plain.add(ids=ids, documents=["ignored"], embeddings=-other)
    async with ChromaStore(tmp_path) as store:
        for start in range(15, 60, 15):
            await store.upsert(memories(60)[start : start + 15])
        assert await store.count() == 60
        assert await store.check() == []
        index_of(tmp_path).joinpath(LABELS).write_bytes(b"damaged")
        await store.repair()
        assert await store.check() == []
        assert await store.count() == 60
        replaced = await store.get(ids[0])
        assert replaced is not None
        assert replaced.embedding == pytest.approx(other[0])
