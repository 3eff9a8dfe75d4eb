"""The results in `services/results/store.py` as tables."""

from tribal_mcp.cli.tables import (
    DAY,
    Rows,
    aligned,
    as_table,
    by_name,
    model_of,
    parts,
    size_of,
    without_vector,
)
from tribal_mcp.services.results.store import (
    HistoryEntry,
    HistoryResult,
    StatsResult,
    UndoResult,
    WhereResult,
)
from tribal_mcp.text import counted


@as_table.register
def _(result: StatsResult) -> Rows:
    place = "server" if "://" in result.data_dir else "folder"
    found = [(place, result.data_dir), ("collection", result.collection)]
    if result.embedding:
        found.append(("model", model_of(result.embedding)))
    if result.other_models:
        found.append(("other models", by_name(result.other_models)))
    if result.without_vector:
        found.append(("vectors", without_vector(result.without_vector)))
    if result.forgotten:
        found.append(("tombstones", f"{result.forgotten:,}"))
    if result.tags:
        more = f", and {counted(result.other_tags, 'more tag')}" if result.other_tags else ""
        found.append(("tags", by_name(result.tags) + more))
    for label, counts in (("sources", result.sources), ("months", result.months)):
        if counts:
            found.append((label, by_name(counts)))
    if result.bytes:
        found.append(("size", size_of(result.bytes)))
    if last := result.last_export:
        what = f"{last.at[:DAY]}, {last.filters} ({last.memory_count:,}), {last.path}"
        found.append(("last export", what))
    return found


@as_table.register
def _(result: WhereResult) -> Rows:
    return [(one.variable, f"{one.value or '-'}  ({one.source})") for one in result.settings]


@as_table.register
def _(result: UndoResult) -> Rows:
    counts = {
        "removed": result.removed,
        "reverted": result.put_back,
        "restored": result.brought_back,
        "deleted again": result.forgotten,
        "unchanged": result.unchanged,
        "edited since": result.changed_since,
        "edits kept": result.kept_edits,
    }
    return aligned({label: count for label, count in counts.items() if count})


@as_table.register
def _(result: HistoryResult) -> Rows:
    table: Rows = []
    for operation in result.operations:
        table += [(operation.point, _what_changed(operation)), ("", _when(operation))]
    return table


def _what_changed(operation: HistoryEntry) -> str:
    did = parts({what.replace("_", " "): count for what, count in operation.counts.items()})
    if not did:
        did = "not counted" if operation.state == "interrupted" else "no changes"
    how = f" [{operation.how}]" if operation.how else ""
    return f"{operation.operation} {operation.source}".rstrip() + f"{how}: {did}"


def _when(operation: HistoryEntry) -> str:
    states = [] if operation.state == "complete" else [operation.state]
    if not operation.can_undo and operation.state != "undone":
        states.append("can't be undone")
    return ", ".join([operation.local_time, size_of(operation.bytes), *states])
