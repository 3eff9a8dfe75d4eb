"""Changes the embedding model of all memories, and undoes that.

The memories are copied, with new vectors, into a second collection, which replaces the first once
it is complete. The first is kept, and undoing swaps it back. The collections and the restore points
that describe them change in one step. A change that was stopped or killed is continued by repeating
it.
"""

import hashlib
import math
import re
from collections.abc import Sequence

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH
from tribal_mcp.errors import StoreError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.maintenance.missing_vectors import embed_missing
from tribal_mcp.services.results.store import UndoResult
from tribal_mcp.stores.base import Change, MemoryStore, in_parts
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.restore_points import OpenPoint, Point, RestorePoints
from tribal_mcp.stores.search import SearchableStore
from tribal_mcp.text import memories

_BESIDE = re.compile(r"\.reembedding-[0-9a-f]{8}|\.before-\d{8}-\d{6}-\d{6}")
"""The suffixes of the collections that a change of model makes."""

_SAME_MODEL_AGAIN = NextStep("To embed all memories again, run {call}.", "reembed", {"all": True})


async def change_model(store: SearchableStore, work: Work, point: OpenPoint) -> None:
    """Give every memory a vector of another model; the change takes effect at the end, as a whole.

    Raises:
        UsageError: the store is not a folder, and its vectors are of another model.
        EmbedderError: the model fails; the vectors made so far are kept for the next run.
    """
    if not isinstance(store, ChromaStore):
        if await _has_model(store, work):
            await _complete(store, work, point)
            return
        raise UsageError(
            "Only a Chroma folder can change the model of all memories. Copy them into a folder, "
            "change the model there, and copy them back.",
            NextStep("To copy them, run {call}.", "copy", {"target": ...}),
        )
    second = store.beside(_second_name(store.name, work.embedder.identity))
    ids, outdated = await store.list_ids(), math.inf
    work.result.total = total = len(ids)
    while not await _has_model(store, work):
        for start in range(0, len(ids), BATCH):
            if await _has_model(store, work):
                break
            await _copy(ids[start : start + BATCH], store, second, work)
            done = min(start + BATCH, len(ids))
            work.done(total - len(ids) + done, total)
        async with store.session(writing=True):
            if await _has_model(store, work):
                break
            ids = await _outdated(store, second, work)  # others may have written meanwhile
            if BATCH < len(ids) < outdated:
                outdated, total = len(ids), await store.count()
                continue  # too many to embed while others wait for the lock
            await _copy(ids, store, second, work)
            await _finish(store, second, work, point)
            return
    await second.drop()  # another process has completed the same change
    await _complete(store, work, point)


async def _complete(store: SearchableStore, work: Work, point: OpenPoint) -> None:
    """Embed what has no vector, or one of another model, in a store that has the model already."""
    work.result.notes.append(
        f"The store's model is {work.embedder.identity} already, so only missing vectors and those "
        "of other models were made."
    )
    await embed_missing(store, work, point, others=True)


def _second_name(name: str, model: EmbeddingMetadata) -> str:
    """The name of the second collection: changes to two models at once don't share it."""
    digest = hashlib.sha256(str(model).casefold().encode()).hexdigest()
    return f"{name}.reembedding-{digest[:8]}"


async def _has_model(store: MemoryStore, work: Work) -> bool:
    model = await store.identity()
    return model is not None and model.is_compatible_with(work.embedder.identity)


async def _outdated(store: ChromaStore, second: ChromaStore, work: Work) -> list[str]:
    """The memories whose copies are missing or outdated."""
    ids = await store.list_ids()
    return [
        entry.id for part in in_parts(ids) for entry, _ in await _to_copy(part, store, second, work)
    ]


async def _to_copy(
    ids: Sequence[str], store: ChromaStore, second: ChromaStore, work: Work
) -> list[tuple[MemoryEntry, MemoryEntry | None]]:
    """The memories whose copies are missing or outdated, each with the outdated copy."""
    here, there = await store.get_many(ids), await second.get_many(ids)
    pairs = [(entry, there.get(entry.id)) for entry in here.values()]
    return [
        (entry, other)
        for entry, other in pairs
        if other is None
        or not other.same_but_for_vector(entry)
        or (other.embedding is None and entry.id not in work.refused)
    ]


async def _copy(ids: Sequence[str], store: ChromaStore, second: ChromaStore, work: Work) -> None:
    """Embed and copy memories; the vector of a text that was copied before is used again."""
    pairs = await _to_copy(ids, store, second, work)
    known = [with_vector_of_text(entry, other) for entry, other in pairs]
    entries = [entry for entry in known if entry.embedding is None]
    vectors = await work.vectors(entries) if entries else []
    fresh = [with_vector(e, v) for e, v in zip(entries, vectors, strict=True)]
    await second.apply(Change([*(e for e in known if e.embedding is not None), *fresh]))
    work.result.embedded += sum(vector is not None for vector in vectors)


