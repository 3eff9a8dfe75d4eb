"""The results in `services/results/sync.py` as tables."""

import json
from collections import Counter
from typing import Any

from tribal_mcp.cli.tables import Rows, aligned, as_table, parts, secrets
from tribal_mcp.services.results.sync import (
    ConflictResult,
    OperationResult,
    ReplicaResult,
    SyncResult,
    WithdrawnResult,
)
from tribal_mcp.text import memories

_FILES = {
    "missing": "not here yet",
    "damaged": "incomplete or altered: not used",
    "repaired": "was lost: published again",
    "ignored": "no machine gave it this name: not used, you can delete it",
    "outdated": "replaced since: not used",
}
_QUIET_DAYS = 2
"""A machine that has read something says so within a day, if it is in use."""


@as_table.register
def _(result: SyncResult) -> Rows:
    table = _machines(result)
    counts = {"the same": result.same} if result.same else {}
    counts |= {"published": result.published, "added": result.added, "changed": result.changed}
    counts |= {"deleted": result.deleted, "conflicts": result.conflicts}
    table += aligned(counts | ({"resolved": result.resolved} if result.resolved else {}))
    details = {
        "no longer shared": (result.left_scope, "kept here, deleted on the others"),
        "not shared": (result.kept_private, "not changed"),
    }
    if n := result.without_vector:
        table.append(("without vector", f"{n:,} of the memories that came in"))
    table += [(label, f"{memories(n)}: {what}") for label, (n, what) in details.items() if n]
    for what, meaning in _FILES.items():
        table += [(what, f"{path} ({meaning})") for path in getattr(result, what)]
    table += [("problem", problem) for problem in result.problems]
    for conflict in result.conflict_details:
        table += _conflict(conflict)
    for one in result.operations:
        about = f"{_operation(one)}: {memories(one.memories)}"
        table += [("operation", one.operation), ("", about)]
    table += secrets(result.secrets)
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    if result.withdrawn:
        table += _withdrawn(result.withdrawn)
    return table


def _machines(result: SyncResult) -> Rows:
    first = " (first sync with this folder)" if result.first_contact else ""
    table = [("machine", result.name + first)]
    names = Counter([result.name, *(one.name for one in result.replicas)])
    others = sorted(_machine(one, names) for one in result.replicas if not one.removed)
    table += zip(["others", *[""] * len(others)], others or ["none yet"], strict=False)
    if removed := ", ".join(sorted(one.name for one in result.replicas if one.removed)):
        table.append(("removed", removed))
    if result.tags:
        table.append(("shared", f"memories tagged {' or '.join(map(repr, result.tags))}"))
    elif result.first_contact:
        table.append(("shared", "all memories"))
    return table


def _machine(one: ReplicaResult, names: Counter[str]) -> str:
    which = f" ({one.id})" if names[one.name] > 1 else ""
    is_behind = one.unread > 0 and one.quiet_days >= _QUIET_DAYS
    return f"{one.name}{which}, {one.last_file()}" + "; has not read what is new here" * is_behind


def _conflict(conflict: ConflictResult) -> Rows:
    shown = "(deleted)" if conflict.deleted else conflict.content
    table = [("conflict", conflict.memory_id), ("visible", shown), *_fields(conflict.values)]
    for number, version in enumerate(conflict.versions, 1):
        at = version.at[:16].replace("T", " ") + " UTC" * bool(version.at)
        made = ", ".join(filter(None, [version.replica or "before the first sync", at]))
        table.append((f"version {number}", made))
        if version.deleted:
            table.append(("", "(deleted)"))
        elif "content" in version.fields or not version.fields:
            table.append(("", version.content))
        table += _fields(version.values)
    return table


def _fields(values: dict[str, Any]) -> Rows:
    return [
        (
            "",
            f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}",
        )
        for name, value in values.items()
        if name != "content"
    ]


def _operation(one: OperationResult | WithdrawnResult) -> str:
    return f"{one.what} {one.source} on {one.machine}, {one.at[:10]}"


def _withdrawn(result: WithdrawnResult) -> Rows:
    counts = {"deleted": result.deleted, "restored": result.restored}
    table = [("withdrawn", _operation(result)), ("", parts(counts) or "nothing of it is left")]
    if result.edited:
        table.append(("", f"{memories(result.edited)} edited since: not changed"))
    if result.unknown:
        what = "whose earlier version is not kept here: not changed"
        table.append(("", f"{memories(result.unknown)} {what}"))
    if result.restore_point:
        table.append(("its restore point", result.restore_point))
    return table
