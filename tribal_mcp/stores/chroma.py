"""Memories in a Chroma folder, shared safely by every process that comes through this door.

Reading goes to the folder's files and writing through Chroma; both under the folder's lock. A
client that another process has written past is opened anew before it writes, for Chroma keeps its
vector index in memory. Two collections are one store: `<name>` holds the memories with a vector,
`<name>.pending` those without, each under a constant vector that no search meets.
"""

import errno
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread
import numpy as np

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError, TribalError, UsageError
from tribal_mcp.portability.embedding_metadata import UNKNOWN_MODEL, EmbeddingMetadata
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry, Vector, microseconds
from tribal_mcp.stores.base import BATCH, EVERYTHING, Lines, StoreState, check_batch, check_identity
from tribal_mcp.stores.chroma_files import ChromaFiles, RawCollection, RawRecord
from tribal_mcp.stores.journal import Batch, Journal
from tribal_mcp.stores.lock import OWN_FOLDER, FolderLock
from tribal_mcp.stores.records import to_entry, to_fields, to_metadata

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as ChromaCollection

T = TypeVar("T")

OURS = "tribal_layout"
MODEL, DIMENSIONS, PROVIDER, SINCE = (
    "tribal_model", "tribal_dimensions", "tribal_provider", "tribal_model_since",
)  # fmt: skip
HNSW = {"hnsw": {"space": "l2"}}
"""Under l2 a vector comes back bit by bit; under cosine it does not."""
HARMLESS_EMBEDDERS = frozenset({"default"})
"""Embedding functions that a stored schema may name: Chroma constructs them on each write."""
FREE_BYTES = 32 * 1024 * 1024
_SPARE = 6
"""Free bytes wanted for each byte of a batch: the journal, the log, the rows and the index."""


class ChromaFolder:
    """One Chroma folder: its lock, and the client while it writes. One object for each folder."""

    _open: dict[Path, "ChromaFolder"] = {}  # noqa: RUF012 - the register of this process
    _register = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FolderLock(path)
        self.journal = Journal(path / OWN_FOLDER / "journal.jsonl")
        self.notes: list[str] = []
        self._client: ClientAPI | None = None
        self._writing = False
        self._versions: sqlite3.Connection | None = None
        self._version = -1

    @classmethod
    def at(cls, path: Path) -> "ChromaFolder":
        """The object of that folder; every spelling of its path gives the same one."""
        real = path.expanduser().resolve()
        with cls._register:
            return cls._open.setdefault(real, cls(real))

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return (self.path / "chroma.sqlite3").is_file()

    @contextmanager
    def files(self) -> Iterator[ChromaFiles]:
        """The folder's files, for reading."""
        with ChromaFiles(self.path) as files:
            yield files

    def begin(self) -> None:
        """Called with the lock in hand: finish what a killed writer began."""
        if self.lock.writer() is None and not self.journal.exists():
            return
        batch = self.journal.read()
        if batch is not None:
            self.carry_out(batch)
        self.journal.remove()
        self.end()

    def end(self) -> None:
        """Called before the lock is given back."""
        if self._client is not None:
            self._version = self._data_version()
        self.lock.unmark()
        self._writing = False

    def client(self) -> "ClientAPI":
        """A client that knows of every write so far. From now on this is a write session."""
        if not self._writing:
            self._refuse_full_disk(0)
            self.lock.mark()
            self._writing = True
            if self._client is not None and self._data_version() != self._version:
                self.close()
        if self._client is None:
            import chromadb  # noqa: PLC0415 - takes seconds

            settings = chromadb.Settings(_env_file=None, anonymized_telemetry=False)  # type: ignore[call-arg]
            self._client = chromadb.PersistentClient(self.path, settings=settings)
        return self._client

    def close(self) -> None:
        """Close the client and the connection; both open again when they are needed."""
        if self._client is not None:
            self._client.close()  # type: ignore[attr-defined]
            self._client = None
        if self._versions is not None:
            self._versions.close()
            self._versions = None

    def _data_version(self) -> int:
        """Changes whenever another connection commits, if it is asked on the same connection."""
        if self._versions is None:
            self._versions = sqlite3.connect(
                f"{(self.path / 'chroma.sqlite3').as_uri()}?mode=ro",
                uri=True,
                check_same_thread=False,
            )
        return int(self._versions.execute("PRAGMA data_version").fetchone()[0])

    def _refuse_full_disk(self, batch_bytes: int) -> None:
        free = shutil.disk_usage(self.path).free
        wanted = FREE_BYTES + _SPARE * batch_bytes
        if free < wanted:
            raise NoSpace(
                f"The disk of the memory store has {free / 2**20:,.0f} MiB free; the next step "
                f"wants {wanted / 2**20:,.0f}. Make space and run the same command again."
            )

    def carry_out(self, batch: Batch) -> None:
        """Change a collection and its pending sibling: whole, whoever is killed."""
        new_ids = [entry.id for entry in batch.entries]
        gone = list(dict.fromkeys([*batch.delete, *new_ids]))
        steps: list[Callable[[], object]] = []
        by_name = {
            batch.collection: [e for e in batch.entries if e.embedding is not None],
            pending_name(batch.collection): [e for e in batch.entries if e.embedding is None],
        }
        client = self.client()
        self._refuse_full_disk(sum(_size(entry) for entry in batch.entries))
        for name, entries in by_name.items():
            present = self._existing(name, gone)
            if present:
                target = client.get_collection(name, embedding_function=None)
                steps.append(partial(target.delete, ids=present))
            if entries:
                steps.append(partial(_add, self.writable(name, _vector(entries[0]).size), entries))
        if len(steps) > 1:
            self.journal.write(batch)
        for step in steps:
            step()
        if len(steps) > 1:
            self.journal.remove()

    def _existing(self, name: str, ids: Sequence[str]) -> list[str]:
        with self.files() as files:
            collection = files.collection(name)
            return files.existing(collection, ids) if collection else []

    def writable(self, name: str, dimensions: int) -> "ChromaCollection":
        """The collection of that name, made when it is missing, for vectors of `dimensions`.

        Raises:
            StoreError: its stored settings name an embedding function that is not harmless.
        """
        client = self.client()
        with self.files() as files:
            raw = files.collection(name)
            if (
                raw
                and dimensions
                and raw.dimension not in (None, dimensions)
                and not files.count(raw)
            ):
                # Chroma fixes the dimensions with the first vector, and for good.
                client.delete_collection(name)
                return self._create(name, raw.metadata)
        if raw is None:
            return self._create(name, {OURS: 1})
        for stranger in raw.embedding_functions() - HARMLESS_EMBEDDERS:
            raise StoreError(
                f"The collection {name!r} names the embedding function {stranger!r} in its stored "
                "settings, and Chroma would construct that on every write. Export from it, and "
                "import into another collection (TRIBAL_COLLECTION)."
            )
        return client.get_collection(name, embedding_function=None)

    def _create(self, name: str, metadata: dict[str, Any]) -> "ChromaCollection":
        return self.client().create_collection(
            name, embedding_function=None, configuration=HNSW, metadata=metadata
        )


