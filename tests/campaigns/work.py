"""The work of the processes of the campaigns."""

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import numpy as np

from tests.support.examples import memory
from tribal_mcp.config import Settings
from tribal_mcp.errors import TribalError
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.importing import importer as importing
from tribal_mcp.services.jobs import run as run_job
from tribal_mcp.stores.chroma import folder as chroma_folder
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.record import OURS

Report = Callable[[Any], None]
Strategy = Literal["skip", "overwrite", "merge"]
DIMENSIONS = 16
FILL = 20
TEXT = "A memory that takes some room. " * 40


def make_collection(_report: Report, folder: Path, sync_threshold: int) -> None:
    """Create a collection that writes its index often."""
    import chromadb  # noqa: PLC0415

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    client = chromadb.PersistentClient(folder)
    client.create_collection(
        "memories",
        embedding_function=None,
        configuration={"hnsw": {"space": "l2", "sync_threshold": sync_threshold}},
        metadata={OURS: 1},
    )
    client.close()  # type: ignore[attr-defined]


def store_entries(_report: Report, folder: Path, entries: Sequence[MemoryEntry]) -> None:
    """Insert entries."""

    async def run() -> None:
        async with ChromaStore(folder) as store:
            await store.upsert(entries)

    anyio.run(run)


def job(report: Report, folder: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a use case on that folder, with progress sent to the parent."""
    context = Context(
        Settings(data_dir=folder, lock_timeout_s=240.0),
        Limits(),
        progress=lambda _, message: report(("progress", message)),
        trusted=True,
    )
    return anyio.run(run_job, context, name, arguments).model_dump()


def import_bundle(
    report: Report, folder: Path, bundle: Path, batch: int, strategy: Strategy
) -> dict[str, Any]:
    """Import with the real job; each batch is reported once it is acknowledged."""
    importing.STEP = batch  # type: ignore[attr-defined]
    arguments = {
        "input_path": os.fspath(bundle),
        "conflict_resolution": strategy,
        "embedding_strategy": "keep",
    }
    return job(report, folder, "import", arguments)


def export_bundle(report: Report, folder: Path, bundle: Path) -> dict[str, Any]:
    """Export with the real job."""
    arguments = {"output_path": os.fspath(bundle), "overwrite": True}
    return job(report, folder, "export", arguments)


def read_all(_report: Report, folder: Path) -> tuple[dict[str, MemoryEntry], list[str]]:
    """Return all memories and the notes of the store."""

    async def run() -> tuple[dict[str, MemoryEntry], list[str]]:
        async with ChromaStore(folder) as store, store.session():
            ids = await store.list_ids()
            assert await store.count() == len(ids) == len(set(ids))
            return await store.get_many(ids), (await store.state()).notes

    return anyio.run(run)


def damage(_report: Report, folder: Path) -> list[str]:
    """Return where Chroma and the files disagree, and what is lost."""
    import chromadb  # noqa: PLC0415

    problems: list[str] = []
    client = chromadb.PersistentClient(folder)
    with ChromaFiles(folder) as files:
        for raw in files.collections():
            collection = client.get_collection(raw.name, embedding_function=None)
            got = collection.get(include=["embeddings"])
            vectors = got["embeddings"]
            assert vectors is not None
            direct = files.vectors(raw, got["ids"])
            problems += [f"{i}: no vector" for i in files.without_vector(raw)]
            problems += [f"{i}: no row" for i in files.without_row(raw)]
            for memory_id, vector in zip(got["ids"], vectors, strict=True):
                found = direct.get(memory_id)
                if found is None or found.tobytes() != np.float32(vector).tobytes():
                    problems.append(f"{memory_id}: Chroma and the files differ")
            if raw.name == "memories" and got["ids"]:
                nearest = collection.query(query_embeddings=list(vectors), n_results=1)["ids"]
                lost = sum([i] != n for i, n in zip(got["ids"], nearest, strict=True))
                if lost > len(got["ids"]) // 50:  # the index is approximate
                    problems.append(f"{lost} of {len(got['ids'])} are not found by their vectors")
    client.close()  # type: ignore[attr-defined]
    return problems


def audit(report: Report, folder: Path) -> tuple[dict[str, MemoryEntry], list[str], list[str]]:
    """Return all memories, the notes of the store, and the damage."""
    return *read_all(report, folder), damage(report, folder)


def filled(seed: int, count: int) -> list[MemoryEntry]:
    """Return what `fill` has stored after `count` memories: all but the last batch replaced."""
    return [
        memory(seed * 10_000 + n, DIMENSIONS, content=TEXT if n >= count - FILL else f"{TEXT}Again")
        for n in range(count)
    ]


def fill(_report: Report, folder: Path, seed: int) -> tuple[int, str]:
    """Insert memories until it fails; return how many were acknowledged, and the error.

    Each batch also replaces the previous one, which takes Chroma two steps.
    """
    chroma_folder.FREE_BYTES = 0
    chroma_folder._SPACE_FACTOR = 0
    written = 0

    async def run() -> str:
        nonlocal written
        store = ChromaStore(folder)
        try:
            while True:
                await store.upsert(filled(seed, written + FILL)[-2 * FILL :])
                written += FILL
        except TribalError as error:
            return type(error).__name__

    error = anyio.run(run)
    return written, error


def crowd(
    _report: Report, folder: Path, me: int, processes: int, count: int, acknowledged: Path
) -> dict[str, int]:
    """Upsert memories one by one, and read one's own and those of other processes in between."""
    stale = 0

    async def run() -> None:
        nonlocal stale
        chance = random.Random(me)  # noqa: S311
        store = ChromaStore(folder, lock_timeout_s=600.0)
        with (acknowledged / str(me)).open("ab", buffering=0) as mine:
            for n in range(count):
                entry = memory(me * 1_000_000 + n, DIMENSIONS)
                await store.upsert([entry])
                mine.write(b".")
                stale += await store.get(entry.id) != entry
                other = chance.randrange(processes)
                path = acknowledged / str(other)
                last = (path.stat().st_size if path.exists() else 0) - 1
                if last >= 0:
                    expected = memory(other * 1_000_000 + last, DIMENSIONS)
                    stale += await store.get(expected.id) != expected
        await store.close()

    anyio.run(run)
    return {"stale": stale}


def watch(_report: Report, folder: Path, stop: Path) -> dict[str, int]:
    """Read continuously: the count never falls, and each listed memory can be read."""
    rounds = wrong = 0

    async def run() -> None:
        nonlocal rounds, wrong
        store = ChromaStore(folder, lock_timeout_s=600.0)
        before = 0
        while not stop.exists():  # noqa: ASYNC240
            rounds += 1
            count = await store.count()
            wrong += count < before
            before = count
            async with store.session():
                ids = await store.list_ids()
                entries = await store.get_many(ids[-50:])
                wrong += len(ids) < before
                wrong += sum(e.embedding is None for e in entries.values())
                wrong += len(entries) != min(50, len(ids))
                before = len(ids)
        await store.close()

    anyio.run(run)
    return {"rounds": rounds, "wrong": wrong}
