"""Embeds the memories that have no vector; `change_model` embeds all memories with another model.

No session of the store waits for a model: texts are embedded outside of it, and memories that
change meanwhile are left for the next run. A run that was stopped or killed is continued by
repeating it.
"""

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH, Embedder
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.memory import own_model, with_vector
from tribal_mcp.services.embedders import Work, fits, other_model
from tribal_mcp.services.other_models import other_models_in
from tribal_mcp.stores.base import Change, StoreState
from tribal_mcp.stores.restore_points import OpenPoint
from tribal_mcp.stores.search import SearchableStore


async def embed_missing(
    store: SearchableStore, work: Work, point: OpenPoint | None = None, *, others: bool = False
) -> None:
    """Embed the memories that have no vector.

    Args:
        store: where they are.
        work: makes the vectors.
        point: saves what was before.
        others: also embed memories with a vector of another model.

    Raises:
        UsageError: the model is not that of the store's vectors.
        EmbedderError: it fails; the batches before are done.
    """
    refuse_other_model(work.embedder, await store.state())
    by_others = await other_models_in(store, work.embedder.identity) if others else {}
    ids = [*by_others, *await store.list_pending()]
    work.result.total = len(ids)
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        entries = [
            entry
            for entry in (await store.get_many(part)).values()
            if entry.embedding is None or (entry.id in by_others and own_model(entry) is not None)
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
            change = Change(fresh)
            adopted = work.embedder.identity if fresh and state.identity is None else None
            if point and fresh:
                if adopted:
                    point.note_identity(None, adopted)
                before = {entry.id: now[entry.id] for entry in fresh}
                await anyio.to_thread.run_sync(point.save, before, change)
            if adopted:
                await store.set_identity(adopted)
            await store.apply(change)
        work.result.embedded += len(fresh)
        work.done(start + len(part), len(ids))


def refuse_other_model(embedder: Embedder, state: StoreState) -> None:
    """Compare the embedder's model with that of the store's vectors.

    Raises:
        UsageError: they are not compatible.
    """
    if not fits(embedder, state):
        reason = other_model(embedder, state)
        raise UsageError(reason.sentence, *reason.next_steps)
