"""The results about single memories, and the counts of all, as short tables."""

from tribal_mcp.cli.tables import Rows, model, rows, size
from tribal_mcp.services.memory_results import ForgetResult, Hit, RecallResult, RememberResult
from tribal_mcp.services.results import StatsResult

_DAY = len("2026-01-15")


@rows.register
def _(result: RememberResult) -> Rows:
    found = [("id", result.id)]
    if result.supersedes:
        found.append(("corrects", result.supersedes))
    return found


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
        found.append(("", f"{hit.left_out:,} more characters"))
    if hit.hidden:
        found.append(("", f"hidden in it: {', '.join(hit.hidden)}"))
    return found


@rows.register
def _(result: ForgetResult) -> Rows:
    lists = {
        "forgotten": result.forgotten,
        "not here": result.not_here,
        "corrected by": result.corrected_by,
        "true again": result.current_again,
        "restore point": [result.restore_point] if result.restore_point else [],
    }
    return [
        (label if first else "", memory_id)
        for label, ids in lists.items()
        for first, memory_id in ((i == ids[0], i) for i in ids)
    ]


@rows.register
def _(result: StatsResult) -> Rows:
    place = "server" if "://" in result.data_dir else "folder"
    found = [(place, result.data_dir), ("collection", result.collection)]
    if result.embedding:
        found.append(("model", model(result.embedding)))
    if result.other_models:
        found.append(("other models", _counts(result.other_models)))
    if result.without_vector:
        found.append(("vectors", f"{result.without_vector:,} memories have none"))
    if result.forgotten:
        found.append(("forgotten", f"{result.forgotten:,}"))
    if result.tags:
        more = f" and {result.other_tags:,} more" if result.other_tags else ""
        found.append(("tags", _counts(result.tags) + more))
    for label, counts in (("sources", result.sources), ("months", result.months)):
        if counts:
            found.append((label, _counts(counts)))
    if result.bytes:
        found.append(("size", size(result.bytes)))
    if result.last_export:
        last = result.last_export
        found.append(
            (
                "last export",
                f"{last.at[:_DAY]}, {last.filters} ({last.memory_count:,}), {last.path}",
            )
        )
    return found


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
