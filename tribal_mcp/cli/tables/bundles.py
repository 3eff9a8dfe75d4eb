"""The results in `services/results/bundles.py` as tables."""

from tribal_mcp.cli.tables import (
    Rows,
    aligned,
    as_table,
    details,
    model_of,
    parts,
    secrets,
    size_of,
    without_vector,
)
from tribal_mcp.services.results.bundles import ChangeResult, ExportResult, ImportResult, Lost
from tribal_mcp.text import counted, memories


@as_table.register
def _(result: ExportResult) -> Rows:
    table = [("selection", result.filters)]
    if result.format:
        table.append(("format", result.format))
        table += [("" if n else "lost", _lost(lost)) for n, lost in enumerate(result.lost)]
        return table if result.dry_run else [*table, ("size", size_of(result.bytes))]
    table.append(("model", model_of(result.embedding)))
    if result.without_vector:
        table.append(("vectors", without_vector(result.without_vector)))
    if result.related:
        table.append(("related", f"{memories(result.related)} added for references"))
    if result.deleted:
        table.append(("tombstones", f"{result.deleted:,}"))
    table += secrets(result.secrets)
    return [*table, ("size", size_of(result.bytes)), ("sha256", result.sha256)]


def _lost(lost: Lost) -> str:
    more = ", …" if lost.memories > len(lost.examples) else ""
    return f"{lost.what}: {memories(lost.memories)} ({', '.join(lost.examples)}{more})"


@as_table.register
def _(result: ImportResult) -> Rows:
    table = aligned(
        {
            "new": result.imported,
            "overwritten": result.overwritten,
            "skipped": result.skipped,
            "errors": result.errors,
        }
    )
    table[2] = ("skipped", f"{table[2][1]}   {_why_skipped(result)}")
    if result.same_text:
        table.append(("same text", f"{result.same_text:,} of the new, with another memory's text"))
    if result.kept_both:
        table.append(("kept both", f"{result.kept_both:,} stored under a new id"))
    if result.brought_back:
        table.append(("restored", f"{result.brought_back:,} deleted here before"))
    if result.deletions:
        deleted = f"{memories(result.deleted)} deleted here"
        table.append(("tombstones", f"{result.deletions:,}, {deleted}"))
    elif result.deleted:
        table.append(("deleted", memories(result.deleted)))
    table += _vectors_of(result) + secrets(result.secrets)
    if result.left_out:
        table.append(("left out", f"{result.left_out:,} of {counted(result.found, 'record')}"))
    if result.missing:
        table.append(("missing", f"{memories(result.missing)} that the source no longer has"))
    if result.plan_path:
        table.append(("plan", result.plan_path))
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table


def _vectors_of(result: ImportResult) -> Rows:
    if not result.vectors_kept + result.vectors_reembedded + result.without_vector:
        return []
    source = "source" if result.format else "bundle"
    vectors = {
        "kept": result.vectors_kept,
        "computed": result.vectors_reembedded,
        "dropped": result.vectors_dropped,
        f"missing in the {source}": result.without_vector - result.vectors_dropped,
    }
    return [("vectors", parts(vectors))]


def _why_skipped(result: ImportResult) -> str:
    reasons = {
        "identical": result.identical,
        "older": result.older,
        "conflicting": result.conflicts,
        "deleted here": result.forgotten,
        "same text": result.same_text_skipped,
        "redacted": result.redacted,
    }
    reasons["different"] = result.skipped - sum(reasons.values())
    return parts(reasons).removeprefix(f"{result.skipped:,} ")  # one reason for all of them


@details.register
def _(result: ImportResult) -> list[str]:
    return _changes(result) + _errors(result)


def _changes(result: ImportResult) -> list[str]:
    """The first changes of a dry run, with the words that change."""
    if not result.dry_run or not result.changes:
        return []
    lines = [""]
    for change in result.changes:
        about = f" ({change.reason})" if change.action == "skip" else ""  # a conflict
        lines.append(f"{change.action} {change.id}  {_words(change)}{about}")
    shown = sum(change.action != "skip" for change in result.changes)
    more = result.imported + result.overwritten + result.deleted - shown
    return [*lines, f"… and {more:,} more; --plan writes all of them to a file"] if more else lines


def _words(change: ChangeResult) -> str:
    if change.here and change.bundle != change.here:
        return f"“{change.here}” → “{change.bundle}”" if change.bundle else f"“{change.here}”"
    from tribal_mcp.portability.conflicts import Reason  # noqa: PLC0415 - only for a dry run

    about = ", ".join(change.fields)
    if change.reason == Reason.SAME_TEXT:
        about = "the text of another memory"
    return f"“{change.bundle}”" + (f" ({about})" if about else "")


def _errors(result: ImportResult) -> list[str]:
    if not result.errors:
        return []
    more = result.errors - len(result.error_details)
    return ["", *result.error_details, *([f"… and {more:,} more"] if more else [])]