async def _finish(store: ChromaStore, second: ChromaStore, work: Work, point: OpenPoint) -> None:
    """Verify the count and swap the collections; within a writing session."""
    ids = await store.list_ids()
    await second.apply(Change(erase=sorted(set(await second.list_ids()) - set(ids))))
    if (copied := await second.count()) != len(ids):
        raise StoreError(
            f"{memories(len(ids))} should have been embedded, but the new collection has "
            f"{copied:,}. Nothing was changed.",
            NextStep("Check the store with {call}, then repeat this.", "check"),
        )
    work.result.total = len(ids)
    if ids:
        await second.set_identity(work.embedder.identity)
        await _swap(store, second, point)
        return
    await second.drop()
    point.note_identity(await store.identity(), work.embedder.identity)
    await anyio.to_thread.run_sync(point.save, {}, Change())
    await store.set_identity(work.embedder.identity)


async def _swap(
    store: ChromaStore, other: ChromaStore, point: OpenPoint, undone: Point | None = None
) -> None:
    """Replace the store's collection by another, and keep only the last one for undoing.

    The names and the restore points change in one step; nothing has changed before that. The
    collections that are no longer kept are dropped last.
    """
    about = point.about
    about.kept, about.complete = f"{store.name}.before-{about.id}", True
    about.kept_ids, about.kept_count = await store.collection_ids(), await store.count()
    others = {each.id: each for each in point.points.all() if each.id != about.id}
    changed = [about]
    in_effect = False
    while undone and (undone := others.pop(undone.id, None)):
        undone.undone, undone.kept = not in_effect, about.kept if in_effect else ""
        undone.kept_ids, undone.kept_count = about.kept_ids, about.kept_count
        undone.emptied = False
        changed.append(undone)
        if undone.operation != "undo":
            break
        in_effect = not in_effect  # undoing an undo puts back into effect what that had undone
        undone = others.get(undone.source)
    for each in others.values():
        if each.kept:
            each.kept, each.emptied = "", True
            changed.append(each)
    await store.replace_by(other, about.kept, changed)
    await anyio.to_thread.run_sync(point.save, {}, Change())
    for name in await store.names_beside(_BESIDE):
        if name != about.kept:
            await store.beside(name).drop()


async def swap_back(
    store: MemoryStore, points: RestorePoints, about: Point, *, dry_run: bool = False
) -> UndoResult:
    """Swap back the collection that was kept when the model was changed.

    Memories that were added, changed or deleted since stay so. They have no vector of the old
    model, unless their text is the same as then.

    Raises:
        UsageError: the collection is no longer kept.
    """
    result = UndoResult(
        point=about.id, operation=about.operation, source=about.source, dry_run=dry_run
    )
    if about.undone or not isinstance(store, ChromaStore):
        result.next_steps = [NextStep("Everything is already as it was before that operation.")]
        return result
    old = store.beside(about.kept)
    async with store.session(writing=not dry_run):
        await _refuse_changed(old, about)
        if not dry_run:
            about.kept_count = None  # an undo that is stopped from here on can be repeated
            points.save(about)
        ids, before = await store.list_ids(), set(await old.list_ids())
        for part in in_parts(ids):
            now, then = await store.get_many(part), await old.get_many(part)
            newer = [
                with_vector_of_text(entry, then.get(entry.id))
                for entry in now.values()
                if entry.id not in then or not then[entry.id].same_but_for_vector(entry)
            ]
            result.changed_since += len(newer)
            result.put_back += len(now) - len(newer)
            if not dry_run:
                await old.apply(Change(newer))
        if dry_run:
            step = "Nothing was changed. To undo the operation, run {call}."
            result.next_steps = [NextStep(step, "undo", {"point": about.id})]
            return result
        await old.apply(Change(erase=sorted(before - set(ids))))
        point = points.begin("undo", about.id, model=await store.identity())
        await _swap(store, old, point, about)
    result.restore_point = point.finish({"put_back": result.put_back})
    result.next_steps = [undone(result.restore_point)]
    return result


async def _refuse_changed(old: ChromaStore, about: Point) -> None:
    """Refuse to swap back a collection that is not as it was kept.

    Raises:
        UsageError: it is not.
    """
    if not about.kept or not {*about.kept_ids} <= {*await old.collection_ids()}:
        raise UsageError(
            f"The vectors from before {about.id} are no longer kept, because the model was changed "
            "again later. Nothing was changed. To return to that model, set it and embed all "
            "memories again.",
            _SAME_MODEL_AGAIN,
        )
    if about.kept_count not in {None, count := await old.count()}:
        raise UsageError(
            f"The kept collection {about.kept!r} should hold {memories(about.kept_count or 0)} and "
            f"holds {count:,}, so another program has changed it. Nothing was changed. To return "
            "to that model, set it and embed all memories again.",
            _SAME_MODEL_AGAIN,
        )


def undone(restore_point: str) -> NextStep:
    """What to do after an undo."""
    return NextStep("Undone. To reverse this, run {call}.", "undo", {"point": restore_point})


def with_vector_of_text(entry: MemoryEntry, then: MemoryEntry | None) -> MemoryEntry:
    """The memory with the vector of its earlier version; without one if the text has changed."""
    if then is None or then.content != entry.content:
        return with_vector(entry, None)
    return with_vector(entry, then.embedding, own_model(then))
