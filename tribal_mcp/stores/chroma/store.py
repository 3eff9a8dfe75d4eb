"""A store in a Chroma folder, which any number of processes can share.

The methods run in a session on the folder, in a thread: reads on the folder's files (`contents`),
writes through Chroma (`write`). Search compares every vector (`files/nearest.py`). That is exact
and works with any filter, while Chroma's own index is approximate and has to be loaded first. (Over
300 lines: the store protocols have 30 methods.)
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tribal_mcp.config import check_collection_name
from tribal_mcp.errors import StoreDamaged, StoreError, StoreLocked, UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.stores.base import (
    BATCH,
    EVERYTHING,
    Change,
    Lines,
    MemoryStore,
    Stored,
    StoreState,
    check_change,
    check_identity,
    in_parts,
)
from tribal_mcp.stores.chroma.contents import Contents
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import DOCUMENT
from tribal_mcp.stores.chroma.folder import SWAP, ChromaFolder, Files
from tribal_mcp.stores.chroma.session import Sessions, in_thread, session_on
from tribal_mcp.stores.errors import CHECK
from tribal_mcp.stores.record import IDENTITY, pending_name, recorded
from tribal_mcp.stores.search import SearchableStore, Tally, check_dimensions

if TYPE_CHECKING:
    from tribal_mcp.stores.chroma.check import Problem
    from tribal_mcp.stores.chroma.rescue import Rescue
    from tribal_mcp.stores.restore_points import Point

T = TypeVar("T")

_ATTEMPTS = 3
"""To read while another program writes without the lock."""


class ChromaStore(SearchableStore):
    """A `SearchableStore` on one collection of a Chroma folder.

    Args:
        path: the folder.
        collection: the collection in it.
        lock_timeout_s: how long to wait while another process holds the folder.
        on_wait: called repeatedly during the wait with a sentence that names the process; an
            exception from it ends the wait.
        durable: whether acknowledged changes survive a power cut, or only a killed process. It
            applies to all stores of this process in the same folder.
        may_convert: whether a write may have Chroma convert the folder of an older version.
        keep_open: whether to leave the folder's files and the Chroma client open for the next store
            of this process. Changes of other processes are noticed.
    """

    def __init__(
        self,
        path: Path,
        collection: str = "memories",
        *,
        lock_timeout_s: float = 60.0,
        on_wait: Callable[[str], None] | None = None,
        durable: bool = True,
        may_convert: bool = False,
        keep_open: bool = False,
    ) -> None:
        self._folder = ChromaFolder.at(path)
        self.own_folder = self._folder.own
        self._keep_open = keep_open
        self._folder.index_backup.sync = durable
        self._folder.may_convert |= may_convert
        self._sessions = Sessions(self._folder, lock_timeout_s, on_wait)
        self._name = collection

    @property
    def name(self) -> str:
        """The collection."""
        return self._name

    async def __aexit__(self, *_: object) -> None:
        if not self._keep_open or self._folder.is_copied:
            await self.close()

    async def close(self) -> None:
        """Close the files; the store reopens when it is used."""
        await in_thread(self._folder, self._folder.close)

    @asynccontextmanager
    async def session(self, *, writing: bool = False, unsure: bool = False) -> AsyncIterator[None]:
        """No other process changes the folder within the block; sessions nest.

        Args:
            writing: whether the block writes. If not, a missing folder is not created.
            unsure: whether it may turn out not to write; then the first write imports Chroma.

        Raises:
            StoreError: a write would convert the folder of an older Chroma, and may not.
        """
        async with self._sessions.session(writing=writing, unsure=unsure):
            if writing:
                await in_thread(self._folder, self._folder.check_writable)
            yield

    async def _write(self, work: Callable[[], T]) -> T:
        async with self.session(writing=True):
            return await in_thread(self._folder, work)

    async def _read(self, work: Callable[[Contents], T]) -> T:
        def once(files: Files | None) -> T:
            index_of, stays_open = self._folder.word_index, self._keep_open
            return work(Contents(files, self._name, index_of, stays_open=stays_open))

        def reading() -> T:
            for _ in range(_ATTEMPTS):
                files = self._folder.files() if self._folder.exists else None
                if not isinstance(files, ChromaFiles):
                    return once(files)
                version = files.version()
                try:
                    return once(files)
                except (StoreDamaged, LookupError, ValueError):
                    if files.version() == version:
                        raise
                    self._folder.close_files()  # a program that does not know the lock has written
            raise StoreLocked("Another program is writing to the Chroma folder. Try again later.")

        async with self.session():
            return await in_thread(self._folder, reading)

    async def _read_rows(self, work: Callable[[Contents], T]) -> T:
        """Do work that reads rows only, without waiting for another process to finish writing.

        The rows are consistent in one transaction, except during a batch or swap of several steps,
        which a file announces.
        """
        folder = self._folder

        def check_no_step_in_progress() -> None:
            if folder.journal.exists() or (folder.own / SWAP).exists():
                raise StoreLocked("Another process has a batch in progress.")

        def reading() -> T:
            check_no_step_in_progress()  # a step may end between the two checks
            with ChromaFiles(folder.path, locked=False) as files, files.snapshot():
                result = work(Contents(files, self._name))
                check_no_step_in_progress()
                return result

        if not session_on(folder) and folder.exists and folder.lock.held_elsewhere():
            try:
                return await in_thread(folder, reading, alone=False)
            except StoreError:
                pass  # wait for the lock instead
        return await self._read(work)

    async def state(self) -> StoreState:
        """The current state of the store."""
        return await self._read_rows(lambda contents: contents.state(list(self._folder.notes)))

    async def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of the store's vectors."""
        return await self._read(lambda contents: contents.identity)

    async def count(self) -> int:
        """The number of memories."""
        return await self._read_rows(Contents.count)

    async def counts(self) -> dict[str, int] | None:
        """How many memories each store of the folder has, by collection; None if it has no store.

        Raises:
            StoreDamaged: the database is missing, and the rest of a store is there.
        """
        if self._folder.exists:
            return await self._read_rows(Contents.counts)
        for problem in await self.check():
            raise StoreDamaged(problem.message, CHECK)
        return None

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories of those ids, by id; `vectors=False` leaves their vectors out."""
        return await self._read(lambda contents: contents.get_many(ids, vectors=vectors))

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids that the filter selects, oldest insertion first, those without vector last."""
        return await self._read(lambda contents: contents.list_ids(filters))

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """The same as `read`, as the lines of a bundle."""
        for part in in_parts(ids, batch_size):
            batch = await self._read(partial(Contents.lines, ids=part))
            if batch.lines:
                yield batch

    async def read_texts(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[dict[str, str]]:
        """The contents of those ids in that order, in batches; missing ones are left out."""
        for part in in_parts(ids, batch_size):
            batch = await self._read(partial(Contents.texts, ids=part))
            if batch:
                yield batch

    async def prepare_search(self, on_step: Callable[[int, int], None]) -> None:
        """Index the memories' words; other processes may write between two steps."""
        while done := await self._read(Contents.index_some):
            on_step(*done)

    async def rank_words(
        self, query: str, hints: str = "", filters: ExportFilter = EVERYTHING, most: int = BATCH
    ) -> list[Ranked]:
        """The memories that match the keywords of a query best, best first."""
        return await self._read(
            partial(Contents.rank_words, query=query, hints=hints, filters=filters, most=most)
        )

    async def sample(self, count: int, filters: ExportFilter = EVERYTHING) -> list[str]:
        """`count` or more of the ids that match, at equal distances in the order of insertion."""
        return await self._read(partial(Contents.sample, count=count, filters=filters))

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return await self._read(lambda contents: contents.existing(ids))

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones of those ids, or all: when each was deleted, in microseconds UTC."""
        return await self._read(lambda contents: contents.tombstones(ids))

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store from that time on, whatever its own dates are."""
        return await self._read(lambda contents: contents.stored_since(moment_us))

    async def changes(self, mark: str) -> tuple[str, set[str] | None]:
        """A mark of what is here now, and the ids written since an earlier mark, if known."""
        return await self._read(lambda contents: contents.changes(mark))

    async def other_models(self) -> dict[str, str]:
        """The memories that name the model of their own vector: its name, by id."""
        return await self._read_rows(Contents.other_models)

    async def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the memories that have one, by id."""
        return await self._read(partial(Contents.vectors, ids=ids))

    async def links(self, ids: Sequence[str]) -> list[str]:
        """The ids in `supersedes` and `related_to` of those memories."""
        return await self._read(lambda contents: contents.links(ids))

    async def list_pending(self) -> list[str]:
        """The ids of the memories without a vector, oldest insertion first."""
        return await self._read(Contents.pending_ids)

    async def newest(
        self, filters: ExportFilter = EVERYTHING, *, skip: int = 0, count: int
    ) -> tuple[list[str], int]:
        """The ids of the memories created last, newest first, and how many match in all."""
        return await self._read(lambda contents: contents.newest(filters, skip, count))

    async def nearest(
        self,
        vector: Vector,
        count: int,
        filters: ExportFilter = EVERYTHING,
        *,
        without: Collection[str] = (),
    ) -> list[tuple[str, float]]:
        """The memories whose vectors are nearest, by exact cosine, best first."""
        async with self.session():
            state = await self.state()
            check_dimensions(vector, state.dimensions if state.has_vectors else 0)
            return await self._read(
                partial(
                    Contents.nearest, vector=vector, count=count, filters=filters, without=without
                )
            )

    async def find_text(self, content: str) -> list[str]:
        """The ids of the memories whose content is exactly this, oldest insertion first."""
        return [memory_id for _, memory_id in await self.find_texts([content])]

    async def find_texts(self, contents: Sequence[str]) -> list[tuple[str, str]]:
        """The content and the id of each memory with one of these contents."""
        return await self._read(lambda own: own.with_value(DOCUMENT, contents))

    async def corrections(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For each id that memories supersede: their ids, oldest insertion first."""
        found: dict[str, list[str]] = {}
        for superseded, memory_id in await self._read(
            lambda contents: contents.with_value("supersedes", ids)
        ):
            found.setdefault(superseded, []).append(memory_id)
        return found

    async def tally(self) -> Tally:
        """Counts of all memories; does not wait while another process writes."""
        tally = await self._read_rows(Contents.tally)
        tally.bytes = await in_thread(self._folder, self._folder.size, alone=False)
        return tally

    async def apply(self, change: Change) -> None:
        """Make a change."""
        if not change.ids:
            return
        from tribal_mcp.stores.chroma.journal import Batch  # noqa: PLC0415 - only to write
        from tribal_mcp.stores.chroma.write import apply_batch  # noqa: PLC0415

        async with self.session(writing=True):
            check_change(change, (await self.state()).dimensions)
            for part in change.parts():
                await self._write(partial(apply_batch, self._folder, Batch(self._name, part)))

    async def delete(self, ids: Collection[str]) -> int:
        """Delete the memories of those ids and leave a tombstone of each; how many there were."""
        if not self._folder.exists:
            return 0
        async with self.session(writing=True):
            return await super().delete(ids)

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record which model made this store's vectors, or that it is unknown."""
        from tribal_mcp.stores.chroma.write import writable_collection  # noqa: PLC0415 - as above

        def write() -> None:
            collection = writable_collection(self._folder, self._name)
            metadata = collection.metadata or {}
            kept = {key: value for key, value in metadata.items() if key not in IDENTITY}
            collection.modify(metadata=kept | recorded(identity))

        async with self.session(writing=True):
            check_identity(identity, await self.state())
            await self._write(write)

    def beside(self, name: str) -> Self:
        """The store on another collection of the same folder."""
        sessions = self._sessions
        return type(self)(
            self._folder.path,
            name,
            lock_timeout_s=sessions.timeout_s,
            on_wait=sessions.on_wait,
            durable=self._folder.durable,
        )

    async def collection_ids(self) -> list[str]:
        """Chroma's ids of this collection and its pending sibling, which renaming keeps."""
        return await self._read(lambda contents: contents.collection_ids)

    async def names_beside(self, suffix: re.Pattern[str]) -> list[str]:
        """The collections of this folder with this one's name and such a suffix.

        Pending siblings are not listed on their own.
        """
        ours = re.compile(f"({re.escape(self._name)}(?:{suffix.pattern}))(?:{pending_name('')})?")
        found = await self._read(lambda contents: contents.names)
        return sorted({match[1] for match in map(ours.fullmatch, found) if match})

    async def replace_by(self, other: Self, keep_as: str, points: "Sequence[Point]") -> None:
        """Replace the memories by those of another collection, and keep them under that name.

        The restore points are saved in the same step.
        """
        from tribal_mcp.stores.chroma.collection_swap import swap_collections  # noqa: PLC0415 - rare

        names = self._name, other.name, keep_as
        await self._write(partial(swap_collections, self._folder, *names, points))

    async def drop(self) -> None:
        """Delete the collection itself; its memories leave no tombstones."""
        from tribal_mcp.stores.chroma.collection_swap import drop_collection  # noqa: PLC0415 - rare

        await self._write(partial(drop_collection, self._folder, self._name))

    async def _maintain(self, work: Callable[[], T]) -> T:
        async with self._sessions.locked(when=self._folder.exists, recovering=False):
            return await in_thread(self._folder, work)

    async def check(self) -> "list[Problem]":
        """What is lost, left over or inconsistent. Changes nothing."""
        from tribal_mcp.stores.chroma.check import check  # noqa: PLC0415 - rare

        return await self._maintain(partial(check, self._folder, self._name))

    async def repair(self) -> list[str]:
        """Repair what `check` finds; what was done, in sentences.

        Raises:
            StoreDamaged: the database itself is damaged.
        """
        from tribal_mcp.stores.chroma.repair import repair  # noqa: PLC0415 - rare

        return await self._maintain(partial(repair, self._folder, self._name))

    async def rescue(self, use: "Callable[[Rescue], T]") -> T:
        """Use what can still be read of the folder, without Chroma and without any change.

        Raises:
            StoreDamaged: the database can't be opened at all.
        """
        from tribal_mcp.stores.chroma.rescue import Part, Rescue  # noqa: PLC0415 - rare
        from tribal_mcp.stores.chroma.salvage import SalvagedFiles  # noqa: PLC0415 - rare

        def reading() -> T:
            with ExitStack() as stack:

                def part(*, from_pages: bool) -> Part:
                    files = SalvagedFiles(self._folder.path, from_pages=from_pages)
                    return Part.of(stack.enter_context(files), self._name)

                journal = self._folder.journal.read()
                batch = journal if journal and journal.collection == self._name else None
                pages = partial(part, from_pages=True)
                return use(Rescue(part(from_pages=False), pages, batch))

        return await self._maintain(reading)


def open_store(path: str | Path, collection: str = "memories") -> ChromaStore:
    """The memories in a Chroma folder, which is created by the first write.

    Args:
        path: the folder.
        collection: the collection in it.

    Raises:
        UsageError: an argument has a wrong type or value.
    """
    given: object = path
    if not isinstance(given, str | Path) or not str(given):
        raise UsageError(f"path is {path!r:.40}; it must be a folder, as text or as a Path.")
    try:
        str(path).encode()
        return ChromaStore(Path(path), check_collection_name(collection))
    except UnicodeEncodeError:
        raise UsageError(f"path is {str(path)!r:.80}; Chroma can only open UTF-8 paths.") from None
    except (TypeError, ValueError) as error:
        why = error if type(error) is ValueError else "it must be text"
        raise UsageError(f"The collection name is {collection!r:.80}, but {why}.") from None


def session_that_may_write(
    store: MemoryStore, *, writing: bool
) -> AbstractAsyncContextManager[None]:
    """A session of a store that may turn out not to write; a folder then imports no Chroma.

    Args:
        store: any store.
        writing: whether the session may write at all.
    """
    if isinstance(store, ChromaStore):
        return store.session(writing=writing, unsure=True)
    return store.session(writing=writing)
