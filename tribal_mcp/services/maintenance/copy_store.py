"""The use case: copy a store into another one, be they folders, servers or the cloud.

Memories that the target already has are left alone, so a copy that was stopped is completed by
repeating it. At the end both sides are read, and compared by count and checksum.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext

import anyio.to_thread

from tribal_mcp.config import Settings
from tribal_mcp.errors import Stopped, StoreError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.context import Context, Progress
from tribal_mcp.services.embedders import UNRECORDED
from tribal_mcp.services.left_out import refuse_missing
from tribal_mcp.services.requests import CopyRequest
from tribal_mcp.services.results.maintenance import CopyResult
from tribal_mcp.stores.base import STEP, Change, MemoryStore, StoreState, in_parts
from tribal_mcp.stores.factory import location_of, settings_at, store_of
from tribal_mcp.stores.restore_points import Held, OpenPoint, RestorePoints
from tribal_mcp.text import counted, memories

_COPIED_PERCENT = 60.0
_EXAMPLES = 5


async def run_copy(context: Context, request: CopyRequest) -> CopyResult:
    """Copy a store into another, or say what that would change."""
    if not context.trusted:  # a place is any path, and any address
        raise UsageError("Stores can only be copied from the command line.")
    here, there = (settings_at(context.settings, p) for p in (request.source, request.target))
    names = [location_of(here), location_of(there)]
    if names[0] == names[1] and here.collection == there.collection:
        raise UsageError("Source and target are the same store. Choose another target.")
    result = CopyResult(source=names[0], target=names[1], dry_run=request.dry_run)
    waiting = context.waiting()
    async with store_of(here, waiting) as source, store_of(there, waiting) as target:
        await refuse_missing(source, here)
        await copy_store(
            source,
            target,
            result,
            RestorePoints.of(target, there.restore_points),
            overwrite=request.overwrite,
            progress=context.progress,
            stop=context.stop,
        )
    given = request.model_dump(exclude_defaults=True) | {"dry_run": False}
    result.next_steps = (
        [NextStep("Nothing was copied. To copy, run {call}.", "copy", given)]
        if request.dry_run
        else _after(result, there)
    )
    return result


def _after(result: CopyResult, there: Settings) -> list[NextStep]:
    steps = [
        NextStep(
            "Both stores hold the same memories. To use the target, set TRIBAL_DATA_DIR or "
            "TRIBAL_CHROMA_URL."
        )
    ]
    if result.restore_point and not there.chroma_url:
        undo = {
            "point": result.restore_point,
            "data_dir": str(there.data_dir),
            "collection": there.collection,
        }
        steps.append(NextStep("To undo the copy, run {call}.", "undo", undo, elsewhere=True))
    return steps


async def copy_store(
    source: MemoryStore,
    target: MemoryStore,
    result: CopyResult,
    points: RestorePoints | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = lambda _percent, _message: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Copy all memories and tombstones of one store into another; `result` counts.

    What it replaces in the target is saved in `points`.

    Raises:
        UsageError: the target has vectors of another model; or it holds other memories, and
            `overwrite` is not set.
        StoreError: the two sides differ at the end.
        Stopped: `stop` said so; repeating the call continues the copy.
    """
    begin = time.monotonic()
    here, there = await source.state(), await target.state()
    _refuse_other_model(here, there)
    ids = await source.list_ids()
    tombstones = await source.forgotten()
    result.total = len(ids)
    await _compare(ids, tombstones, source, target, result, overwrite=overwrite)
    if not result.dry_run:
        about = f"from {result.source}"
        point = points.begin("copy", about, model=there.identity) if points else None
        with closing(point) if point else nullcontext():
            if not there.has_vectors and there.identity != here.identity:
                if point:
                    point.note_identity(there.identity, here.identity)
                await target.set_identity(here.identity)
            for start in range(0, len(ids), STEP):
                await _copy(ids[start : start + STEP], source, target, result, point)
                done = min(start + STEP, len(ids))
                message = f"Copied {done:,} of {len(ids):,} memories"
                progress(_COPIED_PERCENT * done / len(ids), message)
                if stop():
                    raise Stopped(f"{message}. To continue, repeat the copy.")
            await _forget(tombstones, target, point)
            if point:
                counts = {"copied": result.copied, "replaced": result.replaced}
                result.restore_point = point.finish(counts)
        result.forgotten = len(tombstones)
        result.sha256 = await _compared(sorted(ids), source, target, progress)
    result.duration_ms = round((time.monotonic() - begin) * 1000)


