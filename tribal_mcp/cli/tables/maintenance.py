"""The results in `services/results/maintenance.py` as tables."""

from tribal_mcp.cli.tables import DAY, Rows, aligned, as_table, size_of
from tribal_mcp.services.results.maintenance import (
    CheckResult,
    CopyResult,
    DiscoverResult,
    FoundSource,
    ReembedResult,
    RescueResult,
    SetupResult,
)
from tribal_mcp.text import memories


@as_table.register
def _(result: CheckResult) -> Rows:
    found = [(problem.kind, problem.message) for problem in result.problems]
    return [*(("repaired", sentence) for sentence in result.done), *found]


@as_table.register
def _(result: RescueResult) -> Rows:
    table = [("size", size_of(result.bytes))]
    if result.lost_rows:
        table.append(("lost", f"{memories(result.lost_rows)} could not be read"))
    if result.lost_vectors:
        table.append(("vectors", f"{memories(result.lost_vectors)} lost the vector"))
    return table


@as_table.register
def _(result: CopyResult) -> Rows:
    counts = {"copied": result.copied, "replaced": result.replaced, "identical": result.identical}
    table = [("from", result.source), ("to", result.target), *aligned(counts)]
    if result.others:
        table.append(("other", f"{memories(result.others)} only in the target, kept"))
    if result.forgotten:
        table.append(("tombstones", f"{result.forgotten:,}"))
    if result.sha256:
        table.append(("sha256", result.sha256))
    return table


@as_table.register
def _(result: ReembedResult) -> Rows:
    table = [("model", result.model), ("memories", f"{result.total:,}")]
    if result.dry_run:
        if result.about_seconds is not None:
            table.append(("duration", f"about {result.about_seconds:,} s"))
        if result.about_tokens is not None:
            table.append(("tokens", f"about {result.about_tokens:,}"))
        return table
    table.append(("embedded", f"{result.embedded:,}"))
    if result.failed:
        table.append(("failed", f"{result.failed:,} rejected by the model"))
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table


@as_table.register
def _(result: SetupResult) -> Rows:
    return [("folder", result.folder), ("per question", f"{result.ms_per_question:g} ms")]


@as_table.register
def _(result: DiscoverResult) -> Rows:
    return [(source.system, _of_source(source)) for source in result.sources]


def _of_source(source: FoundSource) -> str:
    if source.problem:
        return f"{source.path}: {source.problem}"
    newest = f", newest {source.newest[:DAY]}" if source.newest else ""
    return f"{source.path}: {memories(source.count)}{newest}, {source.imported:,} imported"
