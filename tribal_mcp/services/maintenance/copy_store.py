"""Copies a store into another: a folder, a server or the cloud, either way round.

What is there already is left alone, so a copy that was stopped is completed by the same again. At
the end both sides are read, and compared by count and checksum.
"""

import hashlib
import time
from collections.abc import Callable, Sequence

from tribal_mcp.errors import Stopped, StoreError, UsageError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.results import CopyResult
from tribal_mcp.stores.base import STEP, Change, MemoryStore, StoreState

_COPIED_PERCENT = 60.0
_EXAMPLES = 5

Report = Callable[[float, str], None]


async def copy_store(
    source: MemoryStore,
    target: MemoryStore,
    result: CopyResult,
    *,
    overwrite: bool = False,
    report: Report = lambda _percent, _message: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Bring all memories and tombstones of one store into another; `result` counts.

    Raises:
        UsageError: the target has vectors of another model; or it holds other memories, and
            `overwrite` is not said.
        StoreError: the two sides differ at the end.
        Stopped: `stop` said so; the same again goes on there.
    """
    begin = time.monotonic()
    here, there = await source.state(), await target.state()
    _refuse_other_model(here, there)
    ids = await source.list_ids()
    gone = await source.forgotten()
    result.total = len(ids)
    await _compare(ids, gone, source, target, result, overwrite=overwrite)
    if not result.dry_run:
        if not there.has_vectors and there.identity != here.identity:
            await target.set_identity(here.identity)
        for start in range(0, len(ids), STEP):
            await _bring(ids[start : start + STEP], source, target, result)
            done = min(start + STEP, len(ids))
            report(_COPIED_PERCENT * done / len(ids), f"Copied {done:,} of {len(ids):,} memories")
            if stop():
                raise Stopped(
                    f"Stopped after {done:,} of {len(ids):,} memories. The same again goes on."
                )
        known = await target.forgotten(list(gone))
        late = {i: moment for i, moment in gone.items() if known.get(i, 0) < moment}
        await target.apply(Change(forget=late))
        result.forgotten = len(gone)
        result.sha256 = await _checked(sorted(ids), source, target, report)
    result.duration_ms = round((time.monotonic() - begin) * 1000)


def _refuse_other_model(here: StoreState, there: StoreState) -> None:
    one, two = here.identity, there.identity
    if here.has_vectors and there.has_vectors and one != two:
        if one is not None and two is not None and one.is_compatible_with(two):
            return
        raise UsageError(
            f"The vectors here are of {one or 'a model that nobody recorded'}, and the target's of "
            f"{two or 'a model that nobody recorded'}. Nothing was copied. Copy into an empty "
            "place, or export here and import there, which goes by the models."
        )


async def _compare(
    ids: Sequence[str],
    gone: dict[str, int],
    source: MemoryStore,
    target: MemoryStore,
    result: CopyResult,
    *,
    overwrite: bool,
) -> None:
    """Look at what the target has of these memories, and of others."""
    there = await target.list_ids()
    wanted = set(ids)
    others = [i for i in there if i not in wanted]
    common = [i for i in there if i in wanted]
    result.others = len([i for i in others if i not in gone])
    differing: list[str] = []
    for start in range(0, len(common), STEP):
        part = common[start : start + STEP]
        ours, theirs = await source.get_many(part), await target.get_many(part)
        differing += [i for i in part if not _same(ours.get(i), theirs.get(i))]
    result.replaced = len(differing)
    result.identical = len(common) - len(differing)
    result.copied = len(ids) - len(common)
    if (others or differing) and not overwrite:
        examples = ", ".join(map(repr, [*differing, *others][:_EXAMPLES]))
        raise UsageError(
            f"The target holds {len(others):,} other memories and {len(differing):,} other "
            f"versions of these ({examples}, …). Nothing was copied. Copy into an empty place, "
            "or say overwrite: what the source has replaces what the target has of it."
        )


async def _bring(
    ids: Sequence[str], source: MemoryStore, target: MemoryStore, result: CopyResult
) -> None:
    ours, theirs = await source.get_many(ids), await target.get_many(ids)
    missing = [entry for i, entry in ours.items() if not _same(entry, theirs.get(i))]
    try:
        await target.apply(Change(missing))
    except UsageError as error:
        raise UsageError(f"The target can't hold these memories: {error}") from None
    result.written += len(missing)


def _same(one: MemoryEntry | None, two: MemoryEntry | None) -> bool:
    return one is not None and two is not None and dump_entry(one) == dump_entry(two)


async def _checked(
    ids: Sequence[str], source: MemoryStore, target: MemoryStore, report: Report
) -> str:
    """The checksum of the memories, in the order of their ids, the same on both sides."""
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
        report(percent, f"Compared {done:,} of {len(ids):,} memories")
    one, two = (checksum.hexdigest() for checksum in sums)
    if counts[0] != counts[1] or one != two:
        raise StoreError(
            f"The two sides differ: {counts[0]:,} memories here, {counts[1]:,} there, or other "
            "contents. Somebody may have changed them meanwhile. Run the same again."
        )
    return one
