"""Makes new vectors for the entries of an import, batch by batch, before the store is touched."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.importing.vectors import VectorPlan
from tribal_mcp.stores.base import MemoryStore


@dataclass(slots=True)
class NewVectors:
    """Which entries of a bundle get a new vector, and from which model.

    Attributes:
        store: a memory that it holds already, with a vector of its model, is not embedded again.
        plan: which vectors of the bundle stay.
        work: makes the others.
        dry_run: nothing is embedded; placeholder vectors are counted instead.
        made: the ids of the entries that got one.
    """

    store: MemoryStore
    plan: VectorPlan
    work: Work
    dry_run: bool
    made: set[str] = field(default_factory=set)

    async def of(self, batch: Sequence[Item]) -> list[Item]:
        """The batch, each entry with a vector, except where the model refuses its text."""
        ready = [self.plan.arriving(i) if isinstance(i, MemoryEntry) else i for i in batch]
        bare = [e for e in ready if isinstance(e, MemoryEntry) and e.embedding is None]
        here = await self.store.get_many([entry.id for entry in bare])
        vectors: dict[str, tuple[Vector | None, str | None]] = {}
        missing: list[MemoryEntry] = []
        for entry in bare:
            known = here.get(entry.id)
            if known and self._is_of_model(known) and known.same_but_for_vector(entry):
                vectors[entry.id] = known.embedding, own_model(known)
            else:
                missing.append(entry)
        new = (
            [self._placeholder] * len(missing) if self.dry_run else await self.work.vectors(missing)
        )
        self.made = {e.id for e, vector in zip(missing, new, strict=True) if vector is not None}
        vectors |= {e.id: (vector, None) for e, vector in zip(missing, new, strict=True)}
        return [
            with_vector(item, *vectors[item.id])
            if isinstance(item, MemoryEntry) and item.id in vectors
            else item
            for item in ready
        ]

    def _is_of_model(self, known: MemoryEntry) -> bool:
        return known.embedding is not None and not self.plan.is_other(known)

    @property
    def _placeholder(self) -> Vector:
        import numpy as np

        vector = np.ones(self.work.embedder.identity.dimensions, dtype=np.float32)
        vector.flags.writeable = False
        return vector
