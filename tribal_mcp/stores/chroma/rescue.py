"""What can be read of a damaged store, as memories and tombstones.

If SQLite can't reach all rows, the pages of the database are read as well, for memories and vectors
that are only found there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.stores.base import BATCH, Lines, in_parts
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import (
    DELETED,
    identity_of,
    pending_name,
    to_fields,
    tombstones_name,
)
from tribal_mcp.text import counted


@dataclass(slots=True)
class Part:
    """One reading of a store: the files, and its collections as far as they exist."""

    files: SalvagedFiles
    main: RawCollection | None
    pending: RawCollection | None
    tombstones: RawCollection | None

    @classmethod
    def of(cls, files: SalvagedFiles, name: str) -> Self:
        """The reading of the store whose main collection has that name."""
        names = name, pending_name(name), tombstones_name(name)
        return cls(files, *map(files.collection, names))

    @property
    def ids(self) -> list[str]:
        """The ids of the memories that can be read."""
        return [i for c in (self.main, self.pending) if c for i in self.files.ids(c)]

    def records(
        self, ids: Sequence[str], *, vectors: bool = True
    ) -> Iterator[tuple[RawRecord, bool]]:
        """Those of the memories that can be read, each with whether it was stored with a vector."""
        for collection in filter(None, (self.main, self.pending)):
            is_main = collection is self.main
            for batch in self.files.read(collection, ids, BATCH, vectors=vectors and is_main):
                yield from ((record, is_main) for record in batch)

    def rows(self, ids: Sequence[str]) -> set[int]:
        """The numbers of the rows of those memories, and of all tombstones."""
        found = {n for c in (self.main, self.pending) if c for n in self.files.rows(c, ids)}
        if self.tombstones:
            found |= self.files.rows(self.tombstones, self.files.ids(self.tombstones))
        return found

    def deleted(self) -> dict[str, int]:
        """The tombstones: when each memory was deleted, in microseconds UTC."""
        if self.tombstones is None:
            return {}
        return {
            r.id: r.metadata[DELETED]
            for batch in self.files.read(self.tombstones, None, BATCH, vectors=False)
            for r in batch
            if DELETED in r.metadata
        }


class Rescue:
    """What can be read of a store.

    Args:
        part: the reading of the store.
        pages: the same from the pages of the database; asked if SQLite can't reach all rows.
        batch: a batch in progress; its memories are included, since their earlier versions may
            have been deleted already.

    Attributes:
        lost_rows: how many memories can't be read.
        lost_vectors: how many of those that `lines` has read had a vector that is lost.
        damage: what is damaged, in sentences.
    """

    def __init__(self, part: Part, pages: Callable[[], Part], batch: Batch | None) -> None:
        self._parts = [part]
        self._batch = batch
        self.lost_vectors = 0
        self.damage = part.files.damage
        here = part.ids
        self._deleted = part.deleted()
        self.lost_rows = len(part.files.lost)
        if part.files.lacks_rows():
            self._parts.append(pages())
            here += self._beyond(here)
        written = [entry.id for entry in batch.change.entries] if batch else []
        changed = set(batch.change.ids if batch else ())
        self.ids = list(dict.fromkeys([*(i for i in here if i not in changed), *written]))
        """The ids of the memories, without duplicates."""
        self.others = {} if self.ids or self.main else self._parts[-1].files.counts()
        """If the store has no collection: the memories of each other one, by its name."""

    def _beyond(self, here: Sequence[str]) -> list[str]:
        """The ids of the memories with a text that only the pages have, except deleted ones."""
        pages = self._parts[1]
        self._deleted = pages.deleted() | self._deleted
        known = {*here, *self._deleted}
        ids = [i for i in pages.ids if i not in known]
        read = pages.records(ids, vectors=False)
        found = [record.id for record, _ in read if record.document is not None]
        self.lost_rows = len(self._parts[0].files.lost - pages.rows([*here, *found]))
        if found:
            self.damage.append(
                counted(
                    len(found),
                    "memory was read from a page that SQLite can't reach; it may have been deleted "
                    "before.",
                    "memories were read from pages that SQLite can't reach; some of them may have "
                    "been deleted before.",
                )
            )
        return found

    @property
    def main(self) -> RawCollection | None:
        """The main collection."""
        return next((part.main for part in self._parts if part.main), None)

    @property
    def identity(self) -> EmbeddingMetadata | None:
        """The model of the vectors."""
        return identity_of(self.main.metadata) if self.main else None

    def forgotten(self) -> dict[str, int]:
        """The tombstones of other memories: when each was deleted, in microseconds UTC."""
        found = self._deleted | dict(self._batch.change.forget if self._batch else {})
        ids = {*self.ids, *(self._batch.change.erase if self._batch else ())}
        return {i: moment for i, moment in found.items() if i not in ids}

    def _fields(self, record: RawRecord) -> dict[str, Any]:
        """The fields of the record; only id, text and vector if its metadata can't be read."""
        try:
            return to_fields(record.id, record.document, record.metadata, record.vector)
        except (StoreDamaged, ValueError, TypeError, AttributeError, KeyError):
            self._parts[0].files.note(f"The metadata of {record.id!r:.80}", "it can't be read")
            return to_fields(record.id, record.document, {}, record.vector)

    def lines(self) -> Iterator[Lines]:
        """The memories, as the lines of a bundle."""
        in_batch = {e.id: e for e in self._batch.change.entries} if self._batch else {}
        wanted = [i for i in self.ids if i not in in_batch]
        for part in in_parts(wanted):
            found, bare = self._merged(part)
            self.lost_vectors += sum(
                record.vector is None for i, record in found.items() if i not in bare
            )
            batch = Lines()
            for memory_id in part:
                if memory_id in found:
                    batch.add(self._fields(found[memory_id]))
            yield batch
        last = Lines()
        for entry in in_batch.values():
            last.add(entry_fields(entry))
        yield last

    def _merged(self, ids: Sequence[str]) -> tuple[dict[str, RawRecord], set[str]]:
        """The records by id, and the ids of those that never had a vector."""
        found: dict[str, RawRecord] = {}
        bare: set[str] = set()
        for part in self._parts:
            lacking = {i for i, record in found.items() if record.vector is None} - bare
            wanted = [i for i in ids if i not in found or i in lacking]
            for record, had_vector in part.records(wanted):
                if record.id not in found:
                    found[record.id] = record
                    if not had_vector:
                        bare.add(record.id)
                elif record.vector is not None:
                    found[record.id] = found[record.id]._replace(vector=record.vector)
        return found, bare
