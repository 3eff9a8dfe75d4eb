"""What becomes of a bundle's vectors: compares its model with the store's.

For a memory that names the model of its own vector, that model counts, whatever the bundle says.
"""

from dataclasses import dataclass

from tribal_mcp.errors import UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.services.embedders import CHANGE_MODEL, UNRECORDED
from tribal_mcp.services.results.bundles import ImportSummary
from tribal_mcp.stores.base import StoreState
from tribal_mcp.text import counted


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What becomes of a bundle's vectors.

    Attributes:
        keep: import the vectors of the bundle's model; else they are dropped.
        adopt: the model that the store takes over with them.
        note: the reason, for the user; empty if there is nothing to explain.
        here: the store's model from then on: vectors of entries that name it match.
        keep_others: import the vectors of entries that name another model, too.
        named: the model that entries of the bundle's model name from now on, if the store has
            another one.
    """

    keep: bool
    adopt: EmbeddingMetadata | None = None
    note: str = ""
    here: EmbeddingMetadata | None = None
    keep_others: bool = False
    named: str | None = None

    def arriving(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry as the store is to get it."""
        own = own_model(entry)
        if own is None:
            if not self.keep:
                return with_vector(entry, None)
            return entry if self.named is None else self._naming(entry, self.named)
        if self._is_here(entry, own):
            # Its model is the store's, so the entry need not name it any longer.
            return entry if self.keep and self.named is None else self._naming(entry, None)
        return entry if self.keep_others else with_vector(entry, None)

    def is_other(self, entry: MemoryEntry) -> bool:
        """Whether another model than the store's made its vector."""
        own = own_model(entry)
        return own is not None and not self._is_here(entry, own)

    def _is_here(self, entry: MemoryEntry, own: str) -> bool:
        assert entry.embedding is not None  # noqa: S101 - only an entry with a vector names a model
        made_by = EmbeddingMetadata(own, entry.embedding.size)
        return self.here is not None and made_by.is_compatible_with(self.here)

    @staticmethod
    def _naming(entry: MemoryEntry, model: str | None) -> MemoryEntry:
        return entry if entry.embedding is None else with_vector(entry, entry.embedding, model)

    def summarize(self, summary: ImportSummary) -> str:
        """What became of the entries that name a model themselves; empty if there were none."""
        if not self.keep and summary.vectors_kept:
            kept = counted(summary.vectors_kept, "vector", "vectors")
            return f"Kept {kept} made by {self.here}."
        if summary.vectors_of_others:
            others = counted(
                summary.vectors_of_others, "imported vector is", "imported vectors are"
            )
            return (
                f"{others} of other models than {self.here or 'the rest'}. Only keyword search "
                "finds those memories, until all memories are embedded again."
            )
        return ""


def plan_vectors(
    source: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    target: EmbeddingMetadata | None,
    strategy: ReembeddingStrategy,
) -> VectorPlan:
    """Compare the bundle's model with the store's.

    Args:
        source: the model that the bundle names.
        dimensions: of the vectors in it; 0 if there are none.
        store: its state. The model that it recorded comes before `target`.
        target: the model that the store embeds with, according to the caller.
        strategy: what to do with the vectors.

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
        return VectorPlan(keep=True, adopt=known, here=known, keep_others=True)
    if compatible and (store.dimensions in (0, dimensions) or not store.has_vectors):
        return VectorPlan(
            keep=True, adopt=None if store.identity else here, here=here, keep_others=True
        )
    return VectorPlan(
        keep=False,
        adopt=None if store.identity or store.has_vectors else target,
        note=f"The bundle's vectors were made by {source or 'an unknown model'}, and this store's "
        f"by {here or 'an unknown model'}, so the bundle's are dropped.",
        here=here,
    )


def _reembed(
    source: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    target: EmbeddingMetadata | None,
) -> VectorPlan:
    if target is None:
        raise UsageError("No embedding model is configured. Set TRIBAL_EMBEDDING_PROVIDER=default.")
    if store.identity is None and not store.has_vectors:
        adopt: EmbeddingMetadata | None = target
    elif store.identity is None or not target.is_compatible_with(store.identity):
        raise UsageError(
            f"The stored vectors were made by {store.identity or UNRECORDED}, and the configured "
            f"model is {target}. Set TRIBAL_EMBEDDING_MODEL to the stored model, or change the "
            "model of all memories first.",
            CHANGE_MODEL,
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
    expected = here.dimensions if here is not None and here is not store.identity else 0
    if not store.has_vectors and expected not in (0, dimensions):
        raise UsageError(
            f"The bundle's vectors have {dimensions} dimensions, and the model of the empty store, "
            f"{here}, makes others. Drop the bundle's vectors, or configure their model."
        )
    if not store.has_vectors and (known or store.identity is None):
        return VectorPlan(keep=True, adopt=known, here=known, keep_others=True)
    if store.dimensions != dimensions:
        raise UsageError(
            f"The bundle's vectors have {dimensions} dimensions and the store's "
            f"{store.count - store.pending:,} have {store.dimensions}; one collection can't hold "
            "both. Drop the bundle's vectors, or import into another collection.",
            NextStep(
                "To drop them, run {call}.",
                "import",
                {"input_path": ..., "embedding_strategy": "drop"},
            ),
        )
    if compatible:
        return VectorPlan(keep=True, here=here, keep_others=True)
    nameless = None if store.identity is None else UNKNOWN_MODEL
    return VectorPlan(
        keep=True,
        here=here,
        keep_others=True,
        named=known.model_name if known else nameless,
        note=f"The vectors of {known or 'an unknown model'} were kept beside those of "
        f"{here or 'an unknown model'}. Each of those memories names its model.",
    )
