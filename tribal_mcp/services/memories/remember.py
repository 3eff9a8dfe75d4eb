"""The use case: store one memory."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import anyio.to_thread

from tribal_mcp.embedding.providers import embedder_of
from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import MODEL_CHANGED, EmbedderOf, embedder_for, fits
from tribal_mcp.services.requests import RememberRequest
from tribal_mcp.services.results.memories import RememberResult
from tribal_mcp.stores.base import BATCH
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore
from tribal_mcp.stores.session_points import save_new

NAMED = 5
"""Ids that a sentence names."""
_WITHOUT_EMBEDDING = (
    "Stored without an embedding: keyword search finds it, semantic search does not."
)


async def run_remember(context: Context, request: RememberRequest) -> RememberResult:
    """Store the memory of the request."""
    entry = entry_of(request, context.settings.instance, context.limits)
    async with context.store() as store:
        points = RestorePoints.of(store, context.settings.restore_points)
        return await remember(
            store, partial(embedder_of, context.settings), entry, points, said=context.said
        )


def entry_of(request: RememberRequest, instance: str, limits: Limits) -> MemoryEntry:
    """The memory of the request, with a new id, created now.

    Raises:
        UsageError: a value is empty, out of range or over a limit.
    """
    if not request.content.strip():
        raise UsageError("The content is empty. Give the text to remember.")
    if not all(tag.strip() for tag in request.tags):
        raise UsageError("A tag is empty. Leave it out.")
    source = MemorySource.CORRECTION if request.supersedes else MemorySource.USER_EXPLICIT
    fields = request.model_dump() | {
        "id": str(uuid.uuid4()),
        "context": request.context or None,
        "supersedes": request.supersedes or None,
        "source_type": request.source_type or source.value,
        "source_instance": instance,
        "tags": list(dict.fromkeys(request.tags)),
        "created_at": datetime.now(UTC).isoformat(),
    }
    try:
        entry = entry_from_dict(fields, limits)
        dump_entry(entry)  # refuses a lone surrogate, which JSON can hold
    except EntryError as error:
        raise UsageError(f"This memory can't be stored: {error}.") from None
    return entry


async def remember(
    store: SearchableStore,
    embedder_of: EmbedderOf,
    entry: MemoryEntry,
    points: RestorePoints | None = None,
    *,
    said: set[str] | None = None,
) -> RememberResult:
    """Store a memory, with a vector if the store's embedder can make one.

    A text that is stored already, and that nothing corrects, is not stored again. A correction is,
    unless the same correction is stored already.

    Args:
        store: where it goes.
        embedder_of: gives the embedder of a store; a store without a recorded model takes over that
            of the embedder.
        entry: the memory, without a vector.
        points: the store's restore points, to make it an operation that can be undone.
        said: what was said about the settings before, and need not be repeated.

    Raises:
        UsageError: it supersedes a memory that is not in the store.
        StoreError: the store can't be written to.
    """
    found = embedder_for(await store.state(), embedder_of, said)
    vector, why_not = await found.vector(entry.content)
    async with store.session(writing=True):
        duplicate = await _duplicate(store, entry)
        if duplicate is not None:
            return _already_stored(duplicate)
        notes = await _about_links(store, entry)
        state = await store.state()
        adopted = None
        if vector is not None and found.embedder is not None:
            if not fits(found.embedder, state):
                vector, why_not = None, MODEL_CHANGED
            elif state.identity is None:
                adopted = found.embedder.identity
        entry.embedding = vector
        if points:
            await anyio.to_thread.run_sync(save_new, points, entry, state.identity, adopted)
        if adopted:
            await store.set_identity(adopted)
        await store.upsert([entry])
    if why_not and not why_not.said:
        notes.insert(0, f"{_WITHOUT_EMBEDDING} {why_not.sentence}")
    correction = {"content": ..., "supersedes": entry.id}
    return RememberResult(
        id=entry.id,
        created=True,
        has_vector=vector is not None,
        supersedes=entry.supersedes or "",
        notes=notes,
        next_steps=[
            *why_not.next_steps,
            NextStep("To correct it later, run {call}.", "remember", correction),
        ],
    )


async def _duplicate(store: SearchableStore, entry: MemoryEntry) -> MemoryEntry | None:
    """A memory with the same text that nothing corrects."""
    ids = (await store.find_text(entry.content))[-BATCH:]
    corrected = await store.corrections(ids) if ids else {}
    for memory_id, known in (await store.get_many(ids)).items():
        if memory_id not in corrected and entry.supersedes in (None, known.supersedes):
            return known
    return None


def _already_stored(duplicate: MemoryEntry) -> RememberResult:
    tags = duplicate.tags
    tagged = f", tagged {', '.join(map(repr, tags))}" if tags else ""
    return RememberResult(
        id=duplicate.id,
        created=False,
        has_vector=duplicate.embedding is not None,
        supersedes=duplicate.supersedes or "",
        notes=[f"The same text is already stored{tagged}. Nothing was changed."],
        next_steps=[
            NextStep(
                "To give it other tags or another context, run {call}.",
                "remember",
                {"content": ..., "tags": ..., "supersedes": duplicate.id},
            )
        ],
    )


async def _about_links(store: SearchableStore, entry: MemoryEntry) -> list[str]:
    """Notes on the memories that the entry links to.

    Raises:
        UsageError: it supersedes a memory that is not in the store.
    """
    notes: list[str] = []
    here = await store.existing(list({*entry.related_to, *filter(None, [entry.supersedes])}))
    if entry.supersedes is not None:
        if entry.supersedes not in here:
            deleted = entry.supersedes in await store.forgotten([entry.supersedes])
            raise UsageError(
                f"There is no memory {entry.supersedes!r:.80} to supersede"
                f"{': it was deleted' if deleted else ''}. Nothing was stored. Correct the id, or "
                "leave it out.",
                NextStep("To find the id, run {call}.", "recall", {"query": ...}),
            )
        others = (await store.corrections([entry.supersedes])).get(entry.supersedes, [])
        if others:
            notes.append(
                f"{entry.supersedes!r:.80} already has a correction, {others[-1]!r:.80}. Both "
                "corrections count. If the earlier one is outdated too, supersede it as well."
            )
    missing = [i for i in entry.related_to if i not in here]
    if missing:
        notes.append(f"Some related memories do not exist: {some_ids(missing)}.")
    return notes


def some_ids(ids: Sequence[str], total: int | None = None) -> str:
    """The first few of the ids, and how many more there are of the total."""
    shown = ", ".join(f"{i!r:.80}" for i in ids[:NAMED])
    total = len(ids) if total is None else total
    return shown if total <= NAMED else f"{shown} and {total - NAMED:,} more"
