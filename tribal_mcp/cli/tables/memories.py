"""The results in `services/results/memories.py` as tables."""

import json
from typing import Any

from tribal_mcp.cli.tables import DAY, Rows, as_table
from tribal_mcp.services.results.memories import (
    ForgetResult,
    Hit,
    RecallResult,
    RememberResult,
    ShowResult,
)
from tribal_mcp.text import counted


@as_table.register
def _(result: RememberResult) -> Rows:
    corrected = [("corrects", result.supersedes)] if result.supersedes else []
    return [("id", result.id), *corrected]


@as_table.register
def _(result: RecallResult) -> Rows:
    return [row for hit in result.hits for row in _of_hit(hit)]


def _of_hit(hit: Hit) -> Rows:
    about = [hit.id, hit.created_at[:DAY] or "date unknown", *hit.tags]
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


@as_table.register
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


@as_table.register
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
