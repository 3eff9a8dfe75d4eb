"""Makes vectors anew for the memories that have none; `moving` does for all by another model.

Nobody waits for a model: texts are embedded outside the store's session, and what has changed
meanwhile is left for the next time. Stopped or killed at any point, the same call goes on where it
was.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH, Embedder, TextRefused
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.embedders import fits
from tribal_mcp.services.other_models import others_in
from tribal_mcp.services.results import DETAILS, ReembedResult
from tribal_mcp.stores.base import Change, StoreState
from tribal_mcp.stores.restore_points import OpenPoint
from tribal_mcp.stores.search import SearchableStore

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
        refused: the ids of the memories whose text the model refuses.
    """

    embedder: Embedder
    result: ReembedResult
    on_progress: Callable[[int, int, str], None] = lambda _done, _total, _left: None
    stop: Callable[[], bool] = lambda: False
    refused: set[str] = field(default_factory=set)
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
            self.refused.add(entry.id)
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
    if everything and not fits(work.embedder, await store.state()):
        ids = await store.list_ids()
    else:
        others = await others_in(store, work.embedder.identity) if everything else {}
        ids = [*others, *await store.list_pending()]
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
        with suppress(TextRefused):
            await work.embedder.embed(first[:1])  # a model may have to be loaded
        begin = time.monotonic()
        with suppress(TextRefused):
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
