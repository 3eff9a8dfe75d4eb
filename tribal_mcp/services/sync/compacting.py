"""Drops what all machines know, and what was dropped while this one was behind."""

import time
from collections.abc import Mapping
from dataclasses import replace

import orjson

from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.replication.compaction import Cut, compacted, remaining, united
from tribal_mcp.portability.replication.records import Record, dump_record, read_record
from tribal_mcp.portability.replication.versions import Heads, Stamp, Version
from tribal_mcp.services.sync.merging import Merging
from tribal_mcp.services.sync.replicas import read_again
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.stores.base import STEP
from tribal_mcp.text import counted


async def compact(merging: Merging) -> None:
    """Drop what may be dropped, by what has been read of all replicas."""
    state = merging.state
    cut, was_behind = state.cut(), bool(state["behind"])
    is_behind = cut.is_behind(was=was_behind)
    if was_behind or is_behind:
        is_behind |= await _catch_up(merging, cut)
    elif cut.is_closed:
        if ids := state.deletions_beside(p for p in state.holders() if not cut.is_listed(p)):
            await _drop(merging, cut, ids, behind=False)
        await _drop_known(merging, cut)
        with state.transaction():
            _unite_deletions(state, cut)
    with state.transaction():
        state["behind"] = "1" * is_behind


async def _catch_up(merging: Merging, cut: Cut) -> bool:
    """Drop the versions that no file has any more: others have deleted or replaced them.

    If two machines used one id, a file that only one of them lists may have the same version as
    another file. So all are read again first.

    Returns:
        Whether the next sync is to do it, when the files have been read again.
    """
    state = merging.state
    ids = state.in_other_files(filter(cut.is_listed, cut.applied))
    if ids and not cut.is_closed:
        merging.result.notes.append(
            f"{counted(len(ids), 'memory stays as it is', 'memories stay as they are')} until all "
            "files of the other machines have arrived, which may have changed or deleted "
            f"{'it' if len(ids) == 1 else 'them'}."
        )
    if not ids:
        state["read_again"] = ""
    if not ids or not cut.is_closed:
        return False
    if cut.forked and not state["read_again"]:
        with state.transaction():
            read_again(state)
            state["read_again"] = "1"
        return True
    await _drop(merging, cut, ids, behind=True)
    with state.transaction():
        state["settled"], state["dropped"] = "", str(time.time_ns() // 1000)
        state["read_again"] = ""
    return False


async def _drop(merging: Merging, cut: Cut, ids: list[str], *, behind: bool) -> None:
    """Drop the versions of those memories that no file has any more."""

    def left(heads: Heads, files: Mapping[Stamp, str]) -> Heads:
        def is_listed(head: Version) -> bool:
            path = files.get(head.stamp)
            return not path or cut.is_listed(path)

        return remaining(heads, is_listed, behind=behind)

    merging.remaining = left
    for start in range(0, len(ids), STEP):
        await merging.merge(ids[start : start + STEP], {})
    merging.remaining = None


async def _drop_known(merging: Merging, cut: Cut) -> None:
    """Compact the versions in the files that all have swept past, each file once.

    If whoever marked a deletion has dropped the mark, all have swept past it. From then on the
    tombstones of the store that are no later say nothing: what they stand for was shared.
    """
    state = merging.state
    settled = {path for path in cut.applied if cut.is_settled(path)}
    dropped = {path for path in state.holders() if not cut.is_listed(path)}
    spent: list[str] = []
    compact: list[tuple[str, bytes, str | None]] = []
    for path in dropped | (settled - set(orjson.loads(state["settled"] or "[]"))):
        for memory_id, line in state.to_compact(path):
            now = compacted(read_record(line, NO_LIMITS, trusted=True).version)
            if now is None:
                spent.append(memory_id)
            elif path in dropped:
                continue
            elif not now.spent:
                compact.append((memory_id, dump_record(Record(memory_id, now)), None))
            elif path.startswith(f"{cut.replica}/"):  # whoever published a deletion marks it
                compact.append((memory_id, dump_record(Record(memory_id, now)), ""))
    deleted = await merging.store.forgotten(spent) if spent else {}
    with state.transaction():
        state.drop(spent)
        for row in compact:
            state.compact(*row)
        last = max(deleted.values(), default=None)
        if last is not None and (not state["dropped"] or last > int(state["dropped"])):
            state["dropped"] = str(last)
        state["settled"] = orjson.dumps(sorted(settled)).decode()


def _unite_deletions(state: SyncState, cut: Cut) -> None:
    """Replace the deletions of a memory by one, if the latest was published here."""
    for memory_id, row in state.rows(state.deleted_often()).items():
        heads = row.known.heads
        one = united(heads)
        if one and row.lines[heads[0].stamp][1].startswith(f"{cut.replica}/"):
            line = dump_record(Record(memory_id, one))
            state.save({memory_id: (replace(row.known, heads=(one,)), {one.stamp: (line, "")})})
