"""The results in `services/results/sync.py` as tables."""

from tribal_mcp.cli.tables import Rows, aligned, as_table, secrets
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.text import memories


@as_table.register
def _(result: SyncResult) -> Rows:
    table = [("machine", result.name)]
    others = ", ".join(sorted(one.name for one in result.replicas))
    table.append(("others", others or "none yet"))
    if result.tags:
        table.append(("shared", f"only with {', '.join(result.tags)}"))
    counts = {"published": result.published, "added": result.added, "changed": result.changed}
    table += aligned({**counts, "deleted": result.deleted, "conflicts": result.conflicts})
    if result.without_vector:
        table.append(("without vector", f"{result.without_vector:,}"))
    if result.kept_private:
        table.append(("not shared", f"{memories(result.kept_private)} here, left as they are"))
    for what in ("missing", "damaged", "repaired", "ignored", "outdated"):
        table += [(what, path) for path in getattr(result, what)]
    table += [("problem", problem) for problem in result.problems]
    for conflict in result.conflict_details:
        shown = "(deleted)" if conflict.deleted else conflict.content
        table += [("conflict", conflict.memory_id), ("visible", shown)]
        for number, version in enumerate(conflict.versions, 1):
            text = "(deleted)" if version.deleted else version.content
            who = f"{version.replica or 'before the first sync'}, {version.at}"
            table.append((f"version {number}", f"{text} ({who})"))
    table += secrets(result.secrets)
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table
