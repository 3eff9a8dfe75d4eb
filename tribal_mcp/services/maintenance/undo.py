"""Takes back what an operation changed, from its restore point; and lists those that there are.

Undoing looks at what is there now: what is as before already is left alone. So it can be stopped,
killed and repeated, and it has a restore point of its own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice

import anyio.to_thread

from tribal_mcp.errors import Stopped, TribalError, UsageError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.maintenance.change_model import as_text_was, switch_back
from tribal_mcp.services.results import HistoryEntry, HistoryResult, UndoResult
from tribal_mcp.stores.base import STEP, Change, MemoryStore
from tribal_mcp.stores.restore_points import Held, OpenPoint, Point, RestorePoints, Saved, stamp


async def undo(
    store: MemoryStore,
    name: str = "",
    points: RestorePoints | None = None,
    *,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> UndoResult:
    """Bring the memories that an operation changed back to what they were before it.

    Args:
        store: where they are.
        name: the point; "" for the newest that is not itself an undoing.
        points: the store's restore points, if a setting of theirs is not the default.
        dry_run: say what would change, change nothing.
        on_progress: called with (memories done, memories in all) after each batch.
        stop: asked after each batch whether to stop there.

    Raises:
        UsageError: there is no such point, or its contents were removed.
        Stopped: `stop` said so; the same call again completes it.
    """
    begin = time.monotonic()
    points = points or RestorePoints.of(store)
    if points is None:
        raise UsageError("This store has no folder for restore points, so nothing can be undone.")
    async with store.session():  # a move that was killed in its last step is completed first
        about = await anyio.to_thread.run_sync(points.find, name)
    result = UndoResult(
        point=about.id, operation=about.operation, source=about.source, dry_run=dry_run
    )
    if about.kept_ids:
        return await switch_back(store, points, about, dry_run=dry_run)
    total = await anyio.to_thread.run_sync(lambda: sum(1 for _ in points.before(about)))
    model = await store.identity()
    point = None if dry_run else points.begin("undo", about.id, about.id, model=model)
    saved = points.before(about)
    done = 0
    with closing(point) if point else nullcontext():
        await _identity_back(store, about, point)  # that of vectors that are put back
        try:
            while batch := await anyio.to_thread.run_sync(_next, saved):
                async with store.session(writing=not dry_run):
                    fits = about.is_of(await store.identity())
                    change, before = await _plan(batch, store, result, vectors=fits)
                    if before and point:
                        await anyio.to_thread.run_sync(point.save, before, change)
                        await store.apply(change)
                done += len(batch)
                if on_progress:
                    on_progress(done, total)
                if stop() and done < total:
                    raise Stopped("Stopped.")
        except TribalError as error:
            so_far = (
                "Nothing was changed." if dry_run else f"{done:,} of {total:,} memories were done."
            )
            raise error.extended(f"{so_far} The same again completes it.") from error
        if point:
            await _identity_back(store, about, point)  # that of before vectors came in
            result.restore_point = await anyio.to_thread.run_sync(
                _finish, points, about, point, result
            )
    if not about.is_of(model):
        result.notes.append(
            "The store has moved to another model since, so what is put back has no vector. "
            "tribal_reembed gives it one."
        )
    result.duration_ms = round((time.monotonic() - begin) * 1000)
    result.next_step = _next_step(result)
    return result


def _next(saved: Iterator[Saved]) -> list[Saved]:
    return list(islice(saved, STEP))


async def _plan(
    batch: Sequence[Saved], store: MemoryStore, result: UndoResult, *, vectors: bool
) -> tuple[Change, dict[str, Held]]:
    ids = [saved.id for saved in batch]
    here: dict[str, Held] = {**await store.forgotten(ids)}
    here.update(await store.get_many(ids))
    entries: list[MemoryEntry] = []
    forget: dict[str, int] = {}
    erase: list[str] = []
    before: dict[str, Held] = {}
    for saved in batch:
        now, was = here.get(saved.id), saved.was
        if not vectors and isinstance(was, MemoryEntry):
            was = as_text_was(was, now if isinstance(now, MemoryEntry) else None)
        if _same(now, was):
            result.unchanged += 1
            continue
        before[saved.id] = now
        result.changed_since += stamp(now) != saved.now
        if isinstance(was, MemoryEntry):
            entries.append(was)
            result.put_back += isinstance(now, MemoryEntry)
            result.brought_back += not isinstance(now, MemoryEntry)
        elif was is not None:
            forget[saved.id] = was
            result.forgotten += 1
        else:
            erase.append(saved.id)
            result.removed += 1
    return Change(entries, forget, erase), before


def _same(now: Held, was: Held) -> bool:
    if isinstance(now, MemoryEntry) and isinstance(was, MemoryEntry):
        return now == was and dump_entry(now) == dump_entry(was)
    return now == was


async def _identity_back(store: MemoryStore, about: Point, point: OpenPoint | None) -> None:
    """Give the store the model again that it had, unless it holds vectors of the present one."""
    if about.identity is None or point is None:
        return
    before, after = (data and EmbeddingMetadata.from_dict(data) for data in about.identity)
    state = await store.state()
    if state.identity == after and not state.has_vectors:
        point.note_identity(after or None, before or None)
        await anyio.to_thread.run_sync(point.save, {}, Change())
        await store.set_identity(before or None)


def _finish(points: RestorePoints, about: Point, point: OpenPoint, result: UndoResult) -> str:
    about.undone = True
    points.save(about)
    if about.operation == "undo":  # what it had taken back is there again
        for other in points.all():
            if other.id == about.source:
                other.undone = False
                points.save(other)
    return point.finish(
        result.model_dump(include={"removed", "put_back", "brought_back", "forgotten"})
    )


def _next_step(result: UndoResult) -> str:
    changes = result.removed + result.put_back + result.brought_back + result.forgotten
    if not changes:
        return (
            "All is as it was before that operation. To take back an older one, name its restore "
            "point; `tribal-mcp history` lists them."
        )
    if result.dry_run:
        return "Nothing was changed. Run it again with dry_run=false to do this."
    return f"Done. tribal_undo with point={result.restore_point!r} takes this back."


def history(points: RestorePoints | None, memory_id: str = "") -> HistoryResult:
    """The operations that changed memories, the newest first.

    Args:
        points: the store's restore points.
        memory_id: only the operations that changed this memory.
    """
    found = [
        point
        for point in (points.all() if points else [])
        if points and (not memory_id or memory_id in points.ids(point))
    ]
    return HistoryResult(
        operations=[
            HistoryEntry(
                point=point.id,
                at=point.made_at.isoformat(timespec="seconds"),
                operation=point.operation,
                source=point.source,
                sha256=point.sha256,
                how=point.how,
                counts=point.counts,
                state=(
                    "undone" if point.undone else "complete" if point.complete else "interrupted"
                ),
                can_undo=not point.emptied,
            )
            for point in found
        ],
        next_step="tribal_undo takes one of them back; try that with dry_run=true first."
        if found
        else "No operation has changed memories yet.",
    )
