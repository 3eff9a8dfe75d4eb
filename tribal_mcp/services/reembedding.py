"""Makes vectors anew: of the memories that have none, or of all of them by another model.

Nobody waits for a model: texts are embedded outside the store's session, and what has changed
meanwhile is left for the next time. With another model everything goes into a collection beside
the old one, which takes its place once it is whole; the old one is kept, and undoing puts it back.
Stopped or killed at any point, the same call goes on where it was.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio.to_thread

from tribal_mcp.embedding.base import Embedder, TextRefused
from tribal_mcp.errors import Stopped, StoreError, UsageError
from tribal_mcp.portability.embedding_metadata import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, Vector
from tribal_mcp.portability.mixes import own_model, with_vector
from tribal_mcp.services.meaning import fits
from tribal_mcp.services.mixes import others_in
from tribal_mcp.services.results import DETAILS, ReembedResult, UndoResult
from tribal_mcp.stores.base import Change, MemoryStore, StoreState
from tribal_mcp.stores.chroma import ChromaStore
from tribal_mcp.stores.restore_points import OpenPoint, Point, RestorePoints
from tribal_mcp.stores.searching import SearchableStore

BATCH = 64
"""Memories that are embedded and acknowledged together."""

_BESIDE = re.compile(r"\.reembedding-[0-9a-f]{8}|\.before-\d{8}-\d{6}-\d{6}")
"""How the collections are named that a move makes, behind the name of the store's own."""
_PROBE = 8
_CHARACTERS_PER_TOKEN = 4
_MINUTE_S = 60


@dataclass(slots=True)
class Work:
    """One re-embedding: by whom, how far it is, and what came of it.

    Attributes:
        embedder: makes the vectors.
        result: counts.
        on_progress: told (memories done, in all, how long it may take still).
        stop: asked after each batch whether to stop there.
    """

    embedder: Embedder
    result: ReembedResult
    on_progress: Callable[[int, int, str], None] = lambda _done, _total, _left: None
    stop: Callable[[], bool] = lambda: False
    _begin: float = field(default_factory=time.monotonic)

    def done(self, done: int, total: int) -> None:
        """Say that so many memories have been looked at.

        Raises:
            Stopped: nobody wants the rest.
        """
        left = (time.monotonic() - self._begin) / done * (total - done) if done else 0.0
        self.on_progress(done, total, in_words(left))
        if self.stop() and done < total:
            raise Stopped(
                f"Stopped after {done:,} of {total:,} memories. The same again goes on there."
            )

    async def vectors(self, entries: Sequence[MemoryEntry]) -> list[Vector | None]:
        """The vector of each; None where the model refuses its text."""
        texts = [entry.content for entry in entries]
        try:
            return list(await self.embedder.embed(texts))
        except TextRefused:
            return [await self._one(entry) for entry in entries]

    async def _one(self, entry: MemoryEntry) -> Vector | None:
        try:
            [vector] = await self.embedder.embed([entry.content])
        except TextRefused as error:
            self.result.failed += 1
            if len(self.result.failures) < DETAILS:
                self.result.failures.append(f"{entry.id}: {error}")
            return None
        return vector


def in_words(seconds: float) -> str:
    """About how long that is."""
    if seconds < _MINUTE_S:
        return f"{max(1, round(seconds))} s"
    if seconds < _MINUTE_S**2:
        return f"{round(seconds / _MINUTE_S)} min"
    return f"{seconds / _MINUTE_S**2:.1f} h"


async def preview(store: SearchableStore, work: Work, *, everything: bool, paid: bool) -> None:
    """Say how many there are to do, how long that may take, and what it may cost."""
    ids = await (store.list_ids() if everything else store.list_pending())
    result = work.result
    result.total = len(ids)
    characters = 0
    first: list[str] = []
    async for texts in store.read_texts(ids):
        characters += sum(map(len, texts.values()))
        first = first or list(texts.values())[:_PROBE]
    if paid:
        result.about_tokens = characters // _CHARACTERS_PER_TOKEN
    elif first:
        await work.embedder.embed(first[:1])  # a model may have to be loaded
        begin = time.monotonic()
        await work.embedder.embed(first)
        result.about_seconds = round((time.monotonic() - begin) / len(first) * len(ids), 1)


