"""What the result of a sync says: the machines, the conflicts, and what to do next."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from tribal_mcp.files.replica_folders import Listing
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.replication.versions import Fields, Version, visible
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.results.sync import (
    ConflictResult,
    ConflictVersion,
    SyncResult,
    WithdrawnResult,
)
from tribal_mcp.services.sync.replicas import COPIED, machines, time_of
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.stores.base import STEP
from tribal_mcp.text import counted

_CONFLICTS = 100


def list_conflicts(folder: str) -> NextStep:
    """What lists the conflicts."""
    return NextStep(
        "To list the conflicts, run {call}.", "sync", {"folder": folder, "conflicts": True}
    )


def describe(result: SyncResult, state: SyncState, listing: Listing, *, conflicts: bool) -> None:
    """Add the machines and the conflicts to a result.

    Args:
        result: of the sync.
        state: what is known of the shared folder.
        listing: what was in the folder at the start.
        conflicts: list the conflicts, too.
    """
    result.replica, result.name = state["replica"], state["name"]
    result.replicas = machines(state, listing)
    found = [conflict for conflict in _conflicts(state) if conflict.versions]
    result.conflicts = len(found)
    is_wrong = result.problems or result.missing or result.damaged or result.notes
    if result.first_contact and not (result.replicas or is_wrong):
        result.notes.append(
            "This is the first machine in this folder. If another one has synced with it, check "
            "the path, and that the files have arrived."
        )
    if result.first_contact and result.tags and not (result.published or result.same):
        tags = " or ".join(map(repr, result.tags))
        result.notes.append(f"No memory here is tagged {tags}, so nothing was published.")
    if result.first_contact and found:
        differ = counted(len(found), "memory differs", "memories differ")
        result.notes.append(
            f"{differ} between this store and the folder. The later version is visible, and the "
            "other is kept as a conflict."
        )
    if conflicts:
        result.conflict_details = found[:_CONFLICTS]
        if len(found) > _CONFLICTS:
            what = counted(len(found) - _CONFLICTS, "more conflict is", "more conflicts are")
            result.notes.append(f"{what} not listed. Resolve some of these first.")


def _conflicts(state: SyncState) -> Iterator[ConflictResult]:
    machines = {**state.names(), state["replica"]: state["name"]}
    ids = state.conflicting()
    for start in range(0, len(ids), STEP):
        for memory_id, row in state.rows(ids[start : start + STEP]).items():
            seen = visible(row.known.heads)
            differ = {name for names in seen.others.values() for name in names if name}
            yield ConflictResult(
                memory_id=memory_id,
                content=seen.fields["content"] if seen.fields else "",
                deleted=seen.fields is None,
                values=_values(seen.fields, differ),
                versions=[
                    _version(head, machines, seen.others[head.stamp])
                    for head in row.known.heads
                    if head.stamp in seen.others
                ],
            )


def _version(head: Version, names: dict[str, str], fields: Sequence[str]) -> ConflictVersion:
    return ConflictVersion(
        replica=names.get(head.stamp.replica, ""),
        at=time_of(head.stamp.wall) if head.stamp.wall else "",
        fields=sorted(filter(None, fields)),
        deleted=head.fields is None,
        content=head.fields["content"] if head.fields else "",
        values=_values(head.fields, fields),
    )


def _values(fields: Fields | None, names: Collection[str]) -> dict[str, Any]:
    return {name: fields.get(name) for name in sorted(filter(None, names))} if fields else {}


def next_steps(result: SyncResult, request: SyncRequest, *, embeds: bool) -> list[NextStep]:
    """What to do after a sync; `embeds` is whether a model is configured."""
    folder = {"folder": result.folder}
    if result.dry_run:
        given = request.model_dump(exclude_defaults=True, exclude={"dry_run"}) | folder
        what = "withdraw it" if request.withdraw else "sync"
        steps = [NextStep(f"Nothing was changed. To {what}, run {{call}}.", "sync", given)]
        if result.conflicts and not request.conflicts:
            see = {**given, "conflicts": True, "dry_run": True}
            steps.append(NextStep("To see the conflicts first, run {call}.", "sync", see))
        return [*steps, *_unknown(result.withdrawn)]
    steps = _unknown(result.withdrawn) + _damaged(result)
    if result.conflicts and not request.conflicts:
        steps.append(list_conflicts(result.folder))
    if result.conflict_details:
        first = result.conflict_details[0].memory_id
        keep = {**folder, "resolve": first}
        steps.append(NextStep("To keep what is visible, run {call}.", "sync", keep))
        take = {**keep, "version": 1}
        steps.append(NextStep("To take version 1 instead, run {call}.", "sync", take))
    if result.operations:
        first = result.operations[0].operation
        taken = {**folder, "withdraw": first, "dry_run": True}
        text = "To see what withdrawing the newest operation would change, run {call}."
        steps.append(NextStep(text, "sync", taken))
    steps += _named_alike(result)
    if result.without_vector and embeds:
        steps.append(NextStep("To embed what came without a vector, run {call}.", "reembed"))
    if result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(
            NextStep(
                "To undo what this sync changed here, run {call}; the next sync then undoes it on "
                "all machines.",
                "undo",
                undo,
            )
        )
    if result.withdrawn and result.withdrawn.restore_point:
        undo = {"point": result.withdrawn.restore_point}
        steps.append(NextStep("To undo the withdrawal, run {call}.", "undo", undo))
    return steps


def _named_alike(result: SyncResult) -> list[NextStep]:
    alike = [one.id for one in result.replicas if one.name == result.name and not one.removed]
    if not alike:
        return []
    rename = {"folder": result.folder, "name": ...}
    text = f"Another machine is called {result.name!r:.60}, too. To rename this one, run {{call}}."
    steps = [NextStep(text, "sync", rename)]
    if result.first_contact or COPIED in result.notes:
        earlier = alike[0] if len(alike) == 1 else result.name
        text = (
            "If that was this machine, before its store was lost or a backup was restored, run "
            "{call}."
        )
        arguments = {"folder": result.folder, "remove_machine": earlier}
        steps.append(NextStep(text, "sync", arguments))
    return steps


def _damaged(result: SyncResult) -> list[NextStep]:
    if all(path.startswith(f"{result.replica}/") for path in result.damaged):
        return []  # those of this machine have been published again
    return [
        NextStep(
            "A damaged file that is still being copied is used by a later sync. Delete any other, "
            "so that its content arrives again."
        )
    ]


def _unknown(withdrawn: WithdrawnResult | None) -> list[NextStep]:
    if not (withdrawn and withdrawn.unknown):
        return []
    return [
        NextStep(
            f"To restore the others too, withdraw the operation on {withdrawn.machine!r}, or on "
            "another machine that knew them before."
        )
    ]
