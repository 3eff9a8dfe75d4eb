"""The merge rule: every case of existing memory, incoming memory and strategy."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.examples import BEGIN, memory, vector
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.conflicts import Action, Reason, decide, decide_deleted, decide_edited
from tribal_mcp.portability.memory import MemoryEntry, microseconds

SKIP, OVERWRITE, MERGE, KEEP_BOTH, FAIL, MIRROR = ConflictResolution

OLD = memory(1)
LATER = BEGIN + timedelta(days=9)
EARLIER = BEGIN - timedelta(days=9)
BARE = memory(1, embedding=None)

CASES: dict[str, tuple[MemoryEntry | None, MemoryEntry, tuple[Reason, Reason, Reason]]] = {
    # existing, incoming, the reasons under skip, overwrite and merge
    "new": (None, OLD, (Reason.NEW, Reason.NEW, Reason.NEW)),
    "the same": (OLD, memory(1), (Reason.IDENTICAL, Reason.IDENTICAL, Reason.IDENTICAL)),
    "the same in another time zone": (
        OLD,
        memory(1, verbatim={"created_at": "2026-01-01T02:00:00+01:00"}),
        (Reason.IDENTICAL, Reason.IDENTICAL, Reason.IDENTICAL),
    ),
    "newer": (
        OLD,
        memory(1, content="new", updated_at=LATER),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.NEWER),
    ),
    "older": (
        OLD,
        memory(1, content="old", updated_at=EARLIER),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.OLDER),
    ),
    "newer with the same content": (
        OLD,
        memory(1, updated_at=LATER),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.NEWER),
    ),
    "other content at the same time": (
        OLD,
        memory(1, content="other"),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.SAME_TIME),
    ),
    "other tags at the same time": (
        OLD,
        memory(1, tags=["other"]),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.SAME_TIME),
    ),
    "other metadata at the same time": (
        OLD,
        memory(1, metadata={"x": 1}),
        (Reason.KEPT_EXISTING, Reason.REPLACED, Reason.SAME_TIME),
    ),
    "the same, with a vector": (
        BARE,
        OLD,
        (Reason.IDENTICAL, Reason.REPLACED, Reason.VECTOR_ADDED),
    ),
    "the same, without its vector": (
        OLD,
        BARE,
        (Reason.IDENTICAL, Reason.REPLACED, Reason.IDENTICAL),
    ),
    "the same with another vector": (
        OLD,
        memory(1, embedding=vector(2)),
        (Reason.IDENTICAL, Reason.REPLACED, Reason.IDENTICAL),
    ),
}
ACTIONS = {
    Reason.NEW: Action.INSERT,
    Reason.REPLACED: Action.OVERWRITE,
    Reason.NEWER: Action.OVERWRITE,
    Reason.VECTOR_ADDED: Action.OVERWRITE,
}


@pytest.mark.parametrize("case", CASES)
def test_each_strategy_decides_each_case(case: str) -> None:
    existing, incoming, reasons = CASES[case]
    for strategy, reason in zip((SKIP, OVERWRITE, MERGE), reasons, strict=True):
        decision = decide(existing, incoming, strategy)
        assert (decision.reason, decision.action) == (reason, ACTIONS.get(reason, Action.SKIP))


MARKED = [
    {"extra": {"redacted_kinds": ["password"]}},
    {"content": "it is [redacted:password:1]"},  # another format lost the field
    {"tags": ["[redacted:api-key:2]"]},
    {"context": "from [redacted:email-address:1]"},
    {"metadata": {"login": {"password": "[redacted:password:1]"}}},
]


@pytest.mark.parametrize("marked", MARKED, ids=lambda marked: next(iter(marked)))
@pytest.mark.parametrize("strategy", ConflictResolution)
def test_a_redacted_memory_never_replaces_its_original(
    strategy: ConflictResolution, marked: dict[str, Any]
) -> None:
    redacted = memory(1, embedding=None, **marked)
    decision = decide(OLD, redacted, strategy, incoming_wins_ties=True)
    assert (decision.action, decision.reason) == (Action.SKIP, Reason.REDACTED)
    later = replace(redacted, updated_at=LATER)
    assert decide(OLD, later, strategy).reason is Reason.REDACTED_LATER
    assert decide_edited(OLD, redacted, "", strategy).reason is Reason.REDACTED_LATER
    assert decide(redacted, redacted, strategy).reason is Reason.IDENTICAL
    other = replace(redacted, content="other [redacted:password:1]", updated_at=LATER)
    assert decide(redacted, other, OVERWRITE).reason is Reason.REPLACED
    assert decide(None, redacted, strategy).reason is Reason.NEW


def test_the_original_completes_a_redacted_memory_when_merging() -> None:
    redacted = memory(1, embedding=None, extra={"redacted_kinds": ["password"]})
    assert decide(redacted, OLD, MERGE).reason is Reason.COMPLETE
    assert decide(replace(redacted, updated_at=LATER), OLD, MERGE).reason is Reason.OLDER


@pytest.mark.parametrize("extra", [{}, {"redacted_kinds": []}, {"redacted_kinds": "x"}], ids=str)
def test_other_fields_and_texts_are_no_mark(extra: dict[str, Any]) -> None:
    for content in ("[redacted]", "[redacted:Password:1]", "[redacted:x]"):
        incoming = memory(1, content=content, extra=extra)
        assert decide(OLD, incoming, OVERWRITE).reason is Reason.REPLACED


BOTH_AND_FAIL: dict[str, tuple[MemoryEntry, Reason, Reason]] = {
    # incoming for OLD, the reasons under keep_both and fail
    "the same": (memory(1), Reason.IDENTICAL, Reason.IDENTICAL),
    "newer content": (
        memory(1, content="new", updated_at=LATER),
        Reason.KEPT_BOTH,
        Reason.CONFLICT,
    ),
    "older content": (
        memory(1, content="old", updated_at=EARLIER),
        Reason.KEPT_BOTH,
        Reason.CONFLICT,
    ),
    "another vector": (memory(1, embedding=vector(2)), Reason.IDENTICAL, Reason.IDENTICAL),
}


@pytest.mark.parametrize("case", BOTH_AND_FAIL)
def test_keep_both_adds_and_fail_refuses_what_differs(case: str) -> None:
    incoming, both, fail = BOTH_AND_FAIL[case]
    actions = {Reason.KEPT_BOTH: Action.INSERT, Reason.CONFLICT: Action.REFUSE}
    for strategy, reason in ((KEEP_BOTH, both), (FAIL, fail)):
        decision = decide(OLD, incoming, strategy)
        assert (decision.reason, decision.action) == (reason, actions.get(reason, Action.SKIP))
        assert decide(BARE, OLD, strategy).reason is Reason.VECTOR_ADDED


@pytest.mark.parametrize("strategy", [s for s in ConflictResolution if s is not MIRROR])
def test_a_memory_restores_a_deleted_one_if_it_is_newer_or_restoring_is_requested(
    strategy: ConflictResolution,
) -> None:
    deleted_at = microseconds(OLD.updated_at)
    skipped = (Action.SKIP, Reason.DELETED_HERE)
    restored = (Action.INSERT, Reason.RESTORED)
    for deleted_at_us, restore_deleted, expected in (
        (deleted_at - 1, False, restored),
        (deleted_at, False, skipped),
        (deleted_at + 1, False, skipped),
        (deleted_at + 1, True, restored),
    ):
        decision = decide(deleted_at_us, OLD, strategy, restore_deleted=restore_deleted)
        assert (decision.action, decision.reason) == expected


def test_mirror_restores_every_deleted_memory_of_the_bundle() -> None:
    decision = decide(microseconds(OLD.updated_at) + 1, OLD, MIRROR)
    assert (decision.action, decision.reason) == (Action.INSERT, Reason.RESTORED)


@pytest.mark.parametrize(
    ("strategy", "after", "expected"),
    [
        # after: microseconds from the last update of the memory to its deletion elsewhere
        (OVERWRITE, -1, (Action.DELETE, Reason.DELETED_THERE)),
        (MIRROR, -1, (Action.DELETE, Reason.DELETED_THERE)),
        (MERGE, -1, (Action.SKIP, Reason.CHANGED_SINCE)),
        (MERGE, 0, (Action.DELETE, Reason.DELETED_THERE)),
        (MERGE, 1, (Action.DELETE, Reason.DELETED_THERE)),
        (FAIL, 1, (Action.REFUSE, Reason.CONFLICT)),
        (SKIP, 1, (Action.SKIP, Reason.KEPT_EXISTING)),
        (KEEP_BOTH, 1, (Action.SKIP, Reason.KEPT_EXISTING)),
    ],
)
def test_a_tombstone_deletes_under_merge_overwrite_and_mirror(
    strategy: ConflictResolution, after: int, expected: tuple[Action, Reason]
) -> None:
    decision = decide_deleted(OLD, microseconds(OLD.updated_at) + after, strategy)
    assert (decision.action, decision.reason) == expected


@pytest.mark.parametrize("existing", [None, 5])
@pytest.mark.parametrize("strategy", ConflictResolution)
def test_a_tombstone_without_an_existing_memory_is_skipped(
    strategy: ConflictResolution, existing: int | None
) -> None:
    decision = decide_deleted(existing, 1, strategy)
    assert (decision.action, decision.reason) == (Action.SKIP, Reason.NOT_HERE)
