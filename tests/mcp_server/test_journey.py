"""A complete session through a client over real stdio, starting with an empty folder.

In both protocol eras it imports the sample bundles into an empty folder, exports them by tag and
by date, and imports with each conflict strategy and with each embedding strategy, dry and real.
Another process then reads the contents of the store.
"""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import Client

from tests.support.examples import SAMPLES, memories, memory, vector
from tests.support.mcp_client import ERAS, call, connected, read_back, write_bundle
from tribal_mcp.portability.memory import MemoryEntry

pytestmark = [pytest.mark.anyio, ERAS]

DIFFERENT = {"dry_run", "duration_ms", "next_step", "changes", "restore_point"}


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a bundle, or of a stream of entries, as plain JSON."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(json.loads(text)["entries"])


async def dry_and_real(client: Client, **arguments: object) -> dict[str, Any]:
    """Import after a dry run, which must write nothing and predict the same result."""
    before = await call(client, "tribal_stats")
    dry = await call(client, "tribal_import", dry_run=True, **arguments)
    assert await call(client, "tribal_stats") == before
    assert "dry_run=false" in dry["next_step"]
    real = await call(client, "tribal_import", **arguments)
    assert (dry["dry_run"], real["dry_run"]) == (True, False)
    for name in real.keys() - DIFFERENT:
        assert real[name] == dry[name], name
    assert real["total"] == sum(
        real[name] for name in ("imported", "skipped", "overwritten", "errors")
    )
    return real


async def test_sample_bundles_are_imported_and_exported_by_tag_and_date(
    era: str, tmp_path: Path
) -> None:
    shutil.copytree(SAMPLES, tmp_path, dirs_exist_ok=True)
    async with connected(tmp_path, era) as client:
        assert (await call(client, "tribal_stats"))["count"] == 0

        first = await dry_and_real(client, input_path="hand5.inmemory.json")
        assert (first["imported"], first["vectors_kept"]) == (5, 5)
        again = await dry_and_real(client, input_path="hand5.inmemory.json")
        assert (again["imported"], again["skipped"], again["identical"]) == (0, 5, 5)
        stream = await dry_and_real(client, input_path="hand7.streaming.jsonl")
        assert (stream["imported"], stream["skipped"]) == (2, 5)
        other = await dry_and_real(client, input_path="n20_dim384_other_model.json")
        assert (other["imported"], other["vectors_dropped"]) == (20, 20)
        assert other["needs_reembedding"]

        stats = await call(client, "tribal_stats")
        assert (stats["count"], stats["without_vector"]) == (27, 22)
        assert stats["embedding"]["model_name"] == "BAAI/bge-small-en-v1.5"

        tagged = await call(client, "tribal_export", tags=["work"], output_path="work.json")
        # The day is whole: from its first instant to 23:59:59.999999, wherever the clock stood.
        day = {"date_from": "2026-01-15", "date_to": "2026-01-15"}
        dated = await call(client, "tribal_export", **day, output_path="day.json")
        both = await call(client, "tribal_export", tags=["work"], **day, output_path="both.json")
        everything = await call(client, "tribal_export", output_path="all.json")

    names = ("hand7.streaming.jsonl", "n20_dim384_other_model.json", "hand5.inmemory.json")
    given = {entry["id"]: entry for name in names for entry in entries_of(tmp_path / name)}
    stored = read_back(tmp_path)
    assert stored.keys() == given.keys()
    for name in ("content", "tags", "context", "confidence", "created_at", "updated_at"):
        assert {i: e[name] for i, e in stored.items()} == {i: e[name] for i, e in given.items()}
    kept = {e["id"] for e in stored.values() if e["embedding"] is not None}
    assert kept == {e["id"] for e in entries_of(tmp_path / "hand5.inmemory.json")}

    work = {i for i, e in given.items() if "work" in e["tags"]}
    one_day = {i for i in given if i.startswith(("11111111-", "22222222-", "33333333-"))}
    exported = {
        name: {e["id"] for e in entries_of(tmp_path / f"{name}.json")}
        for name in ("work", "day", "both", "all")
    }
    assert exported == {"work": work, "day": one_day, "both": work & one_day, "all": given.keys()}
    counts = [result["memory_count"] for result in (tagged, dated, both, everything)]
    assert counts == [len(ids) for ids in exported.values()]