async def embed_missing(store: SearchableStore, work: Work, mixed: OpenPoint | None = None) -> None:
    """Give the memories without a vector one.

    Args:
        store: where they are.
        work: makes the vectors.
        mixed: those with a vector of another model get one, too; the old ones are saved here.

    Raises:
        UsageError: the model is not that of the store's vectors.
        EmbedderError: it can't be asked any more; what is done is done.
    """
    refuse_other_model(work.embedder, await store.state())
    others = await others_in(store, work.embedder.identity) if mixed else {}
    ids = [*others, *await store.list_pending()]
    work.result.total = len(ids)
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        entries = [
            entry
            for entry in (await store.get_many(part)).values()
            if entry.embedding is None or (entry.id in others and own_model(entry) is not None)
        ]
        made = dict(zip([e.id for e in entries], await work.vectors(entries), strict=True))
        async with store.session(writing=True):
            refuse_other_model(work.embedder, state := await store.state())
            now = await store.get_many(list(made))
            fresh = [
                with_vector(entry, made[entry.id])
                for entry in entries
                if made[entry.id] is not None and now.get(entry.id) == entry
            ]
            if fresh and state.identity is None:
                await store.set_identity(work.embedder.identity)
            change = Change(fresh)
            if mixed and fresh:
                before = {entry.id: now[entry.id] for entry in fresh}
                await anyio.to_thread.run_sync(mixed.save, before, change)
            await store.apply(change)
        work.result.embedded += len(fresh)
        work.done(start + len(part), len(ids))


def refuse_other_model(embedder: Embedder, state: StoreState) -> None:
    """Hold the model against that of the store's vectors.

    Raises:
        UsageError: they can't stand beside each other.
    """
    if not fits(embedder, state):
        made_by = state.identity or "a model that nobody recorded"
        raise UsageError(
            f"The vectors here were made by {made_by}, and {embedder.identity} is set. Set that "
            "model in TRIBAL_EMBEDDING_MODEL, or move all memories to the new one with all=true."
        )


async def move_all(
    store: MemoryStore, work: Work, points: RestorePoints | None, point: OpenPoint
) -> None:
    """Give every memory a vector of another model, all at once in the end.

    Raises:
        UsageError: the store is no folder.
        EmbedderError: the model can't be asked any more; what is done is kept for the next time.
    """
    if not isinstance(store, ChromaStore):
        raise UsageError(
            "Moving all memories to another model takes a folder. Copy them into one with "
            "`tribal-mcp copy`, move them there, and copy them back."
        )
    coming = store.beside(_name_of_move(store.name, work.embedder.identity))
    ids = await store.list_ids()
    work.result.total = len(ids)
    for start in range(0, len(ids), BATCH):
        if await _is_moved(store, work):
            break
        await _bring(ids[start : start + BATCH], store, coming, work)
        work.done(start + len(ids[start : start + BATCH]), len(ids))
    async with store.session(writing=True):
        if await _is_moved(store, work):
            await coming.drop()  # what another process has brought while this one did
        else:
            await _end_move(store, coming, work, points, point)
            return
    work.result.notes.append(
        f"The vectors are of {work.embedder.identity} already; missing ones were made, and those "
        "of other models anew."
    )
    await embed_missing(store, work, mixed=point)


def _name_of_move(name: str, model: EmbeddingMetadata) -> str:
    """The collection for a move to that model: two moves at once don't share it."""
    digest = hashlib.sha256(str(model).casefold().encode()).hexdigest()
    return f"{name}.reembedding-{digest[:8]}"


async def _is_moved(store: ChromaStore, work: Work) -> bool:
    model = await store.identity()
    return model is not None and model.is_compatible_with(work.embedder.identity)


