"""The merge rule: every case of existing memory, incoming memory and strategy."""

from datetime import timedelta

import pytest

from tests.support.examples import BEGIN, memory, vector
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.conflicts import Action, Reason, decide
from tribal_mcp.portability.memory import MemoryEntry

SKIP, OVERWRITE, MERGE, KEEP_BOTH, FAIL = ConflictResolution

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
