"""The vectors with which versions are published."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import own_model
from tribal_mcp.portability.replication.records import content_of, line_with_vector
from tribal_mcp.services.sync.state import Unpublished
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.search import KnowsChanges


@dataclass(slots=True)
class Vectors:
    """Adds the vectors of a store to versions of its memories.

    A memory that this sync has seen, and nobody has written since, is not read again.

    Attributes:
        store: the store.
        mark: what it held when the sync looked for changes, as in `KnowsChanges`; empty if that is
            not known.
    """

    store: MemoryStore
    mark: str
    _written: set[str] = field(default_factory=set)
    """The memories written since."""
    _models: dict[str, str] | None = None
    """The models that memories name for their vectors."""

    async def added(
        self, rows: Sequence[Unpublished], most: int, made_by: EmbeddingMetadata | None
    ) -> list[bytes]:
        """The lines of versions, with the vectors of their texts.

        Args:
            rows: the versions.
            most: a line must be shorter, in bytes; one that is not has no vector.
            made_by: the store's model, as the file names it; if it has changed, there is no vector.
        """
        async with self.store.session():
            if await self.store.identity() != made_by:
                return [row.line for row in rows]
            seen = await self._seen(rows)
            vectors = {}
            if isinstance(self.store, KnowsChanges) and seen:
                vectors = await self.store.vectors(list(seen))
            others = [row.id for row in rows if seen.get(row.id) != row.stamp]
            entries = await self.store.get_many(others) if others else {}
        lines = []
        for row in rows:
            vector, model = None, None
            if seen.get(row.id) == row.stamp:
                vector, model = vectors.get(row.id), (self._models or {}).get(row.id)
            elif (entry := entries.get(row.id)) and entry.content == content_of(row.line):
                vector, model = entry.embedding, own_model(entry)
            line = row.line if vector is None else line_with_vector(row.line, vector, model)
            lines.append(line if len(line) < most else row.line)
        return lines

    async def _seen(self, rows: Sequence[Unpublished]) -> dict[str, str]:
        """The stamps of those of the versions that the store still has, by memory."""
        if not (isinstance(self.store, KnowsChanges) and self.mark):
            return {}
        self.mark, written = await self.store.changes(self.mark)
        if written is None:
            self.mark = ""
            return {}
        self._written |= written
        if self._models is None:
            models = await self.store.other_models()
            self._models = {i: name for i, name in models.items() if name.strip()}
        return {row.id: row.stamp for row in rows if row.is_shown and row.id not in self._written}
