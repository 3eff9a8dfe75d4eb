"""Memories in a Chroma folder, shared safely by every process that comes through this door.

Three collections are one store: `<name>` holds the memories with a vector, `<name>.pending` those
without, and `<name>.forgotten` the tombstones, each under a constant vector that no search meets.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from tribal_mcp.errors import StoreDamaged, StoreError, StoreLocked
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import (
    BATCH,
    EVERYTHING,
    Change,
    Lines,
    Stored,
    StoreState,
    check_change,
    check_identity,
    links_of,
)
from tribal_mcp.stores.chroma.collection_swap import FILE as SWITCH
from tribal_mcp.stores.chroma.collection_swap import drop, put_in_place
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.folder import OURS, ChromaFolder, Files
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.repair import Problem, check, repair
from tribal_mcp.stores.chroma.salvage import Salvage, SalvagedFiles
from tribal_mcp.stores.chroma.search import ChromaSearching
from tribal_mcp.stores.chroma.session import in_thread, session_on
from tribal_mcp.stores.chroma.write import carry_out, writable
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import (
    DELETED,
    IDENTITY,
    identity_of,
    pending_name,
    recorded,
    to_entry,
    to_fields,
    tombstones_name,
)
from tribal_mcp.stores.restore_points import Point

T = TypeVar("T")


class ChromaStore(ChromaSearching):
    """A `SearchableStore` on one collection of a Chroma folder.

    `on_wait` is told, again and again, that another process holds the folder; what it raises ends
    the waiting.
    """

    def __init__(
        self,
        path: Path,
        collection: str = "memories",
        *,
        lock_timeout_s: float = 60.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(ChromaFolder.at(path), lock_timeout_s, on_wait)
        self._name = collection

    @property
    def own_folder(self) -> Path:
        """Where this program's own files about the store lie."""
        return self._folder.own

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back the files; the store opens again by itself when it is used."""
        await in_thread(self._folder, self._folder.close)

    async def _run(self, work: Callable[[], T]) -> T:
        async with self.session(writing=True):
            return await in_thread(self._folder, work)

    async def _read(self, work: Callable[[Files, list[RawCollection]], T]) -> T:
        """Read from the collection and its pending sibling, those that exist, in that order."""

        def reading() -> T:
            if not self._folder.exists:
                return work(None, [])  # type: ignore[arg-type]  # no collection, no files
            return self._at(self._folder.files(), work)

        async with self.session():
            return await in_thread(self._folder, reading)

    def _at(self, files: Files, work: Callable[[Files, list[RawCollection]], T]) -> T:
        found = map(files.collection, (self._name, pending_name(self._name)))
        return work(files, [collection for collection in found if collection])

    async def _glance(self, work: Callable[[Files, list[RawCollection]], T]) -> T:
        """What `_read` does, for work on the rows only: it does not wait for another's batch.

        While another process has the lock, its mark and its log are its own affair, and the rows
        are whole but for a batch or a switch that takes several steps, which a file tells.
        """
        folder = self._folder

        def refuse_half_done() -> None:
            if folder.journal.exists() or (folder.own / SWITCH).exists():
                raise StoreLocked("A step is half done.")

        def glance() -> T:
            refuse_half_done()  # it may be done before the second look
            with ChromaFiles(folder.path, locked=False) as files, files.snapshot():
                result = self._at(files, work)
                refuse_half_done()
                return result

        if not session_on(folder) and folder.exists and folder.lock.is_elsewhere():
            try:
                return await in_thread(folder, glance, alone=False)
            except StoreError:
                pass  # look at it again with the lock in hand
        return await self._read(work)

    async def state(self) -> StoreState:
        """What the store is at the moment."""

        def read(files: Files, collections: list[RawCollection]) -> StoreState:
            counts = {c.name: files.count(c) for c in collections}
            tombstones = self._tombstones(files)
            main = next((c for c in collections if c.name == self._name), None)
            identity = identity_of(main.metadata) if main else None
            has_vectors = main is not None and counts[main.name]
            return StoreState(
                identity=identity,
                dimensions=((main and main.dimension) or 0)
                if has_vectors
                else (identity.dimensions if identity else 0),
                count=sum(counts.values()),
                pending=counts.get(pending_name(self._name), 0),
                forgotten=files.count(tombstones) if tombstones else 0,
                foreign=main is not None and OURS not in main.metadata,
                notes=list(self._folder.notes),
            )

        return await self._glance(read)

    async def identity(self) -> EmbeddingMetadata | None:
        """The model of its vectors, as far as it is recorded."""
        return await self._read(
            lambda _, cs: next((identity_of(c.metadata) for c in cs if c.name == self._name), None)
        )

    async def count(self) -> int:
        """How many memories are in it."""
        return await self._glance(lambda files, cs: sum(files.count(c) for c in cs))

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory of that id, or None."""
        return (await self.get_many([memory_id])).get(memory_id)

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories of those ids that are here, by id; `vectors=False` leaves theirs unread."""

        def read(files: Files, collections: list[RawCollection]) -> dict[str, MemoryEntry]:
            return {
                record.id: to_entry(
                    record.id,
                    record.document,
                    record.metadata,
                    self._vector(collection, record) if vectors else None,
                )
                for collection in collections
                for batch in files.read(collection, ids, vectors=vectors)
                for record in batch
            }

        return await self._read(read)

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """What `read` gives, as the lines of a bundle."""

        def read(wanted: Sequence[str], files: Files, collections: list[RawCollection]) -> Lines:
            batch = Lines()
            for collection in collections:
                with_vector = collection.name == self._name
                for records in files.read(collection, wanted, vectors=with_vector):
                    for record in records:
                        batch.add(
                            to_fields(
                                record.id,
                                record.document,
                                record.metadata,
                                self._vector(collection, record),
                            )
                        )
            return batch

        for start in range(0, len(ids), batch_size):
            batch = await self._read(partial(read, ids[start : start + batch_size]))
            if batch.lines:
                yield batch

    def _vector(self, collection: RawCollection, record: RawRecord) -> Vector | None:
        """The record's vector, None beside the constant ones of the pending collection.

        Raises:
            StoreDamaged: it had one, and that is lost.
        """
        if collection.name != self._name:
            return None
        if record.vector is None:
            raise StoreDamaged(
                f"The vector of {record.id!r:.80} can't be found: the vector index is damaged. "
                "`tribal-mcp check` says how much is lost and `check --repair` mends what can be; "
                "`rescue FILE` first saves what can be read."
            )
        return record.vector

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of what the filter takes, oldest insertion first, those without vector last."""
        first = microseconds(filters.date_from) if filters.date_from else None
        last = microseconds(filters.date_to) - 1 if filters.date_to else None
        return await self._read(
            lambda files, collections: [
                memory_id
                for collection in collections
                for memory_id in (
                    files.matching_ids(collection, filters.tags, first, last)
                    if filters
                    else files.ids(collection)
                )
            ]
        )

    async def read(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[list[MemoryEntry]]:
        """The memories of those ids in that order, in batches; an id that is gone is left out."""
        for start in range(0, len(ids), batch_size):
            wanted = ids[start : start + batch_size]
            found = await self.get_many(wanted)
            if found:
                yield [found[i] for i in wanted if i in found]

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return await self._read(
            lambda files, collections: {i for c in collections for i in files.existing(c, ids)}
        )

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones of those ids, or all: when each was forgotten, in microseconds UTC."""
        return await self._read(lambda files, _: self._times(files, ids))

    def _times(self, files: Files, ids: Sequence[str] | None) -> dict[str, int]:
        collection = self._tombstones(files)
        if collection is None:
            return {}
        return {
            record.id: record.metadata[DELETED]
            for batch in files.read(collection, ids, vectors=False)
            for record in batch
        }

    def _tombstones(self, files: Files) -> RawCollection | None:
        return files.collection(tombstones_name(self._name)) if self._folder.exists else None

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store from that time on, whatever its own dates are."""

        def read(files: Files, collections: list[RawCollection]) -> Stored:
            tombstones = self._tombstones(files)
            gone = files.stored_since(tombstones, moment_us) if tombstones else []
            return Stored(
                {i for c in collections for i in files.stored_since(c, moment_us)},
                self._times(files, gone),
                sum(files.unrecorded(c) for c in collections),
            )

        return await self._read(read)

    async def other_models(self) -> dict[str, str]:
        """The memories that themselves name the model of their vectors: its name, by id."""
        return await self._glance(
            lambda files, cs: {i: m for c in cs for i, m in files.other_models(c).items()}
        )

    async def links(self, ids: Sequence[str]) -> list[str]:
        """The ids that the memories of those ids name in `supersedes` and `related_to`."""

        def read(files: Files, collections: list[RawCollection]) -> list[str]:
            return [
                link
                for collection in collections
                for records in files.read(collection, ids, vectors=False)
                for record in records
                for link in links_of(to_fields(record.id, record.document, record.metadata, None))
            ]

        return await self._read(read)

    async def apply(self, change: Change) -> None:
        """Make a change."""
        if not change.ids:
            return
        async with self.session(writing=True):
            check_change(change, (await self.state()).dimensions)
            for part in change.parts():
                await self._run(partial(carry_out, self._folder, Batch(self._name, part)))

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, replacing those of the same ids whole."""
        await self.apply(Change(entries))

    async def delete(self, ids: Collection[str]) -> int:
        """Forget the memories of those ids, each with a tombstone of now; how many there were."""
        if not self._folder.exists:
            return 0
        async with self.session(writing=True):
            here = sorted(await self.existing(list(ids)))
            await self.apply(Change(forget=dict.fromkeys(here, time.time_ns() // 1000)))
        return len(here)

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record which model makes this store's vectors, or that nobody knows."""

        def write() -> None:
            collection = writable(self._folder, self._name)
            about = collection.metadata or {}
            kept = {key: value for key, value in about.items() if key not in IDENTITY}
            collection.modify(metadata=kept | recorded(identity))

        async with self.session(writing=True):
            check_identity(identity, await self.state())
            await in_thread(self._folder, write)

    def beside(self, name: str) -> Self:
        """The store on another collection of the same folder."""
        return type(self)(
            self._folder.path, name, lock_timeout_s=self._timeout_s, on_wait=self._on_wait
        )

    @property
    def name(self) -> str:
        """The collection."""
        return self._name

    async def collection_ids(self) -> list[str]:
        """Chroma's own ids of this collection and its pending sibling, which no name changes."""
        return await self._read(lambda _, collections: [c.id for c in collections])

    async def names_beside(self, suffix: re.Pattern[str]) -> list[str]:
        """The collections of this folder that are named as this one, with such a suffix.

        Pending siblings are not named on their own.
        """
        ours = re.compile(f"({re.escape(self._name)}(?:{suffix.pattern}))(?:{pending_name('')})?")
        found = await self._read(lambda files, _: [c.name for c in files.collections()])
        return sorted({match[1] for match in map(ours.fullmatch, found) if match})

    async def replace_by(self, other: Self, keep_as: str, points: Sequence[Point]) -> None:
        """Have the memories of another collection in the place of these, which get that name.

        The restore points are saved in the same step.
        """
        names = self._name, other.name, keep_as
        await self._run(partial(put_in_place, self._folder, *names, points))

    async def drop(self) -> None:
        """Delete the collection itself, and what it holds without a trace."""
        await self._run(partial(drop, self._folder, self._name))

    async def check(self) -> list[Problem]:
        """What is lost, left over or at odds with itself. Nothing is changed."""
        async with self.locked(when=self._folder.exists, recovering=False):
            return await in_thread(self._folder, partial(check, self._folder, self._name))

    async def repair(self) -> list[str]:
        """Mend what `check` finds; what was done, in sentences.

        Raises:
            StoreDamaged: the database itself is damaged; rescue what can be read.
        """
        async with self.locked(when=self._folder.exists, recovering=False):
            return await in_thread(self._folder, partial(repair, self._folder, self._name))

    async def rescue(self, use: Callable[[Salvage], T]) -> T:
        """Use what is left of the folder as it lies; Chroma does not open it, nothing changes.

        Raises:
            StoreDamaged: not even the database can be opened.
        """

        def reading() -> T:
            with SalvagedFiles(self._folder.path) as files:
                names = self._name, pending_name(self._name)
                found = [c for c in map(files.collection, names) if c]
                begun = self._folder.journal.read()
                batch = begun if begun and begun.collection == self._name else None
                main = next((c for c in found if c.name == self._name), None)
                identity = identity_of(main.metadata) if main else None
                tombstones = files.collection(tombstones_name(self._name))
                return use(Salvage(files, found, identity, batch, tombstones))

        async with self.locked(when=self._folder.exists, recovering=False):
            return await in_thread(self._folder, reading)


def open_store(path: str | Path, collection: str = "memories") -> ChromaStore:
    """The memories in a Chroma folder, which is made when the first one is written.

    Args:
        path: the folder.
        collection: the collection in it; at least three characters.
    """
    return ChromaStore(Path(path), collection)