def _refuse_other_model(here: StoreState, there: StoreState) -> None:
    one, two = here.identity, there.identity
    if here.has_vectors and there.has_vectors and one != two:
        if one is not None and two is not None and one.is_compatible_with(two):
            return
        raise UsageError(
            f"The source's vectors were made by {one or UNRECORDED}, and the target's by "
            f"{two or UNRECORDED}. Nothing was copied. Copy into an empty store, or export the "
            "memories and import them there, which handles different models."
        )


async def _compare(
    ids: Sequence[str],
    tombstones: dict[str, int],
    source: MemoryStore,
    target: MemoryStore,
    result: CopyResult,
    *,
    overwrite: bool,
) -> None:
    """Count what the target has of these memories, and what else it has.

    Raises:
        UsageError: it has others or other versions, and `overwrite` is not set.
    """
    there = await target.list_ids()
    wanted = set(ids)
    others = [i for i in there if i not in wanted]
    common = [i for i in there if i in wanted]
    result.others = len([i for i in others if i not in tombstones])
    differing: list[str] = []
    for part in in_parts(common, STEP):
        ours, theirs = await source.get_many(part), await target.get_many(part)
        differing += [i for i in part if i not in ours or not _same(ours[i], theirs.get(i))]
    result.replaced = len(differing)
    result.identical = len(common) - len(differing)
    result.copied = len(ids) - len(common)
    if (others or differing) and not overwrite:
        examples = ", ".join(map(repr, [*differing, *others][:_EXAMPLES]))
        raise UsageError(
            f"The target has {counted(len(others), 'other memory', 'other memories')} and "
            f"{counted(len(differing), 'other version')} of those to copy ({examples}, …). Nothing "
            "was copied. Copy into an empty store, or allow overwriting: then the source's "
            "versions replace the target's, and its other memories stay."
        )


async def _copy(
    ids: Sequence[str],
    source: MemoryStore,
    target: MemoryStore,
    result: CopyResult,
    point: OpenPoint | None,
) -> None:
    ours = await source.get_many(ids)
    theirs: dict[str, Held] = {**await target.forgotten(ids), **await target.get_many(ids)}
    missing = [entry for i, entry in ours.items() if not _same(entry, theirs.get(i))]
    change = Change(missing)
    if point and missing:
        before = {entry.id: theirs.get(entry.id) for entry in missing}
        await anyio.to_thread.run_sync(point.save, before, change)
    try:
        await target.apply(change)
    except UsageError as error:
        message = f"The target can't hold these memories. {error}"
        raise UsageError(message, *error.next_steps) from None
    result.written += len(missing)


async def _forget(
    tombstones: Mapping[str, int], target: MemoryStore, point: OpenPoint | None
) -> None:
    """Copy the tombstones that the target does not have, or has from an earlier time."""
    ids = list(tombstones)
    for part in in_parts(ids, STEP):
        known = await target.forgotten(part)
        newer = {i: tombstones[i] for i in part if known.get(i, 0) < tombstones[i]}
        before: dict[str, Held] = {i: known.get(i) for i in newer}
        before.update(await target.get_many(list(newer)))
        change = Change(forget=newer)
        if point and newer:
            await anyio.to_thread.run_sync(point.save, before, change)
        await target.apply(change)


def _same(one: MemoryEntry, two: Held) -> bool:
    return isinstance(two, MemoryEntry) and dump_entry(one) == dump_entry(two)


async def _compared(
    ids: Sequence[str], source: MemoryStore, target: MemoryStore, progress: Progress
) -> str:
    """The checksum of the memories, in the order of their ids.

    Raises:
        StoreError: it is not the same on both sides.
    """
    sums = hashlib.sha256(), hashlib.sha256()
    counts = [0, 0]
    for start in range(0, len(ids), STEP):
        part = ids[start : start + STEP]
        for side, store in enumerate((source, target)):
            found = await store.get_many(part)
            counts[side] += len(found)
            for memory_id in part:
                if memory_id in found:
                    sums[side].update(dump_entry(found[memory_id]) + b"\n")
        done = start + len(part)
        percent = _COPIED_PERCENT + (100 - _COPIED_PERCENT) * done / len(ids)
        progress(percent, f"Compared {done:,} of {len(ids):,} memories")
    one, two = (checksum.hexdigest() for checksum in sums)
    if counts[0] != counts[1] or one != two:
        raise StoreError(
            f"After the copy the stores differ: {memories(counts[0])} in the source, "
            f"{counts[1]:,} in the target, or different contents. Another program may have changed "
            "them meanwhile. Repeat the copy."
        )
    return one
