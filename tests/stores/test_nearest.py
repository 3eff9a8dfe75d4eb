"""Exact cosine search on a Chroma folder, against numpy, while the folder changes."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path

import anyio
import numpy as np
import pytest

from tests.support.chroma_folders import chroma
from tests.support.examples import BEGIN, memory
from tests.support.minilm import place_model
from tribal_mcp.embedding.onnx import load
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.store import ChromaStore

pytestmark = pytest.mark.anyio

DIMENSIONS = 48
FILTERS = {
    "everything": ExportFilter(),
    "half": ExportFilter(tags=["half"]),
    "few": ExportFilter(tags=["few"]),
    "half of some days": ExportFilter(
        tags=["half"],
        date_from=BEGIN + timedelta(hours=150),
        date_to=BEGIN + timedelta(hours=700),
    ),
}


def vector(number: int) -> Vector:
    found = np.random.default_rng(number).normal(size=DIMENSIONS) * (1 + number % 7)
    return found.astype(np.float32)


def some(numbers: range, offset: int = 0) -> dict[str, MemoryEntry]:
    """Memories with vectors of unequal lengths, some of which are equal, and some without."""
    return {
        f"m{n}": memory(
            n,
            id=f"m{n}",
            tags=[*["half"] * (n % 2), *["few"] * (n % 97 == 3)],
            embedding=None if n % 11 == 5 else vector(offset + (n if n % 13 else 0)),
        )
        for n in numbers
    }


def expected(
    entries: dict[str, MemoryEntry], wanted: Vector, which: ExportFilter, without: set[str]
) -> dict[str, float]:
    one = wanted.astype(np.float64) / np.linalg.norm(wanted.astype(np.float64))
    found = {
        i: float(e.embedding.astype(np.float64) @ one / np.linalg.norm(e.embedding.astype(float)))
        for i, e in entries.items()
        if e.embedding is not None and which.matches(e) and i not in without
    }
    return dict(sorted(found.items(), key=lambda item: -round(item[1], 9)))


async def check(store: ChromaStore, entries: dict[str, MemoryEntry]) -> None:
    for number, which in enumerate(FILTERS.values()):
        for count in (1, 20, 700):
            wanted, without = vector(9000 + number), {f"m{n}" for n in range(0, 40, 3)}
            best = expected(entries, wanted, which, without)
            found = await store.nearest(wanted, count, which, without=without)
            assert [i for i, _ in found] == list(best)[:count]
            assert [c for _, c in found] == pytest.approx(list(best.values())[:count], abs=1e-9)


async def test_the_nearest_are_exact_in_the_index_and_in_the_log(tmp_path: Path) -> None:
    store = ChromaStore(tmp_path / "chroma", keep_open=True)
    entries = some(range(1300))
    await store.upsert(list(entries.values()))  # more than 1,000: Chroma writes its index
    await check(store, entries)
    changed = some(range(20, 60), offset=5000)
    await store.upsert(list(changed.values()))
    await store.delete(["m1", "m4", "m1299"])
    for memory_id in [*changed, "m1", "m4", "m1299"]:
        del entries[memory_id]
    entries |= changed
    await check(store, entries)


@pytest.mark.parametrize("change", ["another process", "chroma", "a copy"])
async def test_a_store_that_stays_open_sees_the_changes_of_others(
    tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "chroma"
    entries = some(range(200))
    async with ChromaStore(folder, keep_open=True) as store:
        await store.upsert(list(entries.values()))
        await check(store, entries)
    if change == "a copy":
        other = some(range(150), offset=3000)
        async with ChromaStore(tmp_path / "other") as second:
            await second.upsert(list(other.values()))
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "other", folder)
        entries = other
    elif change == "chroma":
        with chroma(folder) as client:
            collection = client.get_collection("memories", embedding_function=None)
            collection.update(ids=["m7"], embeddings=np.stack([vector(77)]))
            collection.delete(ids=["m8"])
        entries["m7"].embedding = vector(77)
        del entries["m8"]
    else:
        script = (
            "import anyio; from tests.stores.test_nearest import *; "
            f"store = ChromaStore(Path({str(folder)!r})); "
            "anyio.run(store.upsert, list(some(range(200, 1400)).values()))"
        )
        await anyio.run_process([sys.executable, "-c", script])
        entries |= some(range(200, 1400))
    async with ChromaStore(folder, keep_open=True) as store:
        await check(store, entries)
        await store.upsert([new := memory(5000, id="new", embedding=vector(1))])
        await check(store, {**entries, "new": new})
        await store.close()


async def test_the_nearest_are_exact_for_vectors_of_a_real_model(tmp_path: Path) -> None:
    place = Path(__file__).parents[1] / "data" / "recall" / "memories.tsv"
    texts = [line.split("\t")[3] for line in place.read_text("utf-8").splitlines()]
    embed = load(place_model(tmp_path / "model"))
    vectors = embed([*texts[:40], *texts[:5], "where do we deploy?"])  # some are equal
    entries = {
        f"m{n}": memory(n, id=f"m{n}", tags=["half"] * (n % 2), embedding=None if n == 7 else one)
        for n, one in enumerate(vectors[:-1])
    }
    async with ChromaStore(tmp_path / "chroma") as store:
        await store.upsert(list(entries.values()))
        for which in (FILTERS["everything"], FILTERS["half"]):
            best = expected(entries, vectors[-1], which, {"m3"})
            found = await store.nearest(vectors[-1], 50, which, without={"m3"})
            assert [i for i, _ in found] == list(best)
            assert [c for _, c in found] == pytest.approx(list(best.values()), abs=1e-9)
