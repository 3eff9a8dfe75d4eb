"""Remembering and forgetting: one memory more, or some fewer, and what it means for the others."""

import time
from collections.abc import Sequence

import anyio.to_thread

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.embedders import EmbedderOf, fits, meaning_of
from tribal_mcp.services.memory_results import ForgetResult, RememberResult
from tribal_mcp.stores.base import BATCH, Change
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

_NAMED = 5

MOST = 100
"""Memories that are forgotten at once, and ids of any kind that a result names."""


async def remember(
    store: SearchableStore, embedder_of: EmbedderOf, entry: MemoryEntry
) -> RememberResult:
    """Store a memory, with a vector if one can be had.

    A text that is here already, and that nothing corrects, is not stored twice. An entry that
    supersedes another is, unless just that was done before.

    Args:
        store: where it goes.
        embedder_of: gives the embedder of a store; one without a model takes over that of the
            embedder.
        entry: the memory, without a vector.

    Raises:
        UsageError: it supersedes a memory that is not here.
        StoreError: the store can't be written to.
    """
    meaning = meaning_of(await store.state(), embedder_of)
    vector, why_not = await meaning.vector(entry.content)
    async with store.session(writing=True):
        twin = await _twin(store, entry)
        if twin is not None:
            return _known(twin)
        notes = await _about_links(store, entry)
        state = await store.state()
        if vector is not None and meaning.embedder is not None:
            if not fits(meaning.embedder, state):
                vector, why_not = None, "The store has just been moved to another model."
            elif state.identity is None:
                await store.set_identity(meaning.embedder.identity)
        entry.embedding = vector
        await store.upsert([entry])
    if why_not:
        notes.insert(0, f"It has no vector: it is found by words, not by meaning. {why_not}")
    return RememberResult(
        id=entry.id,
        created=True,
        has_vector=vector is not None,
        supersedes=entry.supersedes or "",
        notes=notes,
        next_step="tribal_recall finds it. Should it change, remember the new text with "
        "supersedes=this id.",
    )


async def _twin(store: SearchableStore, entry: MemoryEntry) -> MemoryEntry | None:
    """A memory that says the same, and that nothing corrects."""
    ids = (await store.find_text(entry.content))[-BATCH:]
    corrected = await store.corrections(ids) if ids else {}
    for memory_id, known in (await store.get_many(ids)).items():
        if memory_id not in corrected and entry.supersedes in (None, known.supersedes):
            return known
    return None


def _known(twin: MemoryEntry) -> RememberResult:
    tagged = f", tagged {', '.join(map(repr, twin.tags))}" if twin.tags else ""
    return RememberResult(
        id=twin.id,
        created=False,
        has_vector=twin.embedding is not None,
        supersedes=twin.supersedes or "",
        notes=[f"The same text is here already{tagged}. Nothing was changed."],
        next_step="To give it other tags or another context, remember it with supersedes=this id.",
    )


async def _about_links(store: SearchableStore, entry: MemoryEntry) -> list[str]:
    """What to know about the memories that the entry names.

    Raises:
        UsageError: it supersedes a memory that is not here.
    """
    notes: list[str] = []
    here = await store.existing(list({*entry.related_to, *filter(None, [entry.supersedes])}))
    if entry.supersedes is not None:
        if entry.supersedes not in here:
            gone = entry.supersedes in await store.forgotten([entry.supersedes])
            raise UsageError(
                f"supersedes names {entry.supersedes!r:.80}, which "
                f"{'was forgotten' if gone else 'is no memory here'}. Nothing was stored. Take the "
                "id from tribal_recall, or leave supersedes out."
            )
        others = (await store.corrections([entry.supersedes])).get(entry.supersedes, [])
        if others:
            notes.append(
                f"{entry.supersedes!r:.80} was corrected before, by {others[-1]!r:.80}; both "
                "corrections stand. If that one is out of date too, supersede it as well."
            )
    missing = [i for i in entry.related_to if i not in here]
    if missing:
        notes.append(f"related_to names what is not here: {_some(missing)}.")
    return notes


async def forget(
    store: SearchableStore,
    ids: Sequence[str],
    points: RestorePoints | None = None,
    *,
    dry_run: bool = False,
) -> ForgetResult:
    """Delete memories; a tombstone of each stays, so that an import knows that it was deleted.

    Args:
        store: where they are.
        ids: theirs, `MOST` at the most.
        points: the store's restore points: what goes is put there first.
        dry_run: only say what would happen.

    Raises:
        UsageError: no id is given, or too many.
        StoreError: the store can't be written to.
    """
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        raise UsageError("Nothing to forget. Give the ids of memories, from tribal_recall.")
    if len(wanted) > MOST:
        raise UsageError(f"{len(wanted):,} ids are too many at once; give {MOST:,} at the most.")
    async with store.session(writing=not dry_run):
        here = await store.get_many(wanted)
        gone = [i for i in wanted if i in here]
        older = sorted({e.supersedes for e in here.values() if e.supersedes} - here.keys())
        corrections = await store.corrections(gone) if gone else {}
        others = await store.corrections(older) if older else {}
        existing = await store.existing(older)
        buried = await store.forgotten([i for i in wanted if i not in here])
        result = ForgetResult(
            forgotten=gone,
            not_here=[i for i in wanted if i not in here],
            corrected_by=[c for i in gone for c in corrections.get(i, ()) if c not in here][:MOST],
            current_again=[i for i in older if i in existing and here.keys() >= set(others[i])],
            dry_run=dry_run,
        )
        if not dry_run and here:
            result.restore_point = await _delete(store, here, points)
    if buried:
        result.notes.append(f"Forgotten before: {_some(list(buried))}.")
    result.next_step = _after_forgetting(result)
    return result


async def _delete(
    store: SearchableStore, here: dict[str, MemoryEntry], points: RestorePoints | None
) -> str:
    """Delete the memories; the name of the restore point that holds them."""
    change = Change(forget=dict.fromkeys(here, time.time_ns() // 1000))
    point = points.begin("forget", "by id", model=await store.identity()) if points else None
    if point is None:
        await store.apply(change)
        return ""
    await anyio.to_thread.run_sync(point.save, here, change)
    await store.apply(change)
    return await anyio.to_thread.run_sync(point.finish, {"forgotten": len(here)})


def _after_forgetting(result: ForgetResult) -> str:
    if not result.forgotten:
        return "No memory has one of those ids. Take ids from tribal_recall."
    steps: list[str] = []
    if result.current_again:
        steps.append(
            f"{_some(result.current_again)} had been corrected by what "
            f"{'would go' if result.dry_run else 'is gone'}, and counts as true again. Forget it "
            "too, if it is not."
        )
    if result.dry_run:
        steps.append("Nothing was deleted. Run it again with dry_run=false to do this.")
    else:
        steps.append(
            f'To have them back: tribal_undo with point="{result.restore_point}".'
            if result.restore_point
            else "To have them back, import a bundle that holds them."
        )
    return " ".join(steps)


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(f"{i!r:.80}" for i in ids[:_NAMED])
    return shown if len(ids) <= _NAMED else f"{shown} and {len(ids) - _NAMED:,} more"
