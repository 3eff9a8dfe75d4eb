"""Whatever an entry holds comes back: export, import, export gives the same bytes."""

import json
import math
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.support.bundles import manifest, read, written
from tests.support.entries import DIMENSIONS, entries, float32s, many
from tests.support.examples import memory
from tribal_mcp.errors import EntryError
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.writer import BundleWriter, Vectors
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict, entry_to_dict
from tribal_mcp.portability.vectors import vector_from_base64, vector_to_base64
from tribal_mcp.services.import_export import export_memories, import_memories
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore

LAYOUTS: st.SearchStrategy[Layout] = st.sampled_from(["json", "jsonl"])
VECTORS: st.SearchStrategy[Vectors] = st.sampled_from(["numbers", "base64"])


@given(many(), LAYOUTS, VECTORS)
def test_any_memories_survive_writer_and_reader(
    memories: list[MemoryEntry], layout: Layout, vectors: Vectors
) -> None:
    data = written(memories, layout, "none", vectors, DIMENSIONS)
    result = read(data)
    assert result.reasons == []
    assert result.entries == memories
    assert written(result.entries, layout, "none", vectors, DIMENSIONS) == data


@given(many())
def test_any_memories_survive_a_reformatted_file(memories: list[MemoryEntry]) -> None:
    data = written(memories, dimensions=DIMENSIONS)
    result = read(json.dumps(json.loads(data), indent=1).encode())
    assert result.notes == []
    assert written(result.entries, dimensions=DIMENSIONS) == data


@given(many())
def test_any_memories_survive_a_bundle_in_memory(memories: list[MemoryEntry]) -> None:
    bundle = PortableBundle(manifest(len(memories), DIMENSIONS), memories)
    form = bundle.to_dict()
    again = PortableBundle.from_dict(json.loads(json.dumps(form)))
    assert again.rejected == []
    assert again.entries == memories
    assert json.dumps(again.to_dict()) == json.dumps(form)
    assert read(json.dumps(form).encode()).entries == memories


async def _exported(store: MemoryStore) -> bytes:
    """The lines of a store as a bundle, without what depends on the hour."""
    async with store.session():
        ids = await store.list_ids()
        out = BytesIO()
        writer = BundleWriter(out, manifest(len(ids), DIMENSIONS))
        async for batch in store.read_lines(ids):
            writer.write_lines(batch.lines)
        writer.finish()
    return out.getvalue()


async def _through(first: MemoryStore, second: MemoryStore, memories: list[MemoryEntry]) -> None:
    async with first, second:
        await first.upsert(memories)
        before = await _exported(first)
        assert {entry.id: entry for entry in read(before).entries} == {
            entry.id: entry for entry in memories
        }
        bundle = await export_memories(first)
        summary = await import_memories(
            PortableBundle(bundle.manifest, read(before).entries), second
        )
        assert (summary.imported, summary.errors) == (len(memories), 0)
        assert await _exported(second) == before


@given(many())
def test_any_memories_survive_an_in_memory_store(memories: list[MemoryEntry]) -> None:
    anyio.run(_through, InMemoryStore(), InMemoryStore(), memories)


@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(many(max_size=12))
def test_any_memories_survive_chroma_folders(memories: list[MemoryEntry]) -> None:
    with TemporaryDirectory() as folder:
        first, second = (open_store(Path(folder, name)) for name in ("first", "second"))
        anyio.run(_through, first, second, memories)


@given(entries())
def test_any_memory_survives_its_dict(entry: MemoryEntry) -> None:
    form = entry_to_dict(entry)
    again = entry_from_dict(json.loads(json.dumps(form)))
    assert again == entry
    assert dump_entry(again) == dump_entry(entry)
    assert json.loads(dump_entry(entry)) == form


@given(st.lists(float32s, min_size=1, max_size=20))
@example([0.0, -0.0, 1e-45, 3.4028234663852886e38, 1.1754943508222875e-38, 16777217.0])
def test_each_number_is_written_as_the_shortest_text_of_its_float32(numbers: list[float]) -> None:
    vector = np.array(numbers, dtype=np.float32)
    entry = memory(1, embedding=vector)
    text = dump_entry(entry).split(b'"embedding":[')[1].split(b"]")[0].decode()
    for written_number, number in zip(text.split(","), vector, strict=True):
        assert np.float32(written_number).tobytes() == number.tobytes()
        digits = written_number.lower().split("e")[0].strip("-").replace(".", "").strip("0")
        shorter = f"{float(number):.{max(len(digits) - 2, 0)}e}"
        with np.errstate(over="ignore"):
            assert len(digits) <= 1 or np.float32(shorter) != number
    assert vector_from_base64(vector_to_base64(vector)).tobytes() == vector.tobytes()


@pytest.mark.parametrize("text", ["AAAA", "AAAAAA=", "AAAAAB==", "AAAAAA==\n", "é", "AADAfw==", ""])
def test_text_that_is_not_a_base64_vector_is_refused(text: str) -> None:
    with pytest.raises(EntryError, match="embedding"):
        vector_from_base64(text)


def test_numbers_are_rounded_to_float32_and_refused_beyond_its_range() -> None:
    def vector(*numbers: float) -> list[float]:
        found = entry_from_dict(
            {"id": "a", "content": "", "created_at": "2026-01-01", "embedding": list(numbers)}
        ).embedding
        assert found is not None
        return found.tolist()  # type: ignore[no-any-return]

    assert vector(0.1, 1, 1e-50) == [np.float32(0.1), 1.0, 0.0]
    largest = 3.4028235e38
    assert vector(largest) == [float(np.float32(largest))]
    for beyond in (1e39, -3.5e38, math.inf, math.nan, 10**400):
        with pytest.raises(EntryError, match="embedding"):
            vector(beyond)


@pytest.mark.parametrize(
    "field",
    [
        {"tags": ["short", "x" * 1001]},
        {"source_instance": "x" * 1001},
        {"source_type": "ä" * 501},
        {"embedding_model": "x" * 1001},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_label_that_results_repeat_is_bounded(field: dict[str, Any]) -> None:
    data = {"id": "a", "content": "b", "created_at": "2026-01-15"} | field
    with pytest.raises(EntryError, match=r"TRIBAL_LIMIT_LABEL_BYTES"):
        entry_from_dict(data)
