"""Store to bundle: what an export contains, and the stream of it into a file."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

import anyio.to_thread

from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import WRITE_BATCH, BundleWriter
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import (
    SELECTION,
    UNKNOWN_MODEL,
    EmbeddingManifest,
    EmbeddingMetadata,
)
from tribal_mcp.portability.memory import from_microseconds, microseconds
from tribal_mcp.services.context import Watch
from tribal_mcp.services.exporting.since import Changed, Since
from tribal_mcp.services.left_out import describe_undated
from tribal_mcp.services.links import with_related
from tribal_mcp.services.other_models import describe_other_models
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.base import BATCH, EVERYTHING, MemoryStore, StoreState, in_parts
from tribal_mcp.text import counted, memories

DEFAULT_LIMIT = 100_000
"""Memories in a bundle that is held in memory, unless the caller sets another limit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which memories to export.

    Attributes:
        filters: by tags and dates of creation.
        since: of those, the ones that changed.
        limit: how many at most.
        include_related: also all memories that those link to, directly or through others.
    """

    filters: ExportFilter = EVERYTHING
    since: Since | None = None
    limit: int | None = None
    include_related: bool = False

    def in_words(self) -> str:
        """The selection as a phrase, without related memories."""
        return self.filters.in_words() + (self.since.in_words() if self.since else "")


@dataclass(slots=True)
class Export:
    """What one export contains: fixed before the first memory is read.

    Attributes:
        selection: which memories were asked for.
        ids: of the memories, in the order in which they are written.
        manifest: the head of the bundle.
        at: the time of the export.
        deleted: the tombstones: when each memory was deleted, in microseconds UTC.
        related: memories that are included only because others link to them.
        truncated: whether the limit left some out.
        notes: sentences for the user.
        screen: what searches the memories for secrets.
    """

    selection: Selection
    ids: list[str]
    manifest: EmbeddingManifest
    at: str
    deleted: dict[str, int] = field(default_factory=dict)
    related: int = 0
    truncated: bool = False
    notes: list[str] = field(default_factory=list)
    screen: Screen | None = None
    without_vector: int = 0
    dangling: int = 0
    undated: int = 0

    @classmethod
    async def plan(
        cls,
        store: MemoryStore,
        model: EmbeddingMetadata | None,
        selection: Selection,
        watch: Watch = Watch(),  # noqa: B008 - immutable
        *,
        reproducible: bool = False,
        screen: Screen | None = None,
    ) -> Self:
        """Ask the store for the ids, and for the model of its vectors.

        A filter is over tags and dates of creation, which a tombstone has not: a filtered export
        has no tombstones, unless it is incremental.

        Args:
            store: where the memories are; within a session.
            model: the model of its vectors, if the store has not recorded it.
            selection: which memories.
            watch: follows the comparison with an earlier bundle.
            reproducible: the same memories give the same bundle: ordered by id, and dated by the
                newest of them.
            screen: searches the memories for secrets.

        Raises:
            UsageError: the limit is below 1, or the model has other dimensions than the vectors.
            Stopped: `watch` stopped it.
        """
        limit = selection.limit
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; use a positive number, or None for no limit.")
        state = await store.state()
        embedding, notes = _model_of(state, model)
        selected = await _selected(store, selection, watch, screen)
        ids, matching = selected.ids, len(selected.ids)
        notes = [*state.notes, *notes, *selected.notes]
        notes += await describe_undated(store, selection.filters)
        if selection.include_related:
            ids = await with_related(store, ids)
        related = len(ids) - matching
        at = datetime.now(UTC).isoformat()
        dated = at
        if reproducible:
            ids.sort()
            dated = await _newest(store, ids, selected.deleted)
            if state.identity is None:
                embedding = replace(embedding, created_at="")
        truncated = limit is not None and len(ids) > limit
        if truncated:
            notes.append(
                f"{memories(len(ids))} match and the limit is {limit:,}, so the last ones are not "
                "in the bundle. Raise the limit, stream, or export by date."
            )
            log.warning(notes[-1])
            del ids[limit:]
        partial = selection.filters or truncated
        words = selection.filters.in_words()
        other_models, others = await describe_other_models(store, ids, embedding)
        if screen:
            other_models, others = screen.values(other_models), list(map(screen.masked, others))
        notes += others
        manifest = EmbeddingManifest(
            embedding,
            len(ids),
            dated,
            extra=(selection.since.about() if selection.since else {})
            | ({SELECTION: (screen.masked(words) if screen else words)[:500]} if partial else {})
            | other_models,
        )
        deleted = selected.deleted
        return cls(selection, ids, manifest, at, deleted, related, truncated, notes, screen)

    def in_words(self) -> str:
        """The selection as a phrase, without secrets if the export searches for them."""
        words = self.selection.in_words()
        return self.screen.masked(words) if self.screen else words

    @property
    def tombstones(self) -> list[Tombstone]:
        """The deleted memories, in the order of their deletion."""
        # A store without a lock may have deleted a memory since its id was listed.
        deleted = self.deleted.keys() - self.ids
        return [Tombstone(i, moment) for moment, i in sorted((self.deleted[i], i) for i in deleted)]

    async def write(
        self,
        store: MemoryStore,
        writer: BundleWriter,
        watch: Watch = Watch(),  # noqa: B008 - immutable
    ) -> Integrity:
        """Stream the memories to `writer`; call it within the session of `plan`.

        Raises:
            Stopped: `watch` stopped it.
            StoreDamaged: memories that were listed can't be read.
            SecretsFound: there are secrets, and the bundle is to have none.
        """
        links = Counter[str]()
        done, total = 0, len(self.ids)
        async for batch in store.read_lines(self.ids, WRITE_BATCH):
            lines = batch.lines
            if self.screen:
                lines = await anyio.to_thread.run_sync(self.screen.lines, lines)
            await anyio.to_thread.run_sync(writer.write_lines, lines)
            self.without_vector += batch.without_vector
            self.undated += batch.undated
            links.update(batch.links)
            done += len(batch.lines)
            watch.report(done, total)
            if watch.stop():
                raise Stopped(f"Stopped after {done:,} of {memories(total)}. No file was written.")
        for memory_id in self.ids:
            links.pop(memory_id, None)
        self.dangling = links.total()
        if self.dangling:
            self.notes.append(
                f"{counted(self.dangling, 'link names a memory', 'links name memories')} that the "
                "bundle does not contain (supersedes, related_to)."
            )
        if self.screen:
            await anyio.to_thread.run_sync(self.conclude, self.screen)
        await anyio.to_thread.run_sync(writer.write_deleted, self.tombstones)
        return writer.finish()

    def conclude(self, screen: Screen) -> None:
        """Search the tombstones, too, and say what was found.

        Raises:
            SecretsFound: there are secrets, and the bundle is to have none.
        """
        screen.deleted(one.id for one in self.tombstones)
        screen.conclude()
        self.without_vector += screen.lost_vectors
        self.notes += screen.notes()


async def _newest(store: MemoryStore, ids: Sequence[str], deleted: Mapping[str, int]) -> str:
    """The time of the newest change of these memories and tombstones; 1970 if there is none."""
    newest = max(deleted.values(), default=0)
    for part in in_parts(ids, BATCH):
        found = await store.get_many(part, vectors=False)
        updated = (microseconds(entry.updated_at) for entry in found.values())
        newest = max(newest, max(updated, default=newest))
    latest = microseconds(datetime.max.replace(tzinfo=UTC))  # a date with an offset may be later
    return from_microseconds(min(newest, latest)).isoformat()


async def _selected(
    store: MemoryStore, selection: Selection, watch: Watch, screen: Screen | None
) -> Changed:
    """The memories and tombstones of a selection, without related memories."""
    ids = await store.list_ids(selection.filters)
    filtered = bool(selection.filters)
    if selection.since:
        return await selection.since.changed(
            store, ids, filtered=filtered, watch=watch, screen=screen
        )
    return Changed(ids, {} if filtered else await store.forgotten())


def _model_of(
    state: StoreState, given: EmbeddingMetadata | None
) -> tuple[EmbeddingMetadata, list[str]]:
    """The model for the manifest, and notes about it.

    Raises:
        UsageError: it has other dimensions than the store's vectors.
    """
    model = state.identity or given
    if model is None:
        note = "No model is recorded for these vectors, so the bundle names it as unknown."
        return EmbeddingMetadata(UNKNOWN_MODEL, state.dimensions), [note] * state.has_vectors
    if state.dimensions not in (0, model.dimensions) and state.has_vectors:
        raise UsageError(
            f"embedding_metadata names {model}, but the store's vectors have {state.dimensions} "
            "dimensions. Name the model that made them."
        )
    if given and state.identity and not given.is_compatible_with(state.identity):
        return model, [
            f"The vectors were made by {state.identity}, not by {given}; the bundle says so."
        ]
    return model, []
