"""Remembering, recalling and forgetting as the doors ask for it: plain values in, a result out."""

import uuid
from datetime import UTC, datetime

from tribal_mcp.config import Settings
from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.providers import embedder_of
from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.filters import read_filter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict
from tribal_mcp.services.memories.recall import recall
from tribal_mcp.services.memories.remember import forget, remember
from tribal_mcp.services.requests import ForgetRequest, RecallRequest, RememberRequest
from tribal_mcp.services.results import Result
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

MemoryRequest = RememberRequest | RecallRequest | ForgetRequest


def entry_of(request: RememberRequest, instance: str, limits: Limits) -> MemoryEntry:
    """The memory that is asked for, with an id of its own, as of now.

    Raises:
        UsageError: a value is empty, out of its range or over a limit.
    """
    if not request.content.strip():
        raise UsageError("content is empty. Give the text to remember.")
    if not all(tag.strip() for tag in request.tags):
        raise UsageError("A tag is empty. Leave it out.")
    source = MemorySource.CORRECTION if request.supersedes else MemorySource.USER_EXPLICIT
    fields = request.model_dump() | {
        "id": str(uuid.uuid4()),
        "context": request.context or None,
        "supersedes": request.supersedes or None,
        "source_type": request.source_type or source.value,
        "source_instance": instance,
        "tags": list(dict.fromkeys(request.tags)),
        "created_at": datetime.now(UTC).isoformat(),
    }
    try:
        entry = entry_from_dict(fields, limits)
        dump_entry(entry)  # half a character, which JSON can hold, is refused here
    except EntryError as error:
        raise UsageError(f"This can't be remembered: {error}.") from None
    return entry


async def run_memory_job(
    request: MemoryRequest, store: SearchableStore, settings: Settings, limits: Limits
) -> Result:
    """Carry out what is asked.

    Raises:
        TribalError: what kept it from being done, for its user.
    """

    def embedder(state: StoreState) -> Embedder | None:
        return embedder_of(settings, state)

    match request:
        case RememberRequest():
            return await remember(store, embedder, entry_of(request, settings.instance, limits))
        case RecallRequest():
            filters = read_filter(request.tags, request.date_from, request.date_to)
            return await recall(store, embedder, request.query, request.count, filters)
        case ForgetRequest():
            points = RestorePoints.of(store, settings.restore_points)
            return await forget(store, request.ids, points, dry_run=request.dry_run)
