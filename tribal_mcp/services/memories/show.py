"""The use case: show one memory, complete."""

from tribal_mcp.errors import UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.hidden_characters import hidden_characters
from tribal_mcp.portability.memory import date_text, source_text
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import ShowRequest
from tribal_mcp.services.results.memories import ShowResult
from tribal_mcp.stores.base import UNDATED
from tribal_mcp.stores.factory import location_of
from tribal_mcp.stores.search import SearchableStore


async def run_show(context: Context, request: ShowRequest) -> ShowResult:
    """Show the memory of the request."""
    settings = context.settings
    async with context.store() as store, store.session():
        return await show(store, request.memory_id, location_of(settings))


async def show(store: SearchableStore, memory_id: str, location: str) -> ShowResult:
    """One memory, complete.

    Args:
        store: where it is.
        memory_id: its id.
        location: the folder or server of the store, for the error.

    Raises:
        UsageError: the store has no such memory.
    """
    entry = await store.get(memory_id)
    if entry is None:
        deleted = memory_id in await store.forgotten([memory_id])
        why = "was deleted from" if deleted else "is not in"
        raise UsageError(
            f"The memory {memory_id!r:.80} {why} {location}.",
            NextStep("To list the memories, run {call}.", "list"),
        )
    dated = UNDATED not in entry.extra
    return ShowResult(
        id=entry.id,
        content=entry.content,
        tags=entry.tags,
        context=entry.context or "",
        source_type=source_text(entry),
        source_instance=entry.source_instance,
        confidence=entry.confidence,
        created_at=date_text(entry, "created_at") if dated else "",
        updated_at=date_text(entry, "updated_at") if dated else "",
        has_vector=entry.embedding is not None,
        supersedes=entry.supersedes or "",
        superseded_by=(await store.corrections([entry.id])).get(entry.id, []),
        related_to=entry.related_to,
        metadata=entry.metadata,
        extra=entry.extra,
        hidden=hidden_characters("\n".join((entry.content, entry.id, *entry.tags))),
        next_steps=[
            NextStep(
                "To correct it, run {call}.", "remember", {"content": ..., "supersedes": entry.id}
            ),
            NextStep("To delete it, run {call}.", "forget", {"ids": [entry.id]}),
        ],
    )
