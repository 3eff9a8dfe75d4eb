"""The results of the use cases as short tables: what a person looks for, a row each."""

from functools import singledispatch

from pydantic import BaseModel

from tribal_mcp.services.results import (
    CheckResult,
    CopyResult,
    EmbeddingResult,
    ExportResult,
    HistoryEntry,
    HistoryResult,
    ImportResult,
    ReembedResult,
    RescueResult,
    UndoResult,
)

Rows = list[tuple[str, str]]

_KILO = 1000


@singledispatch
def rows(_result: BaseModel) -> Rows:
    """The label and the value of each row of a result."""
    return []


@rows.register
def _(result: ExportResult) -> Rows:
    table = [("taken", result.filters), ("model", model(result.embedding))]
    if result.without_vector:
        table.append(("vectors", f"{result.without_vector:,} memories have none"))
    if result.related:
        table.append(("related", f"{result.related:,}, as others name them"))
    if result.deleted:
        table.append(("forgotten", f"{result.deleted:,}"))
    return [*table, ("size", size(result.bytes)), ("sha256", result.sha256)]


@rows.register
def _(result: ImportResult) -> Rows:
    skipped = {
        "the same here": result.identical,
        "older than here": result.older,
        "in conflict": result.conflicts,
        "forgotten here": result.forgotten,
    }
    skipped["different here"] = result.skipped - sum(skipped.values())
    vectors = {
        "kept": result.vectors_kept,
        "made anew": result.vectors_reembedded,
        "dropped": result.vectors_dropped,
        "not in the bundle": result.without_vector - result.vectors_dropped,
    }
    counts = {
        "new": result.imported,
        "overwritten": result.overwritten,
        "skipped": result.skipped,
        "errors": result.errors,
    }
    width = max(len(f"{count:,}") for count in counts.values())
    table = [(label, f"{count:>{width},}") for label, count in counts.items()]
    why = _parts(skipped).removeprefix(f"{result.skipped:,} ")  # one reason for all of them
    table[2] = ("skipped", f"{table[2][1]}   {why}")
    if result.kept_both:
        table.append(("kept both", f"{result.kept_both:,} under a new id"))
    if result.brought_back:
        table.append(("brought back", f"{result.brought_back:,} that were forgotten here"))
    if result.deletions:
        table.append(("forgotten there", f"{result.deletions:,}, of them here {result.deleted:,}"))
    if result.vectors_kept + result.vectors_reembedded + result.without_vector:
        table.append(("vectors", _parts(vectors)))
    if result.plan_path:
        table.append(("plan", result.plan_path))
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table


@rows.register
def _(result: UndoResult) -> Rows:
    counts = {
        "gone again": result.removed,
        "as before again": result.put_back,
        "here again": result.brought_back,
        "forgotten again": result.forgotten,
        "as before already": result.unchanged,
        "changed since": result.changed_since,
    }
    width = max(len(f"{count:,}") for count in counts.values())
    return [(label, f"{count:>{width},}") for label, count in counts.items() if count]


@rows.register
def _(result: HistoryResult) -> Rows:
    return [(operation.point, _of_operation(operation)) for operation in result.operations]


@rows.register
def _(result: CopyResult) -> Rows:
    table = [
        ("from", result.source),
        ("to", result.target),
        ("new there", f"{result.copied:,}"),
        ("replaced", f"{result.replaced:,}"),
        ("the same", f"{result.identical:,}"),
    ]
    if result.others:
        table.append(("others there", f"{result.others:,}, which stay"))
    if result.forgotten:
        table.append(("forgotten", f"{result.forgotten:,}"))
    if result.sha256:
        table.append(("sha256", result.sha256))
    return table


@rows.register
def _(result: ReembedResult) -> Rows:
    table = [("model", result.model), ("memories", f"{result.total:,}")]
    if result.dry_run:
        if result.about_seconds is not None:
            table.append(("takes", f"about {result.about_seconds:,} s"))
        if result.about_tokens is not None:
            table.append(("tokens", f"about {result.about_tokens:,}"))
        return table
    table.append(("embedded", f"{result.embedded:,}"))
    if result.failed:
        table.append(("refused", f"{result.failed:,}"))
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table


def _of_operation(operation: HistoryEntry) -> str:
    did = _parts({what.replace("_", " "): count for what, count in operation.counts.items()})
    state = "" if operation.state == "complete" else f" ({operation.state})"
    how = f" [{operation.how}]" if operation.how else ""
    return f"{operation.operation} {operation.source}{how}: {did or 'nothing'}{state}"


@rows.register
def _(result: CheckResult) -> Rows:
    found = [(problem.kind, problem.message) for problem in result.problems]
    return [*(("mended", sentence) for sentence in result.done), *found]


@rows.register
def _(result: RescueResult) -> Rows:
    table = [("size", size(result.bytes))]
    if result.lost_rows:
        table.append(("lost", f"{result.lost_rows:,} memories could not be read"))
    if result.lost_vectors:
        table.append(("vectors", f"{result.lost_vectors:,} memories have lost theirs"))
    return table


def _parts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def model(embedding: EmbeddingResult) -> str:
    """A model in words."""
    provider = f", {embedding.provider}" if embedding.provider != "unknown" else ""
    return f"{embedding.model_name}, {embedding.dimensions:,} dimensions{provider}"


def size(count: float) -> str:
    """So many bytes, in three digits."""
    for unit in ("bytes", "kB", "MB"):
        if count < _KILO:
            return f"{count:.3g} {unit}"
        count /= _KILO
    return f"{count:,.3g} GB"
