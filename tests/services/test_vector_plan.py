"""What becomes of a bundle's vectors: every case of bundle, store and strategy."""

import pytest

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.portability.manifest import EmbeddingMetadata, create_embedding_metadata
from tribal_mcp.services.importing.vectors import VectorPlan, plan_vectors
from tribal_mcp.stores.base import StoreState

MINI = create_embedding_metadata("all-MiniLM-L6-v2", 384, "onnx")
SAME = create_embedding_metadata("sentence-transformers/all-MiniLM-L6-v2", 384, "fastembed")
BGE = create_embedding_metadata("BAAI/bge-small-en-v1.5", 384, "fastembed")
LARGE = create_embedding_metadata("text-embedding-3-small", 1536, "openai")
UNKNOWN = EmbeddingMetadata("unknown", 384)

EMPTY = StoreState()
KNOWS_MINI = StoreState(identity=MINI, dimensions=384)
HOLDS_MINI = StoreState(identity=MINI, dimensions=384, count=3)
HOLDS_NAMELESS = StoreState(dimensions=384, count=3)
ONLY_PENDING = StoreState(count=3, pending=3)

AUTO, KEEP, DROP = ReembeddingStrategy.AUTO, ReembeddingStrategy.KEEP, ReembeddingStrategy.DROP

CASES = {
    # bundle's model, its dimensions, store, the given model, strategy -> keep, adopt
    "an empty store adopts the model": (MINI, 384, EMPTY, None, AUTO, True, MINI),
    "a store without vectors does too": (MINI, 384, ONLY_PENDING, None, AUTO, True, MINI),
    "an empty store takes nameless vectors": (UNKNOWN, 384, EMPTY, None, AUTO, True, None),
    "or those of a bundle without manifest": (None, 384, EMPTY, None, AUTO, True, None),
    "the same model is kept": (MINI, 384, HOLDS_MINI, None, AUTO, True, None),
    "however it is spelled": (SAME, 384, HOLDS_MINI, None, AUTO, True, None),
    "another model of the same dimensions is not": (BGE, 384, HOLDS_MINI, None, AUTO, False, None),
    "nor one of other dimensions": (LARGE, 1536, HOLDS_MINI, None, AUTO, False, None),
    "nor an unknown one": (UNKNOWN, 384, HOLDS_MINI, None, AUTO, False, None),
    "a known model among nameless vectors is not": (
        MINI, 384, HOLDS_NAMELESS, None, AUTO, False, None,
    ),
    "unless the caller names theirs": (MINI, 384, HOLDS_NAMELESS, SAME, AUTO, True, SAME),
    "a configured model wins over adoption": (BGE, 384, EMPTY, MINI, AUTO, False, MINI),
    "a configured model that matches is recorded": (SAME, 384, EMPTY, MINI, AUTO, True, MINI),
    "what the store knows wins over the caller": (BGE, 384, HOLDS_MINI, BGE, AUTO, False, None),
    "a known model of an empty store holds": (BGE, 384, KNOWS_MINI, None, AUTO, False, None),
    "keep keeps beside others": (BGE, 384, HOLDS_MINI, None, KEEP, True, None),
    "keep keeps what matches": (SAME, 384, HOLDS_MINI, None, KEEP, True, None),
    "keep adopts in an empty store": (LARGE, 1536, KNOWS_MINI, MINI, KEEP, True, LARGE),
    "drop drops what matches": (MINI, 384, HOLDS_MINI, None, DROP, False, None),
    "no vectors, nothing to keep": (MINI, 0, HOLDS_MINI, None, KEEP, False, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_vector_plan_follows_models_dimensions_and_strategy(case: str) -> None:
    source, dimensions, store, target, strategy, keep, adopt = CASES[case]
    plan = plan_vectors(source, dimensions, store, target, strategy)
    assert (plan.keep, plan.adopt) == (keep, adopt)


def test_dropping_vectors_by_default_is_explained() -> None:
    note = plan_vectors(BGE, 384, HOLDS_MINI, None, AUTO).note
    assert "BAAI/bge-small-en-v1.5" in note
    assert "all-MiniLM-L6-v2" in note


def test_keeping_vectors_of_another_model_is_noted() -> None:
    others = plan_vectors(BGE, 384, HOLDS_MINI, None, KEEP)
    assert "BAAI/bge-small-en-v1.5" in others.note
    assert others.named == "BAAI/bge-small-en-v1.5"
    assert plan_vectors(SAME, 384, HOLDS_MINI, None, KEEP) == VectorPlan(
        keep=True, here=MINI, keep_others=True
    )


def test_vectors_of_other_dimensions_are_refused_with_the_counts() -> None:
    with pytest.raises(UsageError, match=r"1536 dimensions .* 3 have 384"):
        plan_vectors(LARGE, 1536, HOLDS_MINI, None, KEEP)
