"""What is in a store, in counts: quick for 100,000 memories, and while another process writes."""

from collections import Counter

from pydantic import ValidationError

from tribal_mcp.config import Settings
from tribal_mcp.services.other_models import counted, others_in
from tribal_mcp.services.results import EmbeddingResult, LastExport, StatsResult
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.factory import location_of
from tribal_mcp.stores.last_export import last_export
from tribal_mcp.stores.search import UNKNOWN, SearchableStore

_NAMES = 20
_NAME = 80
_MONTHS = 24
EARLIER = "earlier"


async def stats_of(store: SearchableStore, settings: Settings) -> StatsResult:
    """Say what is in the store that the settings name."""
    state = await store.state()
    tally = await store.tally()
    identity = state.identity
    return StatsResult(
        data_dir=location_of(settings),
        collection=settings.collection,
        count=state.count,
        without_vector=state.pending,
        forgotten=state.forgotten,
        embedding=EmbeddingResult(
            model_name=identity.model_name,
            dimensions=identity.dimensions,
            provider=identity.provider,
        )
        if identity
        else None,
        other_models=_most(counted((await others_in(store, identity)).values())),
        tags=_most(tally.tags),
        other_tags=max(0, len(tally.tags) - _NAMES),
        sources=_most(tally.sources),
        months=_latest(tally.months),
        bytes=tally.bytes,
        last_export=_last_export(store, settings.collection),
        notes=state.notes,
        next_step=_next_step(state),
    )


def _most(counts: dict[str, int]) -> dict[str, int]:
    """The first counts, by names that are no longer than what anybody reads."""
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


def _last_export(store: SearchableStore, collection: str) -> LastExport | None:
    try:
        found = last_export(store.own_folder, collection)
        return LastExport(**found) if found else None
    except (ValidationError, TypeError):
        return None


def _next_step(state: StoreState) -> str:
    if not state.count:
        return (
            "The store is empty. Remember something with tribal_remember, or bring memories in "
            "with tribal_import."
        )
    if state.pending:
        return (
            f"Back it up with tribal_export. {state.pending:,} memories have no vector and are "
            "found by words only; tribal_reembed gives them one."
        )
    return "Find memories with tribal_recall; back them up with tribal_export."
