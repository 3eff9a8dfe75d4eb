"""Vectors of other models: those that the store's recorded model did not make."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tribal_mcp.portability.manifest import EmbeddingMetadata, same_model
from tribal_mcp.stores.base import MemoryStore

OTHER_MODELS = "other_models"
"""The manifest field that counts the vectors of each other model."""


async def other_models_in(store: MemoryStore, named: EmbeddingMetadata | None) -> dict[str, str]:
    """The memories whose vectors other models than the named one made: the model, by id."""
    models = await store.other_models()
    others = {
        model
        for model in set(models.values())
        if named is None or not same_model(model, named.model_name)
    }
    return {memory_id: model for memory_id, model in models.items() if model in others}


def count_by_name(models: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, sorted by name."""
    return dict(sorted(Counter(models).items()))


async def describe_other_models(
    store: MemoryStore, ids: Sequence[str], named: EmbeddingMetadata
) -> tuple[dict[str, Any], list[str]]:
    """The manifest fields and the notes about other models; empty if there are none."""
    others = await other_models_in(store, named)
    counts = count_by_name(others[i] for i in ids if i in others)
    if not counts:
        return {}, []
    which = ", ".join(f"{name:.80}: {count:,}" for name, count in counts.items())
    note = (
        f"Models other than {named} made some of the vectors ({which}). Each of those memories "
        "names its model."
    )
    return {OTHER_MODELS: counts}, [note]
