"""The results of the use cases as short tables.

(Over 300 lines: one function for each result, of which none is long.)
"""

import json
from functools import singledispatch
from typing import Any

from pydantic import BaseModel

from tribal_mcp.services.results import (
    BackupResult,
    BackupsResult,
    CheckResult,
    CopyResult,
    DiscoverResult,
    EmbeddingResult,
    ExportResult,
    ForgetResult,
    FoundSource,
    HistoryEntry,
    HistoryResult,
    Hit,
    ImportResult,
    KeyResult,
    Lost,
    RecallResult,
    ReembedResult,
    RememberResult,
    RescueResult,
    SecretsResult,
    SetupResult,
    ShowResult,
    StatsResult,
    SyncResult,
    UndoResult,
    WhereResult,
)
from tribal_mcp.text import counted, memories

Rows = list[tuple[str, str]]

_DAY = len("2026-01-15")
_KILO = 1000


@singledispatch
def rows(_result: BaseModel) -> Rows:
    """The label and the value of each row of a result."""
    return []


@rows.register
def _(result: ExportResult) -> Rows:
    table = [("selection", result.filters)]
    if result.format:
        table.append(("format", result.format))
        table += [("" if n else "lost", _lost(lost)) for n, lost in enumerate(result.lost)]
        return table if result.dry_run else [*table, ("size", _size(result.bytes))]
    table.append(("model", _model(result.embedding)))
    if result.without_vector:
        table.append(("vectors", _without_vector(result.without_vector)))
    if result.related:
        table.append(("related", f"{memories(result.related)} added for references"))
    if result.deleted:
        table.append(("tombstones", f"{result.deleted:,}"))
    table += _secrets(result.secrets)
    return [*table, ("size", _size(result.bytes)), ("sha256", result.sha256)]


def _lost(lost: Lost) -> str:
    more = ", …" if lost.memories > len(lost.examples) else ""
    return f"{lost.what}: {memories(lost.memories)} ({', '.join(lost.examples)}{more})"


def _secrets(found: SecretsResult | None) -> Rows:
    """A row for each memory with secrets, as far as the result lists them."""
    if found is None:
        return []
    listed = [
        f"{one.id}: {', '.join(one.kinds)} in {', '.join(one.fields)}" for one in found.first
    ] or ["none found"]
    if more := found.memories - len(found.first):
        listed.append(f"and in {more:,} more")
    return list(zip(["secrets", *[""] * len(listed)], listed, strict=False))


@rows.register
def _(result: ImportResult) -> Rows:
    table = _aligned(
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
    table += _vectors_of(result) + _secrets(result.secrets)
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
    return [("vectors", _parts(vectors))]


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
    return _parts(reasons).removeprefix(f"{result.skipped:,} ")  # one reason for all of them


@rows.register
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
    return _aligned({label: count for label, count in counts.items() if count})


@rows.register
def _(result: BackupResult) -> Rows:
    table: Rows = []
    if result.path:
        what = memories(result.memory_count)
        if result.deleted:
            what += f", {counted(result.deleted, 'tombstone')}"
        table = [
            ("kind", result.kind),
            ("contains", what),
            ("size", _size(result.bytes) + (", encrypted" if result.encrypted else "")),
        ]
    kept = f"{result.kept:,}" + (f", {len(result.removed):,} removed" if result.removed else "")
    table.append(("backups", kept))
    return table + [("unreadable", problem) for problem in result.unreadable]


@rows.register
def _(result: BackupsResult) -> Rows:
    table: Rows = []
    for backup in result.backups:
        size = _size(backup.bytes) + (", encrypted" if backup.encrypted else "")
        what = f"{backup.kind:<9}   {memories(backup.memories):>15}   {size}"
        if backup.problem:
            what = f"{backup.kind:<9}   {backup.name} can't be restored. {backup.problem}"
        table.append((f"{backup.at[:19]}Z", what))
    return table


@rows.register
def _(result: KeyResult) -> Rows:
    return [("recipient", result.recipient)]


@rows.register
def _(result: HistoryResult) -> Rows:
    table: Rows = []
    for operation in result.operations:
        table += [(operation.point, _what_changed(operation)), ("", _when(operation))]
    return table


@rows.register
def _(result: DiscoverResult) -> Rows:
    return [(source.system, _of_source(source)) for source in result.sources]


def _of_source(source: FoundSource) -> str:
    if source.problem:
        return f"{source.path}: {source.problem}"
    newest = f", newest {source.newest[:_DAY]}" if source.newest else ""
    return f"{source.path}: {memories(source.count)}{newest}, {source.imported:,} imported"


def _what_changed(operation: HistoryEntry) -> str:
    did = _parts({what.replace("_", " "): count for what, count in operation.counts.items()})
    how = f" [{operation.how}]" if operation.how else ""
    return f"{operation.operation} {operation.source}".rstrip() + f"{how}: {did or 'no changes'}"


def _when(operation: HistoryEntry) -> str:
    states = [] if operation.state == "complete" else [operation.state]
    if not operation.can_undo and operation.state != "undone":
        states.append("can't be undone")
    return ", ".join([operation.local_time, _size(operation.bytes), *states])


@rows.register
def _(result: CopyResult) -> Rows:
    counts = {"copied": result.copied, "replaced": result.replaced, "identical": result.identical}
    table = [("from", result.source), ("to", result.target), *_aligned(counts)]
    if result.others:
        table.append(("other", f"{memories(result.others)} only in the target, kept"))
    if result.forgotten:
        table.append(("tombstones", f"{result.forgotten:,}"))
    if result.sha256:
        table.append(("sha256", result.sha256))
    return table


@rows.register
def _(result: SyncResult) -> Rows:
    table = [("machine", result.name)]
    others = ", ".join(sorted(one.name for one in result.replicas))
    table.append(("others", others or "none yet"))
    if result.tags:
        table.append(("shared", f"only with {', '.join(result.tags)}"))
    counts = {"published": result.published, "added": result.added, "changed": result.changed}
    table += _aligned({**counts, "deleted": result.deleted, "conflicts": result.conflicts})
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
    table += _secrets(result.secrets)
    if result.restore_point:
        table.append(("restore point", result.restore_point))
    return table


@rows.register
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


@rows.register
def _(result: CheckResult) -> Rows:
    found = [(problem.kind, problem.message) for problem in result.problems]
    return [*(("repaired", sentence) for sentence in result.done), *found]


@rows.register
def _(result: RescueResult) -> Rows:
    table = [("size", _size(result.bytes))]
    if result.lost_rows:
        table.append(("lost", f"{memories(result.lost_rows)} could not be read"))
    if result.lost_vectors:
        table.append(("vectors", f"{memories(result.lost_vectors)} lost the vector"))
    return table


@rows.register
def _(result: RememberResult) -> Rows:
    corrected = [("corrects", result.supersedes)] if result.supersedes else []
    return [("id", result.id), *corrected]


@rows.register
def _(result: RecallResult) -> Rows:
    return [row for hit in result.hits for row in _of_hit(hit)]


def _of_hit(hit: Hit) -> Rows:
    about = [hit.id, hit.created_at[:_DAY] or "date unknown", *hit.tags]
    found = [
        ("-" if hit.score is None else f"{hit.score:.2f}", hit.content),
        ("", ", ".join(about)),
    ]
    if hit.superseded_by:
        found.append(("", f"out of date: superseded by {', '.join(hit.superseded_by)}"))
    if hit.left_out:
        found.append(("", f"{counted(hit.left_out, 'more character')} not shown"))
    if hit.hidden:
        found.append(("", f"hidden characters: {', '.join(hit.hidden)}"))
    return found


@rows.register
def _(result: WhereResult) -> Rows:
    return [(one.variable, f"{one.value or '-'}  ({one.source})") for one in result.settings]


@rows.register
def _(result: ShowResult) -> Rows:
    values = {
        "text": result.content,
        "hidden": ", ".join(result.hidden),
        "tags": ", ".join(result.tags),
        "context": result.context,
        "source": f"{result.source_type}, {result.source_instance}",
        "confidence": f"{result.confidence:g}",
        "created": result.created_at or "date unknown",
        "updated": result.updated_at if result.updated_at != result.created_at else "",
        "vector": "" if result.has_vector else "none: only keyword search finds it",
        "corrects": result.supersedes,
        "corrected by": ", ".join(result.superseded_by),
        "related to": ", ".join(result.related_to),
        "metadata": _as_json(result.metadata),
        "further fields": _as_json(result.extra),
    }
    return [(label, value) for label, value in values.items() if value]


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) if values else ""


