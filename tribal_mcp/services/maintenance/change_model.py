"""Moves all memories to another model, and back.

Everything goes into a collection beside the old one, which takes its place once it is whole; the
old one is kept, and undoing puts it back. The collections and the restore points that tell of them
change in one step. Stopped or killed at any point, the same call goes on where it was.
"""

import hashlib
import math
import re
from collections.abc import Sequence

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH
from tribal_mcp.errors import StoreError, UsageError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.services.maintenance.reembed import Work, embed_missing
from tribal_mcp.services.results import UndoResult
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.restore_points import OpenPoint, Point, RestorePoints
from tribal_mcp.stores.search import SearchableStore

_BESIDE = re.compile(r"\.reembedding-[0-9a-f]{8}|\.before-\d{8}-\d{6}-\d{6}")
"""How the collections are named that a move makes, behind the name of the store's own."""


async def move_all(store: SearchableStore, work: Work, point: OpenPoint) -> None:
    """Give every memory a vector of another model, all at once in the end.

    Raises:
        UsageError: the store is no folder, and its vectors are of another model.
        EmbedderError: the model can't be asked any more; what is done is kept for the next time.
    """
    if not isinstance(store, ChromaStore):
        if await _is_moved(store, work):
            await _complete(store, work, point)
            return
        raise UsageError(
            "Moving all memories to another model takes a folder. Copy them into one with "
            "`tribal-mcp copy`, move them there, and copy them back."
        )
    coming = store.beside(_name_of_move(store.name, work.embedder.identity))
    ids, behind = await store.list_ids(), math.inf
    work.result.total = total = len(ids)
    while not await _is_moved(store, work):
        for start in range(0, len(ids), BATCH):
            if await _is_moved(store, work):
                break
            await _bring(ids[start : start + BATCH], store, coming, work)
            done = min(start + BATCH, len(ids))
            work.done(total - len(ids) + done, total)
        async with store.session(writing=True):
            if await _is_moved(store, work):
                break
            ids = await _behind(store, coming, work)  # others may have written meanwhile
            if BATCH < len(ids) < behind:
                behind, total = len(ids), await store.count()
                continue  # nobody is to wait for so many
            await _bring(ids, store, coming, work)
            await _end_move(store, coming, work, point)
            return
    await coming.drop()  # what another process has brought while this one did
    await _complete(store, work, point)


async def _complete(store: SearchableStore, work: Work, point: OpenPoint) -> None:
    """Make what is missing, or of another model, in a store that has the model already."""
    work.result.notes.append(
        f"The vectors are of {work.embedder.identity} already; missing ones were made, and those "
        "of other models anew."
    )
    await embed_missing(store, work, mixed=point)


def _name_of_move(name: str, model: EmbeddingMetadata) -> str:
    """The collection for a move to that model: two moves at once don't share it."""
    digest = hashlib.sha256(str(model).casefold().encode()).hexdigest()
    return f"{name}.reembedding-{digest[:8]}"


async def _is_moved(store: MemoryStore, work: Work) -> bool:
    model = await store.identity()
    return model is not None and model.is_compatible_with(work.embedder.identity)


async def _behind(store: ChromaStore, coming: ChromaStore, work: Work) -> list[str]:
    ids = await store.list_ids()
    return [
        entry.id
        for start in range(0, len(ids), BATCH)
        for entry, _ in await _to_bring(ids[start : start + BATCH], store, coming, work)
    ]


async def _to_bring(
    ids: Sequence[str], store: ChromaStore, coming: ChromaStore, work: Work
) -> list[tuple[MemoryEntry, MemoryEntry | None]]:
    """Those that are not there yet as they are here, and what is there instead."""
    here, there = await store.get_many(ids), await coming.get_many(ids)
    pairs = [(entry, there.get(entry.id)) for entry in here.values()]
    return [
        (entry, other)
        for entry, other in pairs
        if other is None
        or not other.same_but_for_vector(entry)
        or (other.embedding is None and entry.id not in work.refused)
    ]