async def _end_move(
    store: ChromaStore,
    coming: ChromaStore,
    work: Work,
    points: RestorePoints | None,
    point: OpenPoint,
) -> None:
    """Bring what others have written meanwhile, count, and switch; the lock is in hand."""
    ids = await store.list_ids()
    for start in range(0, len(ids), BATCH):
        await _bring(ids[start : start + BATCH], store, coming, work)
    await coming.apply(Change(erase=sorted(set(await coming.list_ids()) - set(ids))))
    await coming.set_identity(work.embedder.identity)
    if await coming.count() != len(ids):
        raise StoreError(
            f"{len(ids):,} memories were to be moved and {await coming.count():,} are there. "
            "Nothing was switched. Run `tribal-mcp check`, and the same again."
        )
    work.result.total = len(ids)
    await _switch(store, coming, points, point)


async def _bring(ids: Sequence[str], store: ChromaStore, coming: ChromaStore, work: Work) -> None:
    """Embed those that are not there yet as they are here."""
    here, there = await store.get_many(ids), await coming.get_many(ids)
    entries = [
        entry
        for entry in here.values()
        if entry.id not in there or not there[entry.id].same_but_for_vector(entry)
    ]
    vectors = await work.vectors(entries) if entries else []
    await coming.apply(Change([with_vector(e, v) for e, v in zip(entries, vectors, strict=True)]))
    work.result.embedded += sum(vector is not None for vector in vectors)


async def _switch(
    store: ChromaStore, coming: ChromaStore, points: RestorePoints | None, point: OpenPoint
) -> None:
    """Have one collection in the place of the other, and of those before only the last one kept.

    What is dropped is dropped last: until the names have changed hands, all is as it was.
    """
    point.about.kept = kept = f"{store.name}.before-{point.about.id}"
    point.about.kept_ids = await store.collection_ids()
    await anyio.to_thread.run_sync(point.save, {}, Change())
    await store.replace_by(coming, kept)
    for name in await store.names_beside(_BESIDE):
        if name != kept:
            await store.beside(name).drop()
    for earlier in points.all() if points else []:
        if earlier.kept and earlier.id != point.about.id:
            earlier.kept, earlier.emptied = "", True
            points.save(earlier)  # type: ignore[union-attr]  # there is one


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
    nothing_to_do = "All is as it was before that operation."
    if about.undone or not isinstance(store, ChromaStore):
        result.next_step = nothing_to_do
        return result
    old = store.beside(about.kept)
    async with store.session(writing=not dry_run):
        if about.kept_ids and (not about.kept or await old.collection_ids() != about.kept_ids):
            if await store.collection_ids() != about.kept_ids:
                raise UsageError(
                    f"What was here before {about.id} is not kept any more: another move has come "
                    "after it. Nothing was changed. Move to that model again with tribal_reembed "
                    "(all=true)."
                )
            result.next_step = nothing_to_do  # it was stopped before the names changed hands
            if not dry_run:
                about.undone = True
                points.save(about)
            return result
        ids, before = await store.list_ids(), set(await old.list_ids())
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            now, then = await store.get_many(part), await old.get_many(part)
            newer = [
                _as_text_was(entry, then.get(entry.id))
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
        await _switch(store, old, points, point)
    about.undone, about.kept = True, ""
    points.save(about)
    result.restore_point = point.finish({"put_back": result.put_back})
    result.next_step = f"Done. tribal_undo with point={result.restore_point!r} takes this back."
    return result


def _as_text_was(entry: MemoryEntry, then: MemoryEntry | None) -> MemoryEntry:
    """The memory with the vector that its text had; without one if that has changed since."""
    if then is None or then.content != entry.content:
        return with_vector(entry, None)
    return with_vector(entry, then.embedding, own_model(then))


def next_step(result: ReembedResult, *, everything: bool) -> str:
    """What to do after it."""
    if result.dry_run:
        return "Nothing was changed. Run it again with dry_run=false to do this."
    if result.failed:
        return "Memories that the model refused have no vector; shorten them, or leave them so."
    if not result.total:
        return "Every memory has a vector. all=true moves them to another model."
    undo = " tribal_undo takes it back." if everything else ""
    return f"Done: tribal_recall finds them by meaning.{undo}"