def _incoming(prefix: str) -> tuple[list[MemoryEntry], list[MemoryEntry]]:
    """Three memories that are here; and an older, a newer, a same-aged and a new one that come."""
    here = [memory(n, id=f"{prefix}-{n}", updated_at=memory(9).created_at) for n in range(3)]
    hour = timedelta(hours=1)
    ages = (-hour, hour, 0 * hour)
    coming = [
        memory(n, id=f"{prefix}-{n}", content="Incoming", updated_at=memory(9).created_at + age)
        for n, age in enumerate(ages)
    ]
    return here, [*coming, memory(3, id=f"{prefix}-3", content="Incoming")]


async def test_each_conflict_resolution_keeps_the_right_memories(era: str, tmp_path: Path) -> None:
    strategies: dict[str, tuple[dict[str, int], set[int]]] = {
        "skip": ({"imported": 1, "skipped": 3, "overwritten": 0}, {3}),
        "overwrite": ({"imported": 1, "skipped": 0, "overwritten": 3}, {0, 1, 2, 3}),
        "merge": (
            {"imported": 1, "skipped": 2, "overwritten": 1, "older": 1, "conflicts": 1},
            {1, 3},
        ),
    }
    async with connected(tmp_path, era) as client:
        for strategy, (counts, _) in strategies.items():
            here, coming = _incoming(strategy)
            write_bundle(tmp_path / "here.json", here)
            write_bundle(tmp_path / "coming.json", coming)
            await call(client, "tribal_import", input_path="here.json")
            result = await dry_and_real(
                client, input_path="coming.json", conflict_resolution=strategy
            )
            assert {name: result[name] for name in counts} == counts, strategy

    stored = read_back(tmp_path)
    assert len(stored) == 12
    for strategy, (_, incoming) in strategies.items():
        contents = [stored[f"{strategy}-{n}"]["content"] for n in range(4)]
        assert {n for n in range(4) if contents[n] == "Incoming"} == incoming, strategy


async def test_each_embedding_strategy_keeps_or_drops_vectors(era: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "here.json", memories(2), model="model-a")
    for model in ("model-a", "model-b"):
        for strategy in ("auto", "drop", "keep"):
            name = f"{model}-{strategy}"
            entries = [memory(n, id=f"{name}-{n}") for n in range(2)]
            write_bundle(tmp_path / f"{name}.json", entries, model=model)
    write_bundle(tmp_path / "wider.json", [memory(5, dimensions=16)], dimensions=16)
    kept = {"model-a-auto", "model-a-keep", "model-b-keep"}

    async with connected(tmp_path, era) as client:
        await call(client, "tribal_import", input_path="here.json")
        for model in ("model-a", "model-b"):
            for strategy in ("auto", "drop", "keep"):
                name = f"{model}-{strategy}"
                result = await dry_and_real(
                    client, input_path=f"{name}.json", embedding_strategy=strategy
                )
                expected = (2, 0) if name in kept else (0, 2)
                assert (result["vectors_kept"], result["vectors_dropped"]) == expected, name
                assert result["needs_reembedding"] is (name not in kept)
        refused = await client.call_tool(
            "tribal_import", {"input_path": "wider.json", "embedding_strategy": "keep"}
        )
        assert refused.is_error

    stored = read_back(tmp_path)
    assert len(stored) == 2 + 6 * 2
    for model in ("model-a", "model-b"):
        for strategy in ("auto", "drop", "keep"):
            name = f"{model}-{strategy}"
            for n in range(2):
                came_back = stored[f"{name}-{n}"]["embedding"]
                if name in kept:
                    assert np.float32(came_back).tobytes() == vector(n).tobytes()
                else:
                    assert came_back is None
