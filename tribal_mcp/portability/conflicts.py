"""What happens to an incoming entry: a pure function of it, the existing one and the strategy."""

from dataclasses import dataclass
from enum import StrEnum

from tribal_mcp.portability.memory import MemoryEntry, same_vector


class ConflictResolution(StrEnum):
    """Which entry stays when both sides have the same id."""

    SKIP = "skip"
    """The existing one."""
    OVERWRITE = "overwrite"
    """The incoming one."""
    MERGE = "merge"
    """The one with the newer `updated_at`; the existing one when both are the same."""


class Action(StrEnum):
    """What an import does with one entry."""

    INSERT = "insert"
    OVERWRITE = "overwrite"
    SKIP = "skip"
    REJECT = "reject"


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


def decide(  # noqa: PLR0911 - one return for each row of the table
    existing: MemoryEntry | None, incoming: MemoryEntry, strategy: ConflictResolution
) -> Decision:
    """The action for `incoming`, whose id `existing` shares or is None."""
    if existing is None:
        return _NEW
    same = existing.same_but_for_vector(incoming)
    if same and same_vector(existing.embedding, incoming.embedding):
        return _IDENTICAL
    if strategy is ConflictResolution.OVERWRITE:
        return _REPLACED
    if strategy is ConflictResolution.SKIP:
        return _IDENTICAL if same else _KEPT
    if incoming.updated_at != existing.updated_at:
        return _NEWER if incoming.updated_at > existing.updated_at else _OLDER
    if not same:
        return _SAME_TIME
    return _VECTOR_ADDED if existing.embedding is None else _IDENTICAL
