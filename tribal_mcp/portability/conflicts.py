"""What happens to what comes in: a pure function of it, of what is here and of the strategy.

What is here may be a memory, a tombstone or nothing; what comes in a memory or a tombstone. Between
a memory and a tombstone the later one wins, and the tombstone when both are of the same time, so
that two stores that take each other's bundles end alike, in whatever order.
"""

from dataclasses import dataclass
from enum import StrEnum

from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.memory import MemoryEntry, microseconds


class Action(StrEnum):
    """What an import does with one entry."""

    INSERT = "insert"
    OVERWRITE = "overwrite"
    SKIP = "skip"
    DELETE = "delete"
    REFUSE = "refuse"
    """The whole import."""


class Reason(StrEnum):
    """Why."""

    NEW = "new"
    IDENTICAL = "identical"
    KEPT_EXISTING = "kept existing"
    REPLACED = "replaced"
    NEWER = "newer"
    OLDER = "older"
    VECTOR_ADDED = "the same, with a vector now"
    SAME_TIME = "conflict: other content, same updated_at"
    CONFLICT = "conflict: the memory here differs"
    KEPT_BOTH = "differs from the memory here: kept beside it under a new id"
    FORGOTTEN_HERE = "forgotten here since"
    BROUGHT_BACK = "forgotten here, brought back"
    FORGOTTEN_THERE = "forgotten there"
    NOT_HERE = "forgotten there, and not here"
    CHANGED_SINCE = "changed here since it was forgotten there"


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry's part in the plan of an import."""

    action: Action
    reason: Reason


_NEW = Decision(Action.INSERT, Reason.NEW)
_IDENTICAL = Decision(Action.SKIP, Reason.IDENTICAL)
_KEPT = Decision(Action.SKIP, Reason.KEPT_EXISTING)
_REPLACED = Decision(Action.OVERWRITE, Reason.REPLACED)
_NEWER = Decision(Action.OVERWRITE, Reason.NEWER)
_OLDER = Decision(Action.SKIP, Reason.OLDER)
_VECTOR_ADDED = Decision(Action.OVERWRITE, Reason.VECTOR_ADDED)
_SAME_TIME = Decision(Action.SKIP, Reason.SAME_TIME)
_KEPT_BOTH = Decision(Action.INSERT, Reason.KEPT_BOTH)
_CONFLICT = Decision(Action.REFUSE, Reason.CONFLICT)
_FORGOTTEN_HERE = Decision(Action.SKIP, Reason.FORGOTTEN_HERE)
_BROUGHT_BACK = Decision(Action.INSERT, Reason.BROUGHT_BACK)


def decide(  # noqa: PLR0911 - one return for each row of the table
    existing: MemoryEntry | int | None,
    incoming: MemoryEntry,
    strategy: ConflictResolution,
    *,
    restore_deleted: bool = False,
) -> Decision:
    """The action for a memory that comes in.

    Args:
        existing: what is here under its id: a memory, nothing, or a tombstone, as the time in
            microseconds UTC at which its memory was forgotten.
        incoming: the memory.
        strategy: what is to happen where both sides have the id.
        restore_deleted: a memory that was forgotten here comes back in any case.
    """
    if existing is None:
        return _NEW
    if isinstance(existing, int):
        newer = microseconds(incoming.updated_at) > existing
        return _BROUGHT_BACK if newer or restore_deleted else _FORGOTTEN_HERE
    if existing == incoming:
        return _IDENTICAL
    same = existing.same_but_for_vector(incoming)
    if strategy is ConflictResolution.OVERWRITE:
        return _REPLACED
    if strategy is ConflictResolution.SKIP:
        return _IDENTICAL if same else _KEPT
    if not same and strategy is ConflictResolution.KEEP_BOTH:
        return _KEPT_BOTH
    if not same and strategy is ConflictResolution.FAIL:
        return _CONFLICT
    if incoming.updated_at != existing.updated_at:
        return _NEWER if incoming.updated_at > existing.updated_at else _OLDER
    if not same:
        return _SAME_TIME
    lacking = existing.embedding is None and incoming.embedding is not None
    return _VECTOR_ADDED if lacking else _IDENTICAL


def decide_deleted(
    existing: MemoryEntry | int | None, deleted_at_us: int, strategy: ConflictResolution
) -> Decision:
    """The action for a tombstone that comes in.

    Args:
        existing: what is here under its id, as for `decide`.
        deleted_at_us: when the memory was forgotten there, in microseconds UTC.
        strategy: only MERGE and OVERWRITE delete.
    """
    if not isinstance(existing, MemoryEntry):
        return Decision(Action.SKIP, Reason.NOT_HERE)
    match strategy:
        case ConflictResolution.OVERWRITE:
            return Decision(Action.DELETE, Reason.FORGOTTEN_THERE)
        case ConflictResolution.MERGE:
            if microseconds(existing.updated_at) > deleted_at_us:
                return Decision(Action.SKIP, Reason.CHANGED_SINCE)
            return Decision(Action.DELETE, Reason.FORGOTTEN_THERE)
        case ConflictResolution.FAIL:
            return _CONFLICT
        case _:
            return _KEPT