def pending_name(collection: str) -> str:
    """The collection beside it that holds the memories without a vector."""
    return f"{collection}.pending"


def _add(collection: "ChromaCollection", entries: Sequence[MemoryEntry]) -> None:
    """Insert entries whose ids are not there: one call, whole or not at all."""
    collection.add(
        ids=[e.id for e in entries],
        documents=[e.content for e in entries],
        embeddings=[_vector(e) for e in entries],  # type: ignore[arg-type]
        metadatas=[to_metadata(e) for e in entries],
    )


def _vector(entry: MemoryEntry) -> Vector:
    return _NO_VECTOR if entry.embedding is None else entry.embedding


_NO_VECTOR = np.ones(1, dtype=np.float32)


class ChromaStore:
    """A `MemoryStore` on one collection of a Chroma folder.

    `on_wait` is told, once a wait, when another process holds the folder.
    """

    def __init__(
        self,
        path: Path,
        collection: str = "memories",
        *,
        lock_timeout_s: float = 60.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = ChromaFolder.at(path)
        self._name = collection
        self._timeout_s = lock_timeout_s
        self._on_wait = on_wait

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back the files; the store opens again by itself when it is used."""
        async with self.session():
            await anyio.to_thread.run_sync(self._folder.close)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Nobody else changes the folder within the block; sessions nest."""
        if _in_session.get() is self._folder:
            yield
            return
        folder = self._folder
        await folder.lock.acquire(self._timeout_s, self._on_wait)
        token = _in_session.set(folder)
        try:
            await _in_thread(folder.begin)
            yield
        finally:
            _in_session.reset(token)
            with anyio.CancelScope(shield=True):
                try:
                    await _in_thread(folder.end)
                finally:
                    await folder.lock.release()

    async def _run(self, work: Callable[[], T]) -> T:
        async with self.session():
            return await _in_thread(work)

    async def _read(self, work: Callable[[ChromaFiles, list[RawCollection]], T]) -> T:
        """Read from the collection and its pending sibling, those that exist, in that order."""

        def reading() -> T:
            if not self._folder.exists:
                return work(None, [])  # type: ignore[arg-type]  # no collection, no files
            with self._folder.files() as files:
                found = map(files.collection, (self._name, pending_name(self._name)))
                return work(files, [collection for collection in found if collection])

        return await (self._run(reading) if self._folder.exists else _in_thread(reading))

    async def state(self) -> StoreState:
        """What the store is at the moment."""

        def read(files: ChromaFiles, collections: list[RawCollection]) -> StoreState:
            counts = {c.name: files.count(c) for c in collections}
            main = next((c for c in collections if c.name == self._name), None)
            identity = _identity(main)
            has_vectors = main is not None and counts[main.name]
            return StoreState(
                identity=identity,
                dimensions=((main and main.dimension) or 0)
                if has_vectors
                else (identity.dimensions if identity else 0),
                count=sum(counts.values()),
                pending=counts.get(pending_name(self._name), 0),
                foreign=main is not None and OURS not in main.metadata,
                notes=list(self._folder.notes),
            )

        return await self._read(read)

    async def count(self) -> int:
        """How many memories are in it."""
        return await self._read(lambda files, cs: sum(files.count(c) for c in cs))

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory of that id, or None."""
        return (await self.get_many([memory_id])).get(memory_id)

    async def get_many(self, ids: Sequence[str]) -> dict[str, MemoryEntry]:
        """The memories of those ids that are here, by id."""

        def read(files: ChromaFiles, collections: list[RawCollection]) -> dict[str, MemoryEntry]:
            return {
                record.id: self._entry(collection, record)
                for collection in collections
                for batch in files.read(collection, ids)
                for record in batch
            }

        return await self._read(read)

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """What `read` gives, as the lines of a bundle."""

        def read(
            wanted: Sequence[str], files: ChromaFiles, collections: list[RawCollection]
        ) -> Lines:
            batch = Lines()
            for collection in collections:
                with_vector = collection.name == self._name
                for records in files.read(collection, wanted, vectors=with_vector):
                    for record in records:
                        batch.add(
                            to_fields(record.id, record.document, record.metadata, record.vector)
                        )
            return batch

        for start in range(0, len(ids), batch_size):
            batch = await self._read(partial(read, ids[start : start + batch_size]))
            if batch.lines:
                yield batch

    def _entry(self, collection: RawCollection, record: RawRecord) -> MemoryEntry:
        vector = record.vector if collection.name == self._name else None
        return to_entry(record.id, record.document, record.metadata, vector)

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

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, replacing those of the same ids whole."""
        async with self.session():
            check_batch(entries, (await self.state()).dimensions)
            for part in _parts(list(entries)):
                await self._write(Batch(self._name, (), part))

    async def delete(self, ids: Collection[str]) -> int:
        """Remove the memories of those ids; how many were there."""
        async with self.session():
            before = await self.count()
            if before:
                for part in _parts(list(dict.fromkeys(ids))):
                    await self._write(Batch(self._name, part, ()))
            return before - await self.count()

    async def set_identity(self, identity: EmbeddingMetadata) -> None:
        """Record which model makes this store's vectors."""

        def write() -> None:
            collection = self._folder.writable(self._name, 0)
            about = {
                MODEL: identity.model_name,
                DIMENSIONS: identity.dimensions,
                PROVIDER: identity.provider,
                SINCE: identity.created_at,
            }
            collection.modify(metadata={**(collection.metadata or {}), **about})

        async with self.session():
            check_identity(identity, await self.state())
            await _in_thread(write)

    async def _write(self, batch: Batch) -> None:
        await self._run(partial(self._folder.carry_out, batch))


def open_store(path: str | Path, collection: str = "memories") -> ChromaStore:
    """The memories in a Chroma folder, which is made when the first one is written.

    Args:
        path: the folder.
        collection: the collection in it; at least three characters.
    """
    return ChromaStore(Path(path), collection)


_in_session: ContextVar[ChromaFolder | None] = ContextVar("_in_session", default=None)


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await anyio.to_thread.run_sync(work)
    except (TribalError, UnicodeError):
        raise
    except Exception as error:
        # Chroma and SQLite have a dozen classes for a full disk; the words are always there.
        if "full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                "The disk of the memory store is full. What was acknowledged is safe. Make space "
                "and run the same command again."
            ) from error
        if type(error).__module__.partition(".")[0] in (
            "chromadb",
            "sqlite3",
            "chromadb_rust_bindings",
        ):
            raise StoreError(
                f"Chroma could not do it: {str(error)[:300]}. Run `tribal-mcp check`."
            ) from error
        raise


def _size(entry: MemoryEntry) -> int:
    return len(entry.content) + (entry.embedding.nbytes if entry.embedding is not None else 0)


def _parts(items: list[T]) -> Iterator[list[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _identity(collection: RawCollection | None) -> EmbeddingMetadata | None:
    if collection is None or MODEL not in collection.metadata:
        return None
    read = collection.metadata.get
    return EmbeddingMetadata(
        model_name=str(read(MODEL)),
        dimensions=int(read(DIMENSIONS, 0)),
        provider=str(read(PROVIDER, UNKNOWN_MODEL)),
        created_at=str(read(SINCE, "")),
    )
