"""The use case: undo an operation from its restore point.

Undoing compares with what the store holds now: memories that are already as before are left alone.
So it can be stopped, killed and repeated, and it has a restore point of its own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import anyio.to_thread

from tribal_mcp.errors import Stopped, TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import OnProgress
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.arguments import (
    check_callback,
    check_optional,
    check_store,
    check_type,
    switch,
)
from tribal_mcp.services.context import Context, Watch
from tribal_mcp.services.left_out import describe_empty
from tribal_mcp.services.maintenance.change_model import (
    swap_back,
    undone,
    with_vector_of_text,
)
from tribal_mcp.services.memories.remember import NAMED, some_ids
from tribal_mcp.services.requests import UndoRequest
from tribal_mcp.services.results.store import UndoResult
from tribal_mcp.stores.base import STEP, Change, MemoryStore
from tribal_mcp.stores.restore_points import (
    Held,
    OpenPoint,
    Point,
    RestorePoints,
    Saved,
    after_changes,
    stamp,
)
from tribal_mcp.text import counted, memories

_NOTHING_YET = "Nothing left to undo: no operation has changed memories yet."
_OTHER_MODEL = "The store's model has changed since then, so restored memories have no vector."


async def run_undo(context: Context, request: UndoRequest) -> UndoResult:
    """Undo an operation, or say what that would change."""
    watch = context.watch("Compared")
    async with context.store() as store:
        points = RestorePoints.of(store, context.settings.restore_points)
        if points and not points.all():
            found = await describe_empty(store, context.settings)
            raise UsageError(" ".join([_NOTHING_YET, *found]))
        return await undo(
            store,
            request.point,
            points,
            dry_run=request.dry_run,
            discard_later_edits=request.discard_later_edits,
            on_progress=watch.on_progress,
            stop=watch.stop,
        )


async def undo(
    store: MemoryStore,
    name: str = "",
    points: RestorePoints | None = None,
    *,
    dry_run: bool = False,
    discard_later_edits: bool = False,
    on_progress: OnProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> UndoResult:
    """Restore the memories that an operation changed to what they were before it.

    Args:
        store: where they are.
        name: the restore point; "" for the newest operation that is not undone, and not itself an
            undo.
        points: the store's restore points, if a setting of theirs is not the default.
        dry_run: report what would change, change nothing.
        discard_later_edits: also revert memories that were changed after the operation.
        on_progress: called with (memories done, memories in all) after each batch.
        stop: called after each batch; true to stop there.

    Raises:
        UsageError: there is no such restore point, its contents were removed, or nothing is left
            to undo.
        Stopped: `stop` said so; repeating the call completes the undo.
    """
    begin = time.monotonic()
    check_store(store)
    name = "" if name is None else name  # type: ignore[redundant-expr]
    check_type("name", name, str, "text")
    check_optional("points", points, RestorePoints, "RestorePoints")
    dry_run = switch("dry_run", dry_run)
    discard_later_edits = switch("discard_later_edits", discard_later_edits)
    check_callback("on_progress", on_progress, "(memories done, memories in all)")
    points = points or RestorePoints.of(store)
    if points is None:
        raise UsageError("This store has no folder for restore points, so nothing can be undone.")
    async with store.session():  # completes a change of model that was killed in its last step
        about = await anyio.to_thread.run_sync(points.find, name)
    result = UndoResult(
        point=about.id, operation=about.operation, source=about.source, dry_run=dry_run
    )
    if about.undone and not discard_later_edits:
        result.already_undone = True
        result.next_steps = [_ALREADY_UNDONE]
        return result
    if about.kept_ids:
        return await swap_back(store, points, about, dry_run=dry_run)
    total = await anyio.to_thread.run_sync(lambda: sum(1 for _ in points.before(about)))
    model = await store.identity()
    point = None if dry_run else points.begin("undo", about.id, about.id, model=model)
    run = _Undo(store, points, about, point, result, discard_later_edits)
    with closing(point) if point else nullcontext():
        await run.restore_model()  # that of the vectors to restore
        await run.restore(total, Watch(on_progress, stop))
        if point:
            await run.restore_model()  # that from before the first vector
            result.restore_point = await anyio.to_thread.run_sync(run.finish, point)
    if not about.is_of(model):
        result.notes.append(_OTHER_MODEL)
    result.next_steps = _next_steps(result)
    if run.edited:
        result.notes.append(_kept(run.edited, result.kept_edits))
    result.duration_ms = round((time.monotonic() - begin) * 1000)
    return result


def _kept(edited: Sequence[str], count: int) -> str:
    stay = counted(
        count,
        "memory was edited after that operation and stays as it is",
        "memories were edited after that operation and stay as they are",
    )
    return f"{stay}: {some_ids(edited, count)}."


@dataclass(slots=True)
class _Undo:
    """An undo in progress.

    Attributes:
        store: where the memories are.
        points: its restore points.
        about: that of the operation to undo.
        point: that of the undo itself; None in a dry run.
        result: counts.
        discard_later_edits: revert memories that were changed after the operation, too.
        edited: the first of those that stay.
    """

    store: MemoryStore
    points: RestorePoints
    about: Point
    point: OpenPoint | None
    result: UndoResult
    discard_later_edits: bool = False
    edited: list[str] = field(default_factory=list)

    async def restore(self, total: int, watch: Watch) -> None:
        """Restore the memories, batch by batch; a dry run only counts them.

        Raises:
            TribalError: extended by what was done before.
        """
        saved = self.points.before(self.about)
        done = 0
        try:
            while batch := await anyio.to_thread.run_sync(_next, saved):
                async with self.store.session(writing=self.point is not None):
                    fits = self.about.is_of(await self.store.identity())
                    change, before = await self._plan(batch, vectors=fits)
                    if before and self.point:
                        await anyio.to_thread.run_sync(self.point.save, before, change)
                        await self.store.apply(change)
                done += len(batch)
                if watch.stops_at(done, total):
                    raise Stopped("Stopped.")
        except TribalError as error:
            so_far = f"{done:,} of {memories(total)} had been processed."
            raise error.extended(
                f"{so_far if self.point else 'Nothing was changed.'} To complete the undo, repeat "
                "it."
            ) from error

    async def _plan(
        self, batch: Sequence[Saved], *, vectors: bool
    ) -> tuple[Change, dict[str, Held]]:
        """The change that restores a batch, and what the store holds before it."""
        result = self.result
        ids = [saved.id for saved in batch]
        here: dict[str, Held] = {**await self.store.forgotten(ids)}
        here.update(await self.store.get_many(ids))
        entries: list[MemoryEntry] = []
        tombstones: dict[str, int] = {}
        erase: list[str] = []
        before: dict[str, Held] = {}
        for saved in batch:
            now, was = here.get(saved.id), saved.was
            if not vectors and isinstance(was, MemoryEntry):
                was = with_vector_of_text(was, now if isinstance(now, MemoryEntry) else None)
            if _same(now, was):
                result.unchanged += 1
                continue
            if stamp(now) != saved.now:
                result.changed_since += 1
                if not self.discard_later_edits:
                    result.kept_edits += 1
                    self.edited = [*self.edited, saved.id][:NAMED]
                    continue
            before[saved.id] = now
            if isinstance(was, MemoryEntry):
                entries.append(was)
                result.put_back += isinstance(now, MemoryEntry)
                result.brought_back += not isinstance(now, MemoryEntry)
            elif was is not None:
                tombstones[saved.id] = was
                result.forgotten += 1
            else:
                erase.append(saved.id)
                result.removed += 1
        return Change(entries, tombstones, erase), before

    async def restore_model(self) -> None:
        """Restore the model that the store had recorded, unless it holds vectors of another."""
        if self.about.identity is None or self.point is None:
            return
        before, after = (data and EmbeddingMetadata.from_dict(data) for data in self.about.identity)
        state = await self.store.state()
        if state.identity == after and not state.has_vectors:
            self.point.note_identity(after or None, before or None)
            await anyio.to_thread.run_sync(self.point.save, {}, Change())
            await self.store.set_identity(before or None)

    def finish(self, point: OpenPoint) -> str:
        """Mark the operation as undone; the name of the restore point of the undo."""
        self.about.undone = True  # even if later edits stay: the next undo goes further back
        with after_changes(point.name) if point.name else nullcontext():
            self.points.save(self.about)
            if self.about.operation == "undo":  # what it had undone is in effect again
                for other in self.points.all():
                    if other.id == self.about.source:
                        other.undone = False
                        self.points.save(other)
        return point.finish(
            self.result.model_dump(include={"removed", "put_back", "brought_back", "forgotten"})
        )


_ALREADY_UNDONE = NextStep(
    "That operation was undone before, so nothing was changed. To undo the newest one that is "
    "still in effect, run {call}.",
    "undo",
)


def _next(saved: Iterator[Saved]) -> list[Saved]:
    return list(islice(saved, STEP))


def _same(now: Held, was: Held) -> bool:
    if isinstance(now, MemoryEntry) and isinstance(was, MemoryEntry):
        return now == was and dump_entry(now) == dump_entry(was)
    return now == was


def _next_steps(result: UndoResult) -> list[NextStep]:
    changes = result.removed + result.put_back + result.brought_back + result.forgotten
    discard = NextStep(
        "To discard the later edits too, run {call}.",
        "undo",
        {"point": result.point, "discard_later_edits": True},
    )
    edits = [discard] if result.kept_edits else []
    if not changes and edits:
        return [NextStep("Nothing to undo except later edits."), *edits]
    if not changes:
        return [
            NextStep(
                "Nothing to undo: everything is already as it was before that operation. To list "
                "older operations, run {call}.",
                "history",
            )
        ]
    if result.dry_run:
        step = "Nothing was changed. To undo the operation, run {call}."
        return [NextStep(step, "undo", {"point": result.point}), *edits]
    steps = [undone(result.restore_point), *edits]
    if _OTHER_MODEL in result.notes:
        steps.append(NextStep("To embed the restored memories, run {call}.", "reembed"))
    return steps
