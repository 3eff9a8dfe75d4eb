"""The results in `services/results/sync.py` as tables."""

from tribal_mcp.cli.tables import Rows, aligned, as_table, parts, secrets
from tribal_mcp.services.results.sync import (
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
    "ignored": "not written by a machine: not used",
    "outdated": "replaced since: not used",
}


@as_table.register
def _(result: SyncResult) -> Rows:
    first = " (first sync with this folder)" if result.first_contact else ""
    table = [("machine", result.name + first)]
    others = [one for one in result.replicas if not one.removed]
    names = [one.name for one in others]
    listed = [_machine(one, with_id=names.count(one.name) > 1) for one in others] or ["none yet"]
    table += zip(["others", *[""] * (len(listed) - 1)], listed, strict=True)
    if removed := ", ".join(sorted(one.name for one in result.replicas if one.removed)):
        table.append(("removed", removed))
    if result.tags:
        table.append(("shared", f"only with {', '.join(result.tags)}"))
    counts = {"the same": result.same} if result.same else {}
    counts |= {"published": result.published, "added": result.added, "changed": result.changed}
    table += aligned({**counts, "deleted": result.deleted, "conflicts": result.conflicts})
    details = {
        "without vector": (result.without_vector, "of those that came in"),
        "no longer shared": (result.left_scope, "here, deleted on the others"),
        "not shared": (result.kept_private, "here, left as they are"),
    }
    table += [(w, f"{memories(n)} {what}") for w, (n, what) in details.items() if n]
    for what, meaning in _FILES.items():
        table += [(what, f"{path} ({meaning})") for path in getattr(result, what)]
    table += [("problem", problem) for problem in result.problems]
    for conflict in result.conflict_details:
        shown = "(deleted)" if conflict.deleted else conflict.content
        table += [("conflict", conflict.memory_id), ("visible", shown)]
        for number, version in enumerate(conflict.versions, 1):
            text = "(deleted)" if version.deleted else version.content
            who = filter(None, [version.replica or "before the first sync", version.at])
            table.append((f"version {number}", f"{text} ({', '.join(who)})"))
    for one in result.operations:
        about = f"{_operation(one)}: {memories(one.memories)}"
        table += [("operation", one.operation), ("", about)]
    table += secrets(result.secrets)
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    if result.withdrawn:
        table += _withdrawn(result.withdrawn)
    return table


def _machine(one: ReplicaResult, *, with_id: bool) -> str:
    return f"{one.name}{f' ({one.id})' * with_id}, {one.last_file()}"


def _operation(one: OperationResult | WithdrawnResult) -> str:
    return f"{one.what} {one.source} on {one.machine}, {one.at[:10]}"


def _withdrawn(result: WithdrawnResult) -> Rows:
    counts = {"deleted": result.deleted, "restored": result.restored}
    table = [("withdrawn", _operation(result)), ("", parts(counts) or "nothing left of it")]
    if result.edited:
        table.append(("", f"{memories(result.edited)} edited since: left as they are"))
    if result.unknown:
        what = "not known here as they were before: left as they are"
        table.append(("", f"{memories(result.unknown)} {what}"))
    if result.restore_point:
        table.append(("its restore point", result.restore_point))
    return table
