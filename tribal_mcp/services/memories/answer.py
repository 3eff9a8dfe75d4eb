"""What recall answers: memories as hits, cut so that an answer has a bounded size.

Contents are text of others: hidden characters in them are named.
"""

from typing import Literal

from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.hidden_characters import hidden_characters
from tribal_mcp.portability.memory import date_text
from tribal_mcp.services.memories.corrections import Corrections
from tribal_mcp.services.results.memories import Hit, RecallResult
from tribal_mcp.stores.base import UNDATED
from tribal_mcp.text import counted

ANSWER_BYTES = 20_000
"""Of an answer as JSON: about half of what hosts pass to a model without a warning."""
_NEXT_STEPS_BYTES = 1_500
"""Reserved in it for the next steps, which the interface renders later."""
_CONTENT_BYTES = 16_000
_LEAST_BYTES = 40
_TAGS_LENGTH = 200

_STORE_FIRST = NextStep("To store a memory, run {call}.", "remember", {"content": ...})

By = Literal["meaning", "words", "correction", "date"]


def hit_of(memory_id: str, known: Corrections, by: By = "date", score: float | None = None) -> Hit:
    """The memory as a hit, complete; `known` has it and its corrections."""
    entry = known.entries[memory_id]
    return Hit(
        id=memory_id,
        content=entry.content,
        tags=_few(entry.tags),
        created_at="" if UNDATED in entry.extra else date_text(entry, "created_at"),
        found_by=by,
        score=score,
        superseded_by=known.corrections.get(memory_id, []),
        hidden=hidden_characters("\n".join((entry.content, entry.id, *entry.tags))),
    )


def _few(tags: list[str]) -> list[str]:
    """The first tags, within a bounded length."""
    shown: list[str] = []
    room = _TAGS_LENGTH
    for tag in tags:
        if room < len(tag):
            return [*shown, f"… and {len(tags) - len(shown):,} more"]
        shown.append(tag)
        room -= max(1, len(tag))
    return shown


def fill(result: RecallResult, hits: list[Hit], filters: ExportFilter) -> None:
    """Add the hits, with as much of their contents as fits into an answer."""
    share = _CONTENT_BYTES // max(1, len(hits))
    left_out = 0
    while True:
        result.hits = [_cut(hit, share) for hit in hits]
        result.next_steps = _next_steps(result, left_out, filters)
        size = len(result.model_dump_json().encode()) + _NEXT_STEPS_BYTES
        if size <= ANSWER_BYTES or not hits:
            return
        if share > _LEAST_BYTES:
            share //= 2
        else:  # an id or a tag may be very long
            hits, left_out = hits[:-1], left_out + 1


def _cut(hit: Hit, size: int) -> Hit:
    data = hit.content.encode()
    if len(data) <= size:
        return hit
    shown = data[:size].decode(errors="ignore")
    return hit.model_copy(
        update={"content": f"{shown}…", "left_out": len(hit.content) - len(shown)}
    )


def _next_steps(result: RecallResult, left_out: int, filters: ExportFilter) -> list[NextStep]:
    if not result.hits and not left_out:
        if result.searched_by == "date":
            return [NextStep(f"There are no {filters.in_words()}.")] if filters else [_STORE_FIRST]
        where = ", or search without tags and dates" if filters else ""
        return [
            NextStep(f"Found nothing in {filters.in_words()}. Try other words{where}."),
            NextStep("To list the newest memories, run {call}.", "list"),
        ]
    steps: list[NextStep] = []
    if left_out:
        are = counted(left_out, "memory is", "memories are")
        step = f"{are} too large to show. To get them, run {{call}}."
        steps.append(NextStep(step, "export"))
    if any(hit.left_out for hit in result.hits):
        steps.append(NextStep("To read more of a text that is cut, ask for fewer memories."))
    if any(hit.superseded_by for hit in result.hits):
        steps.append(NextStep("Rely on the corrections: a superseded memory is out of date."))
    correction = {"content": ..., "supersedes": ...}
    return [
        *steps,
        NextStep("To correct a memory, run {call}.", "remember", correction),
        NextStep("To delete one, run {call}.", "forget", {"ids": ...}),
    ]
