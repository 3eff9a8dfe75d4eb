"""What of a store is a mix: vectors of other models than the one that it records."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tribal_mcp.portability.manifest import EmbeddingMetadata, same_model
from tribal_mcp.stores.base import MemoryStore

OTHER_MODELS = "other_models"
"""In the manifest of a mix: how many vectors each of the other models made."""


async def others_in(store: MemoryStore, named: EmbeddingMetadata | None) -> dict[str, str]:
    """The memories whose vectors are of other models than the named one: which, by id."""
    models = await store.other_models()
    others = {
        model
        for model in set(models.values())
        if named is None or not same_model(model, named.model_name)
    }
    return {memory_id: model for memory_id, model in models.items() if model in others}


def counted(models: Iterable[str]) -> dict[str, int]:
    """How often each stands there, by name."""
    return dict(sorted(Counter(models).items()))


async def about_mix(
    store: MemoryStore, ids: Sequence[str], named: EmbeddingMetadata
) -> tuple[dict[str, Any], list[str]]:
    """What the manifest and the notes of an export say of it; nothing where it is no mix."""
    others = await others_in(store, named)
    counts = counted(others[i] for i in ids if i in others)
    if not counts:
        return {}, []
    which = ", ".join(f"{name:.80}: {count:,}" for name, count in counts.items())
    note = (
        f"The bundle is a mix: other models than {named} made some of its vectors ({which}). "
        "Each of those memories says so itself."
    )
    return {OTHER_MODELS: counts}, [note]
