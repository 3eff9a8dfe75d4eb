"""Store to bundle: what an export takes, and the stream of it into a file."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import anyio.to_thread

from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import WRITE_BATCH, BundleWriter
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.services.exporting.since import Since
from tribal_mcp.services.links import with_related
from tribal_mcp.services.other_models import about_mix
from tribal_mcp.stores.base import MemoryStore

DEFAULT_LIMIT = 100_000
"""Memories in a bundle that is held in memory, unless the caller says otherwise."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Export:
    """What one export takes: fixed before the first memory is read.

    Attributes:
        ids: of the memories, in the order in which they are written.
        manifest: the head of the bundle.
        deleted: the tombstones: when each was forgotten, in microseconds UTC.
        related: memories that were taken only because others name them.
        truncated: whether a limit left some out.
        notes: sentences for the user.
    """

    ids: list[str]
    manifest: EmbeddingManifest
    deleted: dict[str, int] = field(default_factory=dict)
    related: int = 0
    truncated: bool = False
    notes: list[str] = field(default_factory=list)
    without_vector: int = 0
    dangling: int = 0
    undated: int = 0

    @classmethod
    async def plan(
        cls,
        store: MemoryStore,
        embedding_metadata: EmbeddingMetadata | None,
        filters: ExportFilter,
        limit: int | None = None,
        *,
        since: Since | None = None,
        include_related: bool = False,
        on_compared: Callable[[int, int], None] = lambda _done, _total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Ask the store for the ids, and for the model of its vectors.

        A filter is over tags and dates of creation, which a tombstone has not: a filtered export
        has none, unless `since` says which.

        Args:
            store: where the memories are; within a session.
            embedding_metadata: the model of its vectors, if it does not know that itself.
            filters: which memories.
            limit: how many at most.
            since: of them, those that changed.
            include_related: and all that they name, directly or by way of others.
            on_compared: told (memories, memories in all) while they are held against an earlier
                bundle.
            stop: asked then whether to stop.

        Raises:
            UsageError: the limit is none, or the model has other dimensions than the vectors.
            Stopped: `stop` said so.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; give a positive number, or None for no limit.")
        state = await store.state()
        embedding = state.identity or embedding_metadata
        notes = list(state.notes)
        if embedding is None:
            embedding = EmbeddingMetadata(UNKNOWN_MODEL, state.dimensions)
            if state.has_vectors:
                notes.append(
                    "Nobody recorded which model made these vectors, so the bundle says unknown."
                )
        elif state.dimensions not in (0, embedding.dimensions) and state.has_vectors:
            raise UsageError(
                f"embedding_metadata says {embedding}, but the store's vectors have "
                f"{state.dimensions} dimensions. Describe the model that made them."
            )
        elif (
            embedding_metadata
            and state.identity
            and not embedding_metadata.is_compatible_with(state.identity)
        ):
            notes.append(
                f"The vectors were made by {state.identity}, not by {embedding_metadata}; "
                "the bundle says so."
            )
        ids = await store.list_ids(filters)
        deleted: dict[str, int] = {}
        if since:
            changed = await since.changed(
                store, ids, filtered=bool(filters), on_progress=on_compared, stop=stop
            )
            ids, deleted = changed.ids, changed.deleted
            notes += changed.notes
        elif not filters:
            deleted = await store.forgotten()
        matching = len(ids)
        if include_related:
            ids = await with_related(store, ids)
        related = len(ids) - matching
        truncated = limit is not None and len(ids) > limit
        if truncated:
            notes.append(
                f"{len(ids):,} memories match and the limit is {limit:,}: the last of them are "
                "not in the bundle. Raise the limit, stream, or split by date."
            )
            log.warning(notes[-1])
            del ids[limit:]
        others, said = await about_mix(store, ids, embedding)
        notes += said
        manifest = EmbeddingManifest(
            embedding,
            len(ids),
            datetime.now(UTC).isoformat(),
            extra=(since.about() if since else {}) | others,
        )
        return cls(ids, manifest, deleted, related, truncated, notes)

    @property
    def tombstones(self) -> list[Tombstone]:
        """What was forgotten, in the order in which it was."""
        # Where no lock holds, others may have forgotten a memory since its id was listed.
        gone = self.deleted.keys() - self.ids
        return [Tombstone(i, moment) for moment, i in sorted((self.deleted[i], i) for i in gone)]

    async def write(
        self,
        store: MemoryStore,
        writer: BundleWriter,
        on_progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Integrity:
        """Stream the memories to `writer`; call it within the session of `plan`.

        Raises:
            Stopped: `stop` said so.
            StoreDamaged: memories that were listed can't be read.
        """
        links = Counter[str]()
        done = 0
        async for batch in store.read_lines(self.ids, WRITE_BATCH):
            await anyio.to_thread.run_sync(writer.write_lines, batch.lines)
            self.without_vector += batch.without_vector
            self.undated += batch.undated
            links.update(batch.links)
            done += len(batch.lines)
            if on_progress:
                on_progress(done, len(self.ids))
            if stop():
                raise Stopped(
                    f"Stopped after {done:,} of {len(self.ids):,} memories; no file was written."
                )
        for memory_id in self.ids:
            links.pop(memory_id, None)
        self.dangling = links.total()
        if self.dangling:
            self.notes.append(
                f"Links (supersedes, related_to) to memories that are not in the bundle: "
                f"{self.dangling:,}."
            )
        if self.undated:
            self.notes.append(
                f"{self.undated:,} memories have no known date and stand as 1970; another program "
                "wrote them."
            )
        await anyio.to_thread.run_sync(writer.write_deleted, self.tombstones)
        return writer.finish()
