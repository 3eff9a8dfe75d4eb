"""Changes of a store on a server that nobody can lock: the order of the calls replaces the lock.

- One call to the server is atomic and replaces each memory completely: it sets or removes every key
  that the record of a memory can have. Of two writers the last one wins, for each memory, and no
  reader sees a mixture. For this a memory's own metadata, whose keys may be any, is stored as JSON.
- New records are written before the records that they replace are removed from another collection.
  A killed process leaves readers either the old memory or the new one; the rest of the other is
  removed when that memory is written again.
- After removing anything, a writer checks that each memory of its change is still somewhere. If two
  writers moved a memory in opposite directions, the last of them writes it again.
- A change is not atomic: an interrupted one may have written some of its memories. Repeating it
  completes it.
"""

from collections.abc import Sequence

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma_server.api import NewRecords
from tribal_mcp.stores.chroma_server.collections import Part, StoreCollections
from tribal_mcp.stores.record import FIELDS, no_vector, to_metadata, to_tombstone

_NO_FIELDS: dict[str, None] = dict.fromkeys(FIELDS)
_ATTEMPTS = 10


def write_change(collections: StoreCollections, change: Change) -> None:
    """Make a change of at most `BATCH` ids. It blocks, and is called in a thread.

    Raises:
        StoreError: the server refuses it, or other writers keep moving the same memories.
    """
    for _ in range(_ATTEMPTS):
        if not _write_then_remove(collections, change):
            return
        change = _lost(collections, change)
        if not change.ids:
            return
    raise StoreError(
        f"Other writers keep changing the same memories on {collections.api}. Try again later."
    )


def _write_then_remove(collections: StoreCollections, change: Change) -> bool:
    """Write the new records, then remove those that they replace; whether any was removed."""
    with_vector = [entry for entry in change.entries if entry.embedding is not None]
    without = [entry for entry in change.entries if entry.embedding is None]
    tombstones = [to_tombstone(moment) for moment in change.forget.values()]
    new = {
        Part.MAIN: _new_records(collections, Part.MAIN, with_vector),
        Part.PENDING: _new_records(collections, Part.PENDING, without),
        Part.TOMBSTONES: NewRecords(
            list(change.forget), [no_vector()] * len(tombstones), tombstones
        ),
    }
    if with_vector:
        _recreate_for(collections, new[Part.MAIN].vectors[0].size)
    for part, records in new.items():
        if records.ids:
            collections.api.upsert(collections.get_or_create(part), records)
    removed = False
    for part, records in new.items():
        staying = set(records.ids)
        leaving = [i for i in change.ids if i not in staying]
        collection = collections.get(part)
        present = collections.api.existing(collection, leaving) if collection and leaving else []
        if collection and present:
            collections.api.delete(collection, present)
            removed = True
    return removed


def _new_records(
    collections: StoreCollections, part: Part, entries: Sequence[MemoryEntry]
) -> NewRecords:
    collection = collections.get(part)
    ids = [entry.id for entry in entries]
    old_keys = collections.api.keys(collection, ids) if collection and ids else {}
    return NewRecords(
        ids,
        [no_vector() if e.embedding is None else e.embedding for e in entries],
        [
            {
                **dict.fromkeys(old_keys.get(e.id, ())),
                **_NO_FIELDS,
                **to_metadata(e, metadata_as_json=True),
            }
            for e in entries
        ],
        [entry.content for entry in entries],
    )


def _recreate_for(collections: StoreCollections, dimension: int) -> None:
    """Recreate the main collection if it is empty and held vectors of other dimensions."""
    collections.refresh(Part.MAIN)
    main = collections.get(Part.MAIN)
    if main and main.dimension not in (None, dimension) and not collections.api.count(main):
        collections.api.drop(main.name)
        collections.refresh()
        collections.get_or_create(Part.MAIN, main.metadata)


def _lost(collections: StoreCollections, change: Change) -> Change:
    """The part of a change that another writer removed from everywhere while this one moved it."""
    ids = [*(entry.id for entry in change.entries), *change.forget]
    found = collections.holding(ids, (*Part, Part.MAIN, Part.PENDING))
    return Change(
        [entry for entry in change.entries if entry.id not in found],
        {i: moment for i, moment in change.forget.items() if i not in found},
    )
