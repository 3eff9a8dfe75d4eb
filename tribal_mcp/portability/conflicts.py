"""The merge rule: what an import does with one entry.

A pure function of what the store has under the id (a memory, a tombstone or nothing), what comes in
(a memory or a tombstone) and the strategy. Under `merge` the later of a memory and a tombstone
wins, the tombstone at equal times. Two stores that merge each other's bundles then agree, except on
memories that differ at the same `updated_at`: those are reported as conflicts, unless only their
vectors differ.

A redacted memory lacks what was secret in it. It never replaces or joins its original.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.memory import MemoryEntry, is_redacted, microseconds
from tribal_mcp.portability.memory_json import digest


class Action(StrEnum):
    """What an import does with one entry."""

    INSERT = "insert"
    OVERWRITE = "overwrite"
    SKIP = "skip"
    DELETE = "delete"
    REFUSE = "refuse"
    """Refuses the whole import."""


class Reason(StrEnum):
    """Why, as a plan shows it."""

    NEW = "new"
    IDENTICAL = "identical"
    KEPT_EXISTING = "kept existing"
    REPLACED = "replaced"
    NEWER = "newer"
    OLDER = "older"
    VECTOR_ADDED = "identical, but with an embedding"
    CHANGED_THERE = "changed in the source"
    EDITED = "edited since the export"
    EDITED_BOTH = "conflict: edited since the export, and changed in this store, too"
    SAME_TIME = "conflict: different content, same updated_at"
    CONFLICT = "conflict: differs from the existing memory"
    KEPT_BOTH = "differs from the existing memory: added under a new id"
    DELETED_HERE = "deleted from this store since"
    RESTORED = "restored: was deleted from this store"
    DELETED_THERE = "deleted from the bundle's store"
    NOT_HERE = "deleted from the bundle's store, not in this one"
    NOT_IN_BUNDLE = "not in the bundle"
    SAME_TEXT = "new, but the text of another memory"
    SAME_TEXT_HERE = "the text of another memory, under another id"
    CHANGED_SINCE = "changed in this store after the bundle's store deleted it"
    REDACTED = "redacted version of the existing memory"
    REDACTED_LATER = "redacted, but changed later than the existing memory: compare by hand"
    COMPLETE = "complete version of a redacted memory"


@dataclass(frozen=True, slots=True)
class Decision:
    """What an import does with one entry, and why."""

    action: Action
    reason: Reason


_NEW = Decision(Action.INSERT, Reason.NEW)
_IDENTICAL = Decision(Action.SKIP, Reason.IDENTICAL)
_KEPT = Decision(Action.SKIP, Reason.KEPT_EXISTING)
_REPLACED = Decision(Action.OVERWRITE, Reason.REPLACED)
_NEWER = Decision(Action.OVERWRITE, Reason.NEWER)
_OLDER = Decision(Action.SKIP, Reason.OLDER)
_VECTOR_ADDED = Decision(Action.OVERWRITE, Reason.VECTOR_ADDED)
_CHANGED_THERE = Decision(Action.OVERWRITE, Reason.CHANGED_THERE)
_EDITED = Decision(Action.OVERWRITE, Reason.EDITED)
_EDITED_BOTH = Decision(Action.SKIP, Reason.EDITED_BOTH)
_SAME_TIME = Decision(Action.SKIP, Reason.SAME_TIME)
_KEPT_BOTH = Decision(Action.INSERT, Reason.KEPT_BOTH)
_CONFLICT = Decision(Action.REFUSE, Reason.CONFLICT)
_DELETED_HERE = Decision(Action.SKIP, Reason.DELETED_HERE)
_RESTORED = Decision(Action.INSERT, Reason.RESTORED)
_REDACTED = Decision(Action.SKIP, Reason.REDACTED)
_REDACTED_LATER = Decision(Action.SKIP, Reason.REDACTED_LATER)
_COMPLETE = Decision(Action.OVERWRITE, Reason.COMPLETE)


def decide(  # noqa: C901, PLR0911 - one return per row of the decision table
    existing: MemoryEntry | int | None,
    incoming: MemoryEntry,
    strategy: ConflictResolution,
    *,
    restore_deleted: bool = False,
    incoming_wins_ties: bool = False,
) -> Decision:
    """The decision for an incoming memory.

    Args:
        existing: what the store has under the id: a memory, None, or a tombstone as the time of
            the deletion in microseconds since 1970-01-01 UTC.
        incoming: the memory from the bundle.
        strategy: how to resolve a conflict.
        restore_deleted: also restore a memory that the store deleted later.
        incoming_wins_ties: under MERGE, take the incoming memory if both have the same
            `updated_at`: it comes from the system that the existing one came from.
    """
    if existing is None:
        return _NEW
    if isinstance(existing, int):
        newer = (
            strategy is ConflictResolution.MIRROR or microseconds(incoming.updated_at) > existing
        )
        return _RESTORED if newer or restore_deleted else _DELETED_HERE
    if existing == incoming:
        return _IDENTICAL
    if is_redacted(incoming) and not is_redacted(existing):
        return _REDACTED_LATER if incoming.updated_at > existing.updated_at else _REDACTED
    same = existing.same_but_for_vector(incoming)
    if strategy in {ConflictResolution.OVERWRITE, ConflictResolution.MIRROR}:
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
        return _tie(existing, incoming, incoming_wins_ties=incoming_wins_ties)
    gains_vector = existing.embedding is None and incoming.embedding is not None
    return _VECTOR_ADDED if gains_vector else _IDENTICAL


def _tie(existing: MemoryEntry, incoming: MemoryEntry, *, incoming_wins_ties: bool) -> Decision:
    """The decision for memories that differ at the same `updated_at`, under MERGE."""
    if is_redacted(existing) and not is_redacted(incoming):
        return _COMPLETE
    return _CHANGED_THERE if incoming_wins_ties else _SAME_TIME


def decide_edited(
    existing: MemoryEntry | int | None,
    incoming: MemoryEntry,
    exported: str,
    strategy: ConflictResolution,
    *,
    restore_deleted: bool = False,
) -> Decision:
    """The decision for a memory that somebody edited in the folder of an export.

    Its `updated_at` is that of the export, as files have no time that counts. So the memory of the
    store is compared with the one that was exported: if it is the same, only the file was changed.

    Args:
        existing: what the store has under the id, as for `decide`.
        incoming: the memory as edited.
        exported: the digest of the memory as exported.
        strategy: how to resolve a conflict; only SKIP also keeps a memory that has none.
        restore_deleted: also restore a memory that the store deleted since the export.
    """
    if not isinstance(existing, MemoryEntry):
        return decide(existing, incoming, strategy, restore_deleted=restore_deleted)
    if replace(incoming, updated_at=existing.updated_at).same_but_for_vector(existing):
        return _IDENTICAL
    if is_redacted(incoming) and not is_redacted(existing):
        return _REDACTED_LATER
    if digest(existing) == exported:
        return _KEPT if strategy is ConflictResolution.SKIP else _EDITED
    if strategy is ConflictResolution.MERGE:
        return _EDITED_BOTH
    return decide(existing, incoming, strategy)


def decide_deleted(
    existing: MemoryEntry | int | None, deleted_at_us: int, strategy: ConflictResolution
) -> Decision:
    """The decision for an incoming tombstone.

    Args:
        existing: what the store has under the id, as for `decide`.
        deleted_at_us: when the memory was deleted, in microseconds since 1970-01-01 UTC.
        strategy: only MERGE, OVERWRITE and MIRROR delete.
    """
    if not isinstance(existing, MemoryEntry):
        return Decision(Action.SKIP, Reason.NOT_HERE)
    match strategy:
        case ConflictResolution.OVERWRITE | ConflictResolution.MIRROR:
            return Decision(Action.DELETE, Reason.DELETED_THERE)
        case ConflictResolution.MERGE:
            if microseconds(existing.updated_at) > deleted_at_us:
                return Decision(Action.SKIP, Reason.CHANGED_SINCE)
            return Decision(Action.DELETE, Reason.DELETED_THERE)
        case ConflictResolution.FAIL:
            return _CONFLICT
        case _:
            return _KEPT
