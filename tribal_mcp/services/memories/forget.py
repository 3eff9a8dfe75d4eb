"""The use case: delete memories by id."""

import time
from collections.abc import Sequence

import anyio.to_thread

from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.left_out import describe_empty
from tribal_mcp.services.memories.remember import some_ids
from tribal_mcp.services.requests import ForgetRequest
from tribal_mcp.services.results.memories import ForgetResult
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

MOST = 100
"""Memories that are deleted at once, and ids of any kind that a result names."""

_FIND_IDS = NextStep("To find the ids, run {call}.", "recall", {"query": ...})


async def run_forget(context: Context, request: ForgetRequest) -> ForgetResult:
    """Delete the memories, or say what would be deleted."""
    async with context.store() as store:
        points = RestorePoints.of(store, context.settings.restore_points)
        result = await forget(store, request.ids, points, dry_run=request.dry_run)
        if not result.forgotten:
            result.notes += await describe_empty(store, context.settings)
        return result


async def forget(
    store: SearchableStore,
    ids: Sequence[str],
    points: RestorePoints | None = None,
    *,
    dry_run: bool = False,
) -> ForgetResult:
    """Delete memories; each leaves a tombstone, so that an import knows that it was deleted.

    Args:
        store: where they are.
        ids: their ids, at most `MOST`.
        points: the store's restore points; the memories are saved there first.
        dry_run: only report what would be deleted.

    Raises:
        UsageError: there are no ids, or too many.
        StoreError: the store can't be written to.
    """
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        raise UsageError("No ids are given. Give the ids of the memories to delete.", _FIND_IDS)
    if len(wanted) > MOST:
        raise UsageError(f"{len(wanted):,} ids are too many at once. Give at most {MOST:,}.")
    async with store.session(writing=not dry_run and await store.count() > 0):
        here = await store.get_many(wanted)
        found = [i for i in wanted if i in here]
        older = sorted({e.supersedes for e in here.values() if e.supersedes} - here.keys())
        corrections = await store.corrections(found) if found else {}
        others = await store.corrections(older) if older else {}
        existing = await store.existing(older)
        deleted_before = await store.forgotten([i for i in wanted if i not in here])
        result = ForgetResult(
            forgotten=found,
            not_here=[i for i in wanted if i not in here],
            corrected_by=[c for i in found for c in corrections.get(i, ()) if c not in here][:MOST],
            current_again=[i for i in older if i in existing and here.keys() >= set(others[i])],
            dry_run=dry_run,
        )
        if not dry_run and here:
            result.restore_point = await _delete(store, here, points)
    if deleted_before:
        result.notes.append(f"Already deleted before: {some_ids(list(deleted_before))}.")
    result.next_steps = _next_steps(result)
    return result


async def _delete(
    store: SearchableStore, here: dict[str, MemoryEntry], points: RestorePoints | None
) -> str:
    """Delete the memories; the name of the restore point that has them."""
    change = Change(forget=dict.fromkeys(here, time.time_ns() // 1000))
    point = points.begin("forget", "by id", model=await store.identity()) if points else None
    if point is None:
        await store.apply(change)
        return ""
    try:
        await anyio.to_thread.run_sync(point.save, here, change)
    except TribalError as error:
        raise error.extended("Nothing was deleted.") from error
    try:
        await store.apply(change)
    except TribalError as error:
        raise error.extended(
            "The deletion may be incomplete; to complete it, repeat the call."
        ) from error
    return await anyio.to_thread.run_sync(point.finish, {"forgotten": len(here)})


def _next_steps(result: ForgetResult) -> list[NextStep]:
    if not result.forgotten:
        return [NextStep("No memory has one of those ids."), _FIND_IDS]
    steps: list[NextStep] = []
    if again := result.current_again:
        correction, these, them = (
            ("correction", f"{some_ids(again)} is", some_ids(again))
            if len(again) == 1
            else ("corrections", "they are", "them")
        )
        steps.append(
            NextStep(
                f"{'This deletes' if result.dry_run else 'You deleted'} the {correction} of "
                f"{some_ids(again)}, so {these} current again. To delete {them} as well, run "
                "{call}.",
                "forget",
                {"ids": again},
            )
        )
    if result.dry_run:
        step = "Nothing was deleted. To delete, run {call}."
        steps.append(NextStep(step, "forget", {"ids": result.forgotten}))
    elif result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(NextStep("To restore them, run {call}.", "undo", undo))
    else:
        steps.append(NextStep("To restore them, import a bundle that has them."))
    return steps
