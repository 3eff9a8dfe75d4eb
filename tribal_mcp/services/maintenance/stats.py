"""The use case: count what is in a store. Fast for 100,000 memories, even while others write."""

from collections import Counter

from pydantic import ValidationError

from tribal_mcp.config import Settings
from tribal_mcp.errors import StoreError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.memory import is_ahead, read_date
from tribal_mcp.services.context import Context
from tribal_mcp.services.left_out import describe_empty, without_vector
from tribal_mcp.services.other_models import count_by_name, other_models_in
from tribal_mcp.services.requests import Request
from tribal_mcp.services.results import EmbeddingResult
from tribal_mcp.services.results.store import LastExport, StatsResult
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.factory import Store, location_of
from tribal_mcp.stores.last_export import last_export
from tribal_mcp.stores.search import UNKNOWN, SearchableStore

_NAMES = 20
_NAME = 80
_MONTHS = 24
EARLIER = "earlier"


async def run_stats(context: Context, _request: Request) -> StatsResult:
    """Count what is in the store."""
    async with context.store() as store:
        return await _stats(store, context.settings)


async def _stats(store: Store, settings: Settings) -> StatsResult:
    state = await store.state()
    tally = await store.tally()
    identity = state.identity
    exported, notes = _last_export(store, settings.collection)
    if not state.count:
        notes += await describe_empty(store, settings)
    return StatsResult(
        data_dir=location_of(settings),
        collection=settings.collection,
        count=state.count,
        without_vector=state.pending,
        forgotten=state.forgotten,
        embedding=EmbeddingResult.of(identity) if identity else None,
        other_models=_most(count_by_name((await other_models_in(store, identity)).values())),
        tags=_most(tally.tags),
        other_tags=max(0, len(tally.tags) - _NAMES),
        sources=_most(tally.sources),
        months=_latest(tally.months),
        bytes=tally.bytes,
        last_export=exported,
        notes=[*state.notes, *notes],
        next_steps=_next_steps(state),
        next_step="",
    )


def _most(counts: dict[str, int]) -> dict[str, int]:
    """The first counts, with long names cut."""
    shown = Counter[str]()
    for name, count in list(counts.items())[:_NAMES]:
        shown[name if len(name) <= _NAME else f"{name[:_NAME]}…"] += count
    return dict(shown)


def _latest(months: dict[str, int]) -> dict[str, int]:
    known = [month for month in months if month != UNKNOWN]
    latest = {month: months[month] for month in known[:_MONTHS]}
    if known[_MONTHS:]:
        latest[EARLIER] = sum(months[month] for month in known[_MONTHS:])
    return latest | {UNKNOWN: months[UNKNOWN]} if UNKNOWN in months else latest


def _last_export(store: SearchableStore, collection: str) -> tuple[LastExport | None, list[str]]:
    """The last export, and notes about it."""
    try:
        found = last_export(store.own_folder, collection)
        export = LastExport(**found) if found else None
        ahead = export is not None and is_ahead(read_date(export.at))
    except StoreError as error:
        return None, [f"The last export is unknown. {error}"]
    except (ValidationError, TypeError, ValueError):
        return None, []
    if ahead:
        return export, [
            "The last export is dated in the future: the clock was ahead then, or is behind now."
        ]
    return export, []


def _next_steps(state: StoreState) -> list[NextStep]:
    if not state.count:
        return [
            NextStep(
                "The store is empty. To add a memory, run {call}.", "remember", {"content": ...}
            ),
            NextStep("To import a bundle, run {call}.", "import", {"input_path": ...}),
        ]
    steps = [NextStep("To back it up, run {call}.", "export")]
    if state.pending:
        step = f"{without_vector(state.pending)} To add vectors, run {{call}}."
        return [NextStep(step, "reembed"), *steps]
    return [NextStep("To find memories, run {call}.", "recall", {"query": ...}), *steps]
