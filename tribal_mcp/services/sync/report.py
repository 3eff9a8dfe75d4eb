"""What the result of a sync says: the machines, the conflicts, and what to do next."""

from collections.abc import Sequence

from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.memory import from_microseconds
from tribal_mcp.portability.replication.versions import Version, visible
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.results.sync import (
    ConflictResult,
    ConflictVersion,
    ReplicaResult,
    SyncResult,
    WithdrawnResult,
)
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.text import counted

_CONFLICTS = 100

LIST = NextStep("To list the conflicts, run {call}.", "sync", {"folder": ..., "conflicts": True})


def describe(result: SyncResult, state: SyncState, *, conflicts: bool) -> None:
    """Add the machines and the conflicts to a result.

    Args:
        result: of the sync.
        state: what is known of the shared folder.
        conflicts: list the conflicts, too.
    """
    result.replica, result.name = state["replica"], state["name"]
    result.replicas = [
        ReplicaResult(id=i, name=one.name, files=one.number, removed=i in state.removed)
        for i, one in state.replicas().items()
    ]
    found = [c for c in (_conflict(state, i) for i in state.conflicting()) if c.versions]
    result.conflicts = len(found)
    if result.first_contact and found:
        differ = counted(len(found), "memory differs", "memories differ")
        result.notes.append(
            f"{differ} between this store and the folder. The later version is visible, and the "
            "other is kept as a conflict."
        )
    if conflicts:
        result.conflict_details = found[:_CONFLICTS]


def _conflict(state: SyncState, memory_id: str) -> ConflictResult:
    heads = state.rows([memory_id])[memory_id].known.heads
    seen = visible(heads)
    names = {i: one.name for i, one in state.replicas().items()}
    names[state["replica"]] = state["name"]
    return ConflictResult(
        memory_id=memory_id,
        content=seen.fields["content"] if seen.fields else "",
        deleted=seen.fields is None,
        versions=[
            _version(head, names, seen.others[head.stamp])
            for head in heads
            if head.stamp in seen.others
        ],
    )


def _version(head: Version, names: dict[str, str], fields: Sequence[str]) -> ConflictVersion:
    return ConflictVersion(
        replica=names.get(head.stamp.replica, ""),
        at=_time(head.stamp.wall),
        fields=sorted(filter(None, fields)),
        deleted=head.fields is None,
        content=head.fields["content"] if head.fields else "",
    )


def _time(wall_us: int) -> str:
    try:
        return from_microseconds(wall_us).isoformat(timespec="seconds")
    except OverflowError:
        return ""


def next_steps(result: SyncResult, request: SyncRequest, *, embeds: bool) -> list[NextStep]:
    """What to do after a sync; `embeds` is whether a model is configured."""
    folder = {"folder": result.folder}
    if result.dry_run:
        given = request.model_dump(exclude_defaults=True) | folder | {"dry_run": False}
        steps = [NextStep("Nothing was changed. To sync, run {call}.", "sync", given)]
        if result.conflicts and not request.conflicts:
            see = {**given, "conflicts": True, "dry_run": True}
            steps.append(NextStep("To see the conflicts first, run {call}.", "sync", see))
        return [*steps, *_unknown(result.withdrawn)]
    steps = _unknown(result.withdrawn)
    if result.conflicts and not request.conflicts:
        listed = {**folder, "conflicts": True}
        steps.append(NextStep("To see the conflicts, run {call}.", "sync", listed))
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
    if result.without_vector and embeds:
        steps.append(NextStep("To embed what came without a vector, run {call}.", "reembed"))
    if result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(
            NextStep(
                "To undo what came in, run {call}; the next sync then undoes it on all machines.",
                "undo",
                undo,
            )
        )
    if result.withdrawn and result.withdrawn.restore_point:
        undo = {"point": result.withdrawn.restore_point}
        steps.append(NextStep("To undo the withdrawal, run {call}.", "undo", undo))
    return steps


def _unknown(withdrawn: WithdrawnResult | None) -> list[NextStep]:
    if not (withdrawn and withdrawn.unknown):
        return []
    return [
        NextStep(
            f"To restore the others too, withdraw the operation on {withdrawn.machine!r}, or on "
            "another machine that knew them before."
        )
    ]
