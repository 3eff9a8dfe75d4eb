"""Which replicas there are: what their files say, and which of them count no longer."""

import time
from collections.abc import Mapping
from unicodedata import normalize

from tribal_mcp.errors import UsageError
from tribal_mcp.files.replica_folders import Listing, ReplicaFile
from tribal_mcp.portability.memory import from_microseconds
from tribal_mcp.portability.replication.compaction import Report, number_of
from tribal_mcp.portability.replication.records import Head
from tribal_mcp.services.results.sync import ReplicaResult, SyncResult
from tribal_mcp.services.sync.state import SyncState, new_id

ABSENT_DAYS = 180
"""Days with a sync here and no news of a machine, after which that counts no longer."""
COPIED = (
    "The folder has files that another copy of this store wrote with the same id: this store was "
    "copied, or restored from a backup. It goes on as a new machine. Nothing is lost."
)
_REMOVED = (
    "This machine was removed while it was away. It goes on as a new machine: what was changed "
    "here is published, and what the others have deleted is deleted here, too."
)


def report_of(file: ReplicaFile, head: Head) -> Report:
    """What a file says."""
    return Report(file.name, head.files, head.seen, head.swept, head.removed, head.previous)


def note(state: SyncState, result: SyncResult, file: ReplicaFile, head: Head) -> None:
    """Record which replica wrote a file, and what that has seen of this one and others."""
    before = state.reports().get(head.replica, Report())
    said = report_of(file, head)
    with state.transaction():
        if head.number >= before.number:
            state.note_name(head.replica, head.name)
        if head.operations:
            state.note_operations(head.operations)
        if (now := before.updated(said)) != before:
            state.note_report(head.replica, now)
    if head.number >= before.number:
        note_removed(state, result, head.removed)
    if head.seen.get(state["replica"], 0) > int(state["number"] or 0):
        take_new_id(state, result)


def note_removed(state: SyncState, result: SyncResult, said: Mapping[str, int]) -> None:
    """Take over that replicas count no longer.

    What one wrote after the last file that counts is published from here, if it was read here.
    """
    before = state.removed
    new = {replica: number for replica, number in said.items() if number > before.get(replica, -1)}
    if not new:
        return
    with state.transaction():
        state.remove(new)
        _publish_again(state, {i: number for i, number in new.items() if i != state["replica"]})
        read_again(state)
    if state["replica"] in new:
        take_new_id(state, result)


def take_new_id(state: SyncState, result: SyncResult, common: int = 0) -> None:
    """Go on as a new replica; what the old id has written stays, as that of another.

    Own versions that no other machine is known to have are published again.

    Args:
        state: what is known of the shared folder.
        result: of the sync.
        common: the number of the last file that was written before the store was copied, as far as
            that is known: the other machine with this id has what was in it.
    """
    old, read, removed = state["replica"], state.cut().read, state.removed
    said = [report.swept.get(old, "") for report in state.reports().values()]
    names = [name for name in said if f"{old}/{name}" in read]
    known = max([common, *map(number_of, names)])
    known = removed.get(old, known)
    files = sorted(one.file for one in state.files().values() if one.file.replica == old)
    # Two machines may have used the id. So the files that nobody has read say nothing about those
    # of the other machine, which may have lower numbers.
    names = [file.name for file in files if file.number <= known]
    with state.transaction():
        # Of a removed machine, the others publish what they have read; of a copy, nobody may.
        state.back_to_first_files(old, known if old in removed else 0)
        _publish_again(state, {old: known})
        state.note_report(old, Report())
        if names:
            before = [name for name in state.written_last() if name < names[-1]]
            state.note_report(old, Report(names[-1], names[:-1], previous=before))
            state.note_name(old, f"{state['name']} (earlier)")
        state.forget_files(state.files())
        state["replica"], state["number"], state["written"] = new_id(), "", ""
        state["behind"] = "1"
    result.notes.append(_REMOVED if old in removed else COPIED)


def machines(state: SyncState, listing: Listing) -> list[ReplicaResult]:
    """The other machines, by name."""
    newest, reports, quiet = listing.newest(), state.reports(), state.quiet_days()
    own = state["replica"]
    numbers = [one.file.number for one in state.files().values() if one.file.replica == own]
    found = []
    for i, name in state.names().items():
        report = reports.get(i, Report())
        unread = [number for number in numbers if number > report.seen.get(own, 0)]
        found.append(
            ReplicaResult(
                id=i,
                name=name,
                files=report.number,
                last_file_at=time_of(newest[i].modified_ns // 1000) if i in newest else "",
                unread=len(unread),
                quiet_days=quiet.get(i, 0),
                removed=i in state.removed,
            )
        )
    return found


def time_of(wall_us: int) -> str:
    """A time in microseconds since 1970 as text; empty if it is out of range."""
    try:
        return from_microseconds(wall_us).isoformat(timespec="seconds")
    except OverflowError:
        return ""


def remove(state: SyncState, result: SyncResult, listing: Listing, wanted: str) -> None:
    """Remove a machine, and those that have been absent for long.

    Args:
        state: what is known of the shared folder.
        result: of the sync.
        listing: what was in the folder at the start.
        wanted: the name or the id of a machine; empty for none.

    Raises:
        UsageError: no other machine has it, or several have.
    """
    others = machines(state, listing)
    called = [one for one in others if normalize("NFC", wanted) in (one.id, one.name)]
    counting = [one for one in called if not one.removed]
    if wanted and (not called or (counting and len(called) > 1)):
        listed = "; ".join(
            f"{one.name!r:.60} ({one.id}, {'removed' if one.removed else one.last_file()})"
            for one in called or others
        )
        raise UsageError(
            f"Several machines are called {wanted!r:.80}. Give the id of one: {listed}."
            if called
            else f"No other machine of this folder is called {wanted!r:.80}. "
            f"The others are: {listed or 'none yet'}."
        )
    found = [one.id for one in counting]
    names = {one.id: one.name for one in others}
    if called and not found:
        result.notes.append(f"The machine {wanted!r:.80} was removed already.")
    with state.transaction():
        absent = state.absent(time.strftime("%Y-%m-%d", time.gmtime()), ABSENT_DAYS)
    for replica in dict.fromkeys((*(found if wanted else ()), *absent)):
        number = number_of(state.cut().known(0).get(replica, "0-"))
        with state.transaction():
            _publish_again(state, {replica: -1})
            state.remove({replica: number})
            read_again(state)
        name = names.get(replica, replica)
        result.notes.append(
            f"The machine {name!r:.80} was removed: its subfolder {replica} can be deleted. If it "
            "syncs again, it goes on as a new machine."
            + " Remove its key from TRIBAL_AGE_RECIPIENTS, too."
            * bool(state["encrypted"])
        )


def _publish_again(state: SyncState, last: Mapping[str, int]) -> None:
    """Have what replicas wrote after those files published from here, read whole or not."""
    for path in state.holders():
        replica, _, name = path.partition("/")
        if number_of(name) > last.get(replica, number_of(name)):
            state.publish_again([path])


def read_again(state: SyncState) -> None:
    """Have the files of the others read again."""
    own = state["replica"]
    state.forget_files(p for p, one in state.files().items() if one.file.replica != own)