@rows.register
def _(result: ForgetResult) -> Rows:
    lists = {
        "deleted": result.forgotten,
        "not found": result.not_here,
        "corrected by": result.corrected_by,
        "current again": result.current_again,
        "restore point": [result.restore_point] if result.restore_point else [],
    }
    return [
        (label if number == 0 else "", memory_id)
        for label, ids in lists.items()
        for number, memory_id in enumerate(ids)
    ]


@rows.register
def _(result: SetupResult) -> Rows:
    return [("folder", result.folder), ("per question", f"{result.ms_per_question:g} ms")]


@rows.register
def _(result: StatsResult) -> Rows:
    place = "server" if "://" in result.data_dir else "folder"
    found = [(place, result.data_dir), ("collection", result.collection)]
    if result.embedding:
        found.append(("model", _model(result.embedding)))
    if result.other_models:
        found.append(("other models", _by_name(result.other_models)))
    if result.without_vector:
        found.append(("vectors", _without_vector(result.without_vector)))
    if result.forgotten:
        found.append(("tombstones", f"{result.forgotten:,}"))
    if result.tags:
        more = f", and {counted(result.other_tags, 'more tag')}" if result.other_tags else ""
        found.append(("tags", _by_name(result.tags) + more))
    for label, counts in (("sources", result.sources), ("months", result.months)):
        if counts:
            found.append((label, _by_name(counts)))
    if result.bytes:
        found.append(("size", _size(result.bytes)))
    if last := result.last_export:
        what = f"{last.at[:_DAY]}, {last.filters} ({last.memory_count:,}), {last.path}"
        found.append(("last export", what))
    return found


def _without_vector(count: int) -> str:
    return f"{memories(count)} {'has' if count == 1 else 'have'} no vector"


def _aligned(counts: dict[str, int]) -> Rows:
    """A row for each count, right-aligned."""
    width = max((len(f"{count:,}") for count in counts.values()), default=0)
    return [(label, f"{count:>{width},}") for label, count in counts.items()]


def _parts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _by_name(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _model(embedding: EmbeddingResult) -> str:
    provider = f", {embedding.provider}" if embedding.provider != "unknown" else ""
    dimensions = f", {embedding.dimensions:,} dimensions" if embedding.dimensions else ""
    return f"{embedding.model_name}{dimensions}{provider}"


def _size(count: float) -> str:
    """A number of bytes, in three digits."""
    for unit in ("bytes", "kB", "MB"):
        if count < _KILO:
            return f"{count:.3g} {unit}"
        count /= _KILO
    return f"{count:,.3g} GB"
