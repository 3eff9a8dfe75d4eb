"""Recall with a real embedding model, on some of the questions that `make recall` measures."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.embedders import no_embedder
from tests.support.examples import DATA, memory
from tests.support.minilm import place_model
from tribal_mcp.embedding.onnx import OnnxEmbedder
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.services.embedders import EmbedderOf
from tribal_mcp.services.memories.recall import recall
from tribal_mcp.stores.base import EVERYTHING
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / "recall" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


async def answered(store: InMemoryStore, embedder_of: EmbedderOf, count: int) -> tuple[int, int]:
    """How many of every fifteenth question are answered in the first places, and of how many."""
    asked = [row for row in rows("questions")[::15] if row["answers"]]
    found = 0
    for row in asked:
        result = await recall(store, embedder_of, row["question"], count, EVERYTHING, now=NOW)
        found += not {hit.id for hit in result.hits}.isdisjoint(row["answers"].split(","))
    return found, len(asked)


async def test_with_a_model_recall_answers_more_questions_than_by_keywords_alone(
    tmp_path: Path,
) -> None:
    identity = create_embedding_metadata("all-MiniLM-L6-v2", 384, "tests")
    model = OnnxEmbedder(identity, place_model(tmp_path / "model"))
    texts = rows("memories")
    vectors = await model.embed([row["text"] for row in texts])
    store = InMemoryStore()
    await store.set_identity(identity)
    await store.upsert(
        [
            memory(
                number,
                id=row["id"],
                content=row["text"],
                embedding=vector,
                created_at=datetime.fromisoformat(row["created"]).replace(tzinfo=UTC),
                supersedes=row["supersedes"] or None,
            )
            for number, (row, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
    )
    keyword, asked = await answered(store, no_embedder, 1)
    hybrid, _ = await answered(store, lambda _state: model, 1)
    assert keyword >= 0.8 * asked
    assert hybrid >= max(keyword, 0.9 * asked)
