"""Why a result lacks memories: no store is there, others have them, or dates are not known."""

from collections.abc import Mapping
from datetime import timedelta

from tribal_mcp.config import Settings
from tribal_mcp.errors import StoreMissing
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import EPOCH
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.factory import Store, location_of
from tribal_mcp.text import counted, memories

_NAMED = 10
_UNDATED = {"date_from": EPOCH, "date_to": EPOCH + timedelta(microseconds=1)}
"""An imported memory whose date is not known has this date."""


def without_vector(count: int) -> str:
    """A sentence about memories that have no vector."""
    return counted(
        count,
        "memory has no vector, so only keyword search finds it.",
        "memories have no vector, so only keyword search finds them.",
    )


async def refuse_missing(store: Store, settings: Settings) -> None:
    """Refuse to go on without a store, which would give an empty result.

    Raises:
        StoreMissing: there is none where the settings point, or it lacks the collection.
    """
    for sentence in await describe_missing(store, settings):
        raise StoreMissing(sentence)


async def describe_missing(store: Store, settings: Settings) -> list[str]:
    """A sentence if the store lacks the collection of the settings.

    Raises:
        StoreMissing: there is no store at all.
    """
    counts = await store.counts()
    if counts is None:
        raise StoreMissing(no_store(settings))
    return [] if settings.collection in counts else [without_collection(settings, counts)]


async def describe_empty(store: Store, settings: Settings) -> list[str]:
    """What there is instead of memories, in sentences for a result that has none."""
    location = location_of(settings)
    counts = await store.counts()
    if counts is None:
        return [f"There is no memory store in {location} yet. The first memory creates it."]
    if settings.collection not in counts and any(counts.values()):
        return [without_collection(settings, counts)]
    found = f"{location} holds {memories(counts.get(settings.collection, 0))}"
    others = _others(settings.collection, counts)
    if counts.get(settings.collection) or not others:
        return [f"{found}."]
    return [f"{found} in {settings.collection!r}. Other collections: {others}."]


def no_store(settings: Settings) -> str:
    """A sentence that says that there is none where the settings point."""
    return (
        f"There is no memory store in {location_of(settings)}. Check TRIBAL_DATA_DIR, and that its "
        "disk is mounted."
    )


def without_collection(settings: Settings, counts: Mapping[str, int]) -> str:
    """A sentence that says so, and names the collections that there are.

    Args:
        settings: where the store is, and the collection that it lacks.
        counts: the memories of each collection.
    """
    name = settings.collection
    others = _others(name, counts) or "no collection with memories"
    return f"{location_of(settings)} has no collection {name!r}. It has {others}."


def _others(name: str, counts: Mapping[str, int]) -> str:
    """The other collections that hold memories, and how to use one; empty if there are none."""
    others = {other: count for other, count in counts.items() if count and other != name}
    if not others:
        return ""
    shown = [f"{other!r} ({memories(count)})" for other, count in list(others.items())[:_NAMED]]
    if len(others) > _NAMED:
        shown.append(f"{len(others) - _NAMED:,} more")
    return f"{', '.join(shown)}. To use one, set TRIBAL_COLLECTION to its name"


async def describe_undated(store: MemoryStore, filters: ExportFilter) -> list[str]:
    """How many memories a range of dates left out because their dates are not known."""
    if filters.date_from is None and filters.date_to is None:
        return []
    dated = ExportFilter(tags=filters.tags, date_from=EPOCH.replace(year=1))
    count = len(await store.list_ids(ExportFilter(tags=filters.tags)))
    count -= len(await store.list_ids(dated))
    at_epoch = ExportFilter(tags=filters.tags, **_UNDATED)
    if not _includes(filters):
        count += len(await store.list_ids(at_epoch))
    if not count:
        return []
    return [
        counted(
            count,
            "memory has no known date, so the dates left it out.",
            "memories have no known date, so the dates left them out.",
        )
    ]


def _includes(filters: ExportFilter) -> bool:
    """Whether the range contains the date that stands for an unknown one."""
    return (filters.date_from is None or filters.date_from <= EPOCH) and (
        filters.date_to is None or filters.date_to > EPOCH
    )