async def _bring(ids: Sequence[str], store: ChromaStore, coming: ChromaStore, work: Work) -> None:
    """Embed those that are not there yet as they are here; a text that is there is not again."""
    pairs = await _to_bring(ids, store, coming, work)
    known = [as_text_was(entry, other) for entry, other in pairs]
    entries = [entry for entry in known if entry.embedding is None]
    vectors = await work.vectors(entries) if entries else []
    fresh = [with_vector(e, v) for e, v in zip(entries, vectors, strict=True)]
    await coming.apply(Change([*(e for e in known if e.embedding is not None), *fresh]))
    work.result.embedded += sum(vector is not None for vector in vectors)


async def _end_move(store: ChromaStore, coming: ChromaStore, work: Work, point: OpenPoint) -> None:
    """Count, and switch; the lock is in hand, and all is there."""
    ids = await store.list_ids()
    await coming.apply(Change(erase=sorted(set(await coming.list_ids()) - set(ids))))
    if await coming.count() != len(ids):
        raise StoreError(
            f"{len(ids):,} memories were to be moved and {await coming.count():,} are there. "
            "Nothing was switched. Run `tribal-mcp check`, and the same again."
        )
    work.result.total = len(ids)
    if ids:
        await coming.set_identity(work.embedder.identity)
        await _switch(store, coming, point)
        return
    await coming.drop()
    point.note_identity(await store.identity(), work.embedder.identity)
    await anyio.to_thread.run_sync(point.save, {}, Change())
    await store.set_identity(work.embedder.identity)


async def _switch(
    store: ChromaStore, other: ChromaStore, point: OpenPoint, undone: Point | None = None
) -> None:
    """Have one collection in the place of the other, and of those before only the last one kept.

    The names and what the restore points say change in one step; until then, all is as it was.
    What is not kept any more is dropped last.
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
        in_effect = not in_effect  # taking back an undoing brings back what that had undone
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


async def switch_back(
    store: MemoryStore, points: RestorePoints, about: Point, *, dry_run: bool = False
) -> UndoResult:
    """Put the collection back that a move to another model had kept.

    What has come in, changed or been forgotten since stays so. It has no vector of the old model,
    unless its text is what it was.

    Raises:
        UsageError: it is not kept any more.
    """
    result = UndoResult(
        point=about.id, operation=about.operation, source=about.source, dry_run=dry_run
    )
    if about.undone or not isinstance(store, ChromaStore):
        result.next_step = "All is as it was before that operation."
        return result
    old = store.beside(about.kept)
    async with store.session(writing=not dry_run):
        if not about.kept or not {*about.kept_ids} <= {*await old.collection_ids()}:
            raise UsageError(
                f"What was here before {about.id} is not kept any more: another move has come "
                "after it. Nothing was changed. Move to that model again with tribal_reembed "
                "(all=true)."
            )
        if about.kept_count not in {None, count := await old.count()}:
            raise UsageError(
                f"{about.kept_count:,} memories were kept in the collection {about.kept!r}, and "
                f"{count:,} are there: others have changed it. Nothing was changed. Move to that "
                "model again with tribal_reembed (all=true)."
            )
        if not dry_run:
            about.kept_count = None  # stopped from here on, the same goes on
            points.save(about)
        ids, before = await store.list_ids(), set(await old.list_ids())
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            now, then = await store.get_many(part), await old.get_many(part)
            newer = [
                as_text_was(entry, then.get(entry.id))
                for entry in now.values()
                if entry.id not in then or not then[entry.id].same_but_for_vector(entry)
            ]
            result.changed_since += len(newer)
            result.put_back += len(now) - len(newer)
            if not dry_run:
                await old.apply(Change(newer))
        if dry_run:
            result.next_step = "Nothing was changed. Run it again with dry_run=false to do this."
            return result
        await old.apply(Change(erase=sorted(before - set(ids))))
        point = points.begin("undo", about.id, model=await store.identity())
        await _switch(store, old, point, about)
    result.restore_point = point.finish({"put_back": result.put_back})
    result.next_step = f"Done. tribal_undo with point={result.restore_point!r} takes this back."
    return result


def as_text_was(entry: MemoryEntry, then: MemoryEntry | None) -> MemoryEntry:
    """The memory with the vector that its text had; without one if that has changed since."""
    if then is None or then.content != entry.content:
        return with_vector(entry, None)
    return with_vector(entry, then.embedding, own_model(then))
