"""What becomes of a bundle's vectors: its model is held against the store's.

A memory that names the model of its vector itself goes by that one, whatever the bundle says.
"""

from dataclasses import dataclass

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.services.results import ImportSummary
from tribal_mcp.stores.base import StoreState


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What becomes of a bundle's vectors.

    Attributes:
        keep: those of the bundle's model come along; else they are dropped.
        adopt: the model that the store takes over with them.
        note: why, for the user; empty where it goes without saying.
        here: the store's model from then on: vectors of entries that name it match.
        mix: vectors of entries that name another model come along, too.
        named: what entries of the bundle's model name from now on, where the store has another.
    """

    keep: bool
    adopt: EmbeddingMetadata | None = None
    note: str = ""
    here: EmbeddingMetadata | None = None
    mix: bool = False
    named: str | None = None

    def arriving(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry as the store is to get it."""
        own = own_model(entry)
        if own is None:
            if not self.keep:
                return with_vector(entry, None)
            return entry if self.named is None else self._naming(entry, self.named)
        if self._is_here(entry, own):
            # Of the store's model, which is not the bundle's, it is one like all others now.
            return entry if self.keep and self.named is None else self._naming(entry, None)
        return entry if self.mix else with_vector(entry, None)

    def is_other(self, entry: MemoryEntry) -> bool:
        """Whether its vector is of another model than the store's."""
        own = own_model(entry)
        return own is not None and not self._is_here(entry, own)

    def _is_here(self, entry: MemoryEntry, own: str) -> bool:
        assert entry.embedding is not None  # noqa: S101 - only of a vector a model is named
        made_by = EmbeddingMetadata(own, entry.embedding.size)
        return self.here is not None and made_by.is_compatible_with(self.here)

    @staticmethod
    def _naming(entry: MemoryEntry, model: str | None) -> MemoryEntry:
        return entry if entry.embedding is None else with_vector(entry, entry.embedding, model)

    def afterthought(self, summary: ImportSummary) -> str:
        """What the entries that name a model themselves came to, for the user; empty if nothing."""
        if not self.keep and summary.vectors_kept:
            return (
                f"The bundle is a mix: {summary.vectors_kept:,} of its vectors are of {self.here} "
                "and were kept."
            )
        if summary.vectors_of_others:
            return (
                f"{summary.vectors_of_others:,} of the vectors are of other models than "
                f"{self.here or 'the others'}: those memories are found by words only, until "
                "tribal_reembed (all=true) makes their vectors anew."
            )
        return ""


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
        return VectorPlan(keep=True, adopt=known, here=known, mix=True)
    if compatible and (store.dimensions in (0, dimensions) or not store.has_vectors):
        return VectorPlan(keep=True, adopt=None if store.identity else here, here=here, mix=True)
    return VectorPlan(
        keep=False,
        adopt=None if store.identity or store.has_vectors else target,
        note=f"The bundle's vectors were made by {source or 'an unknown model'} and this store "
        f"holds those of {here or 'an unknown model'}, so they are dropped.",
        here=here,
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
    return VectorPlan(keep=alike and dimensions == target.dimensions, adopt=adopt, here=target)


def _keep(
    known: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    here: EmbeddingMetadata | None,
    *,
    compatible: bool,
) -> VectorPlan:
    if not store.has_vectors and (known or store.identity is None):
        return VectorPlan(keep=True, adopt=known, here=known, mix=True)
    if store.dimensions != dimensions:
        raise UsageError(
            f"The bundle's vectors have {dimensions} dimensions and the store's "
            f"{store.count - store.pending:,} have {store.dimensions}; one collection can't hold "
            'both. Use embedding_strategy "auto" or "drop", or import into another collection.'
        )
    if compatible:
        return VectorPlan(keep=True, here=here, mix=True)
    nameless = None if store.identity is None else UNKNOWN_MODEL
    return VectorPlan(
        keep=True,
        here=here,
        mix=True,
        named=known.model_name if known else nameless,
        note=f"Vectors of {known or 'an unknown model'} were kept beside those of "
        f"{here or 'an unknown model'}; each of the memories says so.",
    )
