"""What becomes of a bundle's vectors: its model is held against the store's."""

from dataclasses import dataclass, replace

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.embedding_metadata import EmbeddingMetadata, ReembeddingStrategy
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import StoreState


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What becomes of a bundle's vectors.

    Attributes:
        keep: they come along; else they are dropped.
        adopt: the model that the store takes over with them.
        note: why, for the user; empty where it goes without saying.
    """

    keep: bool
    adopt: EmbeddingMetadata | None = None
    note: str = ""

    def arriving(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry as the store is to get it."""
        return entry if self.keep else replace(entry, embedding=None)


def plan_vectors(
    source: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    target: EmbeddingMetadata | None,
    strategy: ReembeddingStrategy,
) -> VectorPlan:
    """Hold the bundle's model against the store's.

    Args:
        source: the model that the bundle names.
        dimensions: of the vectors in it; 0 if there are none.
        store: what it is now. The model that it recorded comes before `target`.
        target: the model that the caller says the store embeds with.
        strategy: what the caller wants.

    Raises:
        UsageError: vectors are to be kept that the store can't hold.
    """
    if strategy is ReembeddingStrategy.REEMBED:
        return _reembed(source, dimensions, store, target)
    if strategy is ReembeddingStrategy.DROP or not dimensions:
        return VectorPlan(keep=False)
    known = source if source is not None and source.known else None
    here = store.identity or target
    compatible = known is not None and here is not None and known.is_compatible_with(here)
    if strategy is ReembeddingStrategy.KEEP:
        return _keep(known, dimensions, store, here, compatible=compatible)
    if here is None and not store.has_vectors:
        return VectorPlan(keep=True, adopt=known)
    if compatible and (store.dimensions in (0, dimensions) or not store.has_vectors):
        return VectorPlan(keep=True, adopt=None if store.identity else here)
    return VectorPlan(
        keep=False,
        adopt=None if store.identity or store.has_vectors else target,
        note=f"The bundle's vectors were made by {source or 'an unknown model'} and this store "
        f"holds those of {here or 'an unknown model'}, so they are dropped.",
    )


def _reembed(
    source: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    target: EmbeddingMetadata | None,
) -> VectorPlan:
    if target is None:
        raise UsageError("No embedding model is set to embed with. Set TRIBAL_EMBEDDING_PROVIDER.")
    if store.identity is None and not store.has_vectors:
        adopt: EmbeddingMetadata | None = target
    elif store.identity is None or not target.is_compatible_with(store.identity):
        raise UsageError(
            f"The vectors here were made by {store.identity or 'a model that nobody recorded'}, "
            f"and {target} is set to embed with. Set that model, or move all memories to the new "
            "one first, with tribal_reembed (all=true)."
        )
    else:
        adopt = None
    alike = source is not None and source.is_compatible_with(target)
    return VectorPlan(keep=alike and dimensions == target.dimensions, adopt=adopt)


def _keep(
    known: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    here: EmbeddingMetadata | None,
    *,
    compatible: bool,
) -> VectorPlan:
    if not store.has_vectors:
        return VectorPlan(keep=True, adopt=known)
    if store.dimensions != dimensions:
        raise UsageError(
            f"The bundle's vectors have {dimensions} dimensions and the store's "
            f"{store.count - store.pending:,} have {store.dimensions}; one collection can't hold "
            'both. Use embedding_strategy "auto" or "drop", or import into another collection.'
        )
    if compatible:
        return VectorPlan(keep=True)
    return VectorPlan(
        keep=True,
        note=f"Vectors of {known or 'an unknown model'} were kept beside those of "
        f"{here or 'an unknown model'}: searches compare what can't be compared.",
    )
