"""One Chroma folder: its lock, its files, and the Chroma client that writes to it.

Reads go to the files and writes go through Chroma, both while the folder's lock is held. Chroma
keeps its vector index in memory, so a client is reopened before it writes if another process has
written since. `recovery` deals with what a killed writer leaves behind. (Over 300 lines: client,
open files, writer marker and log change together, and one object per folder has to hold them.)
"""

import atexit
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import orjson

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError, SystemFailure
from tribal_mcp.files.atomic import fsync_directory, make_private
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.files.index_backup import IndexBackup
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import NotRolledBack
from tribal_mcp.stores.chroma.full_text import create_full_text, has_full_text
from tribal_mcp.stores.chroma.journal import Journal
from tribal_mcp.stores.chroma.lock import OWN_FOLDER, FolderLock
from tribal_mcp.stores.chroma.migration import (
    DATABASE,
    STORE_FILES,
    PrivateCopy,
    keep_copy,
    open_client,
    try_conversion,
)
from tribal_mcp.stores.errors import REPAIR, explained
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import OURS

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as ChromaCollection

    from tribal_mcp.stores.chroma.word_index import WordIndex

REBUILD = "rebuild"
"""In our own folder: the vectors of an index while it is rebuilt, a folder for each segment."""
SWAP = "switch.json"
"""In our own folder: the swap of collections in progress."""
WORDS = "words"
"""The directory of the word indexes, each in a directory named as the collection's id."""
WORTH_INDEXING = 1000
"""Memories with a vector of a store for which an index is made; fewer texts are read faster."""
FREE_BYTES = 32 * 1024 * 1024
"""Free space without which nothing is written."""
_SPACE_FACTOR = 6
"""Free bytes needed for each byte of a batch: the journal, the log, the rows and the index."""
_BUSY_S = 30.0
_PURGING = "SELECT config_json_str FROM embeddings_queue_config WHERE id = 1"
_SET_PURGING = "INSERT OR REPLACE INTO embeddings_queue_config (id, config_json_str) VALUES (1, ?)"
_EXTEND_LOG = """
    INSERT INTO embeddings_queue (seq_id, operation, topic, id)
    VALUES (?, 3, 'persistent://default/default/00000000-0000-0000-0000-000000000000', 'none')
"""
_TRUNCATE = """
    DELETE FROM embeddings_queue WHERE topic LIKE ? AND seq_id < (
        SELECT min(applied.seq_id) FROM max_seq_id AS applied
        JOIN segments ON segments.id = applied.segment_id WHERE segments.collection = ?
    )
"""

_UNKNOWN = (
    "The Chroma folder has a layout that this version can read and export, but not write. Import "
    "into another folder (TRIBAL_DATA_DIR)."
)
_OLDER = (
    "An older version of Chroma made this folder. A write would convert it permanently, and "
    "programs with the older version might no longer open it. Nothing was changed. To allow it, "
    "set TRIBAL_MIGRATE_FOLDER=true; a copy of the folder is kept. To leave the folder as it is, "
    "export its memories and import them into another folder (TRIBAL_DATA_DIR)."
)

Files = ChromaFiles | ApiFiles


class ChromaFolder:
    """One Chroma folder. There is one object per folder; each method requires the folder's lock.

    Attributes:
        notes: sentences for people about what was found in the folder.
        open_steps: how many steps were started and not completed. A failed step stays open; then
            the writer marker stays, too, and the next session recovers the folder.
        thread_lock: held by the thread that uses the folder.
        may_convert: whether Chroma may convert the folder of an older version.
    """

    _open: dict[Path, "ChromaFolder"] = {}  # noqa: RUF012 - all folders of this process
    _register = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = path / OWN_FOLDER
        self.lock = FolderLock(path)
        self.journal = Journal(self.own / "journal.jsonl")
        self.may_convert = False
        self.index_backup = IndexBackup(path)
        self.notes: list[str] = []
        self.open_steps = 0
        self.thread_lock = threading.Lock()
        self._client: ClientAPI | None = None
        self._files: Files | None = None
        self._copy: PrivateCopy | None = None
        self._words: dict[str, WordIndex] = {}
        self._inode: tuple[int, int] | None = None
        self._seen: tuple[int, tuple[int, int] | None, int | None, str | None] | None = None
        self._writing = False
        self._versions: sqlite3.Connection | None = None
        self._version = -1
        self._owns_log = False

    @classmethod
    def at(cls, path: Path) -> "ChromaFolder":
        """The object of that folder; every spelling of its path returns the same one."""
        real = Path(os.path.realpath(path.expanduser()))  # `resolve` fails on circular links
        with cls._register:
            return cls._open.setdefault(real, cls(real))

    @classmethod
    def close_all(cls) -> None:
        """Close everything that this process has open, before it exits."""
        for folder in cls._open.values():
            folder.close()

    @property
    def durable(self) -> bool:
        """Whether acknowledged changes survive a power cut, or only a killed process."""
        return self.index_backup.sync

    @property
    def is_copied(self) -> bool:
        """Whether it is read from a temporary copy, which is removed when it is closed."""
        return self._copy is not None

    @property
    def database(self) -> Path:
        """Chroma's database."""
        return self.path / DATABASE

    @property
    def exists(self) -> bool:
        """Whether there is a database that is not empty.

        Raises:
            StoreError: the path is not a directory, or not accessible.
        """
        with explained(self.path):
            try:
                found = self.database.stat()
                return S_ISREG(found.st_mode) and found.st_size > 0
            except FileNotFoundError:
                return False

    @property
    def is_interrupted(self) -> bool:
        """Whether a killed writer may have left something to recover from."""
        left = self.own / REBUILD, self.own / SWAP
        return (
            self.lock.writer() is not None
            or self.journal.exists()
            or any(path.exists() for path in left)
        )

    def begin_session(self) -> None:
        """Called at the start of a session."""
        self.open_steps = 0
        inode = _inode_of(self.database)
        if inode != self._inode:  # the folder was replaced by another one
            self.close()
            self._inode = inode
        elif self._was_overwritten():
            self.close()
        elif self._copy is not None and not self._copy.is_current():
            self.close_files()

    def end_session(self) -> None:
        """Called at the end of a session."""
        if self.open_steps or (self._writing and self._has_transaction()):
            self.close()
            self._writing = self._owns_log = False
            self._seen = None
            return
        if self._writing:
            self.end_writing()
        self._look()

    def _was_overwritten(self) -> bool:
        """Whether the open database has another history than at the end of the last session.

        SQLite does not notice that the file was replaced in place, by an older copy.
        """
        if self._seen is None or not isinstance(self._files, ChromaFiles):
            return False
        version, stamp, last, entry = self._seen
        try:
            if self._files.version() == version:
                return _stamp_of(self.database) != stamp
            return last is None or self._files.log_entry(last) != entry
        except sqlite3.Error:
            return True

    def _look(self) -> None:
        """Remember version, size and time of the open database, and its last log entry."""
        self._seen = None
        if isinstance(self._files, ChromaFiles):
            with suppress(sqlite3.Error):
                version, stamp = self._files.version(), _stamp_of(self.database)
                last = self._files.last_logged()
                entry = None if last is None else self._files.log_entry(last)
                self._seen = version, stamp, last, entry

    def _has_transaction(self) -> bool:
        """Whether a transaction of Chroma's failed, and has not been rolled back."""
        try:
            with self.database.with_name(f"{DATABASE}-journal").open("rb") as file:
                return any(file.read(8))
        except OSError:
            return False

    def end_writing(self) -> None:
        """Clear the writer marker: everything is on the disk. A further write sets it again."""
        self._give_back_log()
        self.sync()
        if self._writing and self._client is not None:  # else it may not have seen others' writes
            self._version = self._data_version()
        self.lock.clear_marker()
        self._writing = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step that leaves the folder to be recovered if it fails."""
        self.open_steps += 1
        yield
        self.open_steps -= 1

    def files(self) -> Files:
        """The folder's files, for reading, which changes nothing in the folder.

        A transaction is rolled back if this program was killed in it.
        """
        if self._files is None:
            try:
                self._files = ChromaFiles(self.path, rollback=self.lock.writer() is not None)
            except (UnknownLayout, NotRolledBack) as error:
                self._copy = self._copy or PrivateCopy(self.path)
                self._files = self._copy.files()
                self.note(f"{error} It is read from a temporary copy, which is slower.")
        return self._files

    def word_index(self, collections: Sequence[RawCollection]) -> "WordIndex | None":
        """The word index of a store, by its collections, the main one first; None if it is small.

        A folder that this program has never written to stays as it is.
        """
        collection = collections[0]
        if OURS not in collection.metadata or not os.access(self.own, os.W_OK):
            return None
        if collection.id not in self._words:
            place = self.own / WORDS
            is_made = (place / collection.id).exists()
            if not is_made and sum(map(self.chroma_files().count, collections)) < WORTH_INDEXING:
                return None
            from tribal_mcp.stores.chroma.word_index import WordIndex  # noqa: PLC0415 - imports numpy

            self._remove_other_indexes(place, collections[1:])
            self._words[collection.id] = WordIndex(place / collection.id)
        return self._words[collection.id]

    def _remove_other_indexes(self, place: Path, others: Sequence[RawCollection]) -> None:
        """Remove word indexes of deleted collections, and that of a store without a main one."""
        there = {collection.id for collection in self.chroma_files().collections()}
        there -= {collection.id for collection in others}
        with suppress(OSError):
            for path in place.iterdir():
                if path.name not in there:
                    shutil.rmtree(path, ignore_errors=True)

    def check_writable(self) -> None:
        """Refuse to write if Chroma would convert the folder, and may not, or would store nothing.

        Raises:
            StoreError: it is so.
        """
        if self._client is not None or not self.exists:
            return
        if self.needs_conversion() and not self.may_convert:
            raise StoreError(_OLDER)
        if self._copy is not None and not self._copy.is_readable:
            raise StoreError(_UNKNOWN)
        files = self.files()
        if isinstance(files, ChromaFiles) and files.wrong_marks():
            raise StoreDamaged(
                "Chroma would not store new memories in this folder, because it counts them among "
                "those that it has stored already. Nothing was changed.",
                REPAIR,
            )
        if isinstance(files, ChromaFiles) and not has_full_text(files.sql):
            raise StoreDamaged(
                "Chroma can't store memories in this folder, because the full-text table of its "
                "database is missing or damaged. Nothing was changed.",
                REPAIR,
            )

    def restore_full_text(self) -> None:
        """Create the full-text table if it is missing: without it, Chroma can't finish a write."""
        files = self.files() if self.exists else None
        if isinstance(files, ChromaFiles) and not has_full_text(files.sql):
            self.check_free_space(self.database.stat().st_size)
            self.close()
            with self.connection() as sql:
                create_full_text(sql)
            self.note("The full-text table of the database was created from the documents.")

    def needs_conversion(self) -> bool:
        """Whether an older version of Chroma made the folder."""
        files = self.files()
        if self._copy is not None:
            return self._copy.needs_conversion
        return isinstance(files, ChromaFiles) and files.older

    def _convert(self) -> None:
        """Convert the folder of an older Chroma if that is allowed, and keep a copy of it."""
        self.check_writable()
        if not self.needs_conversion():
            return
        try_conversion(self.path)
        kept = keep_copy(self.path)
        self.close()
        self.note(
            "An older version of Chroma made this folder. It was converted; a copy of the folder "
            f"as it was is kept in {kept}."
        )

    def note(self, sentence: str) -> None:
        """Add a note for the user, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def client(self) -> "ClientAPI":
        """A client that has seen every write so far. From now on the session is a writing one."""
        if not self._writing:
            if self._client is None and self.exists:
                self._convert()
            self.check_free_space(0)
            self.lock.set_marker()
            self._writing = True
            if self._client is not None and self._data_version() != self._version:
                self.close_client()
        if self._client is None:
            if self._copy is not None:
                self.close_files()
            if self.exists:
                self._extend_log()
            self._client = open_client(self.path)
            self._inode = _inode_of(self.database)
        return self._client

    def _extend_log(self) -> None:
        """Have the log end where the segments end, for Chroma ignores entries before that.

        A log that was emptied would begin again at 1. The entry that is added names no collection.
        """
        files = self.files()
        if isinstance(files, ChromaFiles) and files.last_applied() > (files.last_logged() or 0):
            with self.connection() as sql:
                sql.execute(_EXTEND_LOG, (files.last_applied(),))

    def sync(self) -> None:
        """Have the disk store what Chroma has committed: SQLite does not sync the directory."""
        if self.durable:
            fsync_directory(self.path)

    def own_log(self) -> None:
        """Have Chroma keep its log: this program truncates it once the index is on the disk.

        Called before the first change of a session.
        """
        if not self._owns_log:
            self.client()
            self._set_purging(automatic=not self.durable)
            self._owns_log = self.durable

    def _give_back_log(self) -> None:
        """Let Chroma purge its log again, if the folder holds collections of other programs."""
        files = self.files() if self._owns_log and self.exists else None
        found = files.collections() if isinstance(files, ChromaFiles) else []
        if any(OURS not in raw.metadata for raw in found):
            self._set_purging(automatic=True)
        self._owns_log = False

    def _set_purging(self, *, automatic: bool) -> None:
        """Whether Chroma removes from its log what its index holds; it does by default."""
        with self.connection() as sql:
            row = sql.execute(_PURGING).fetchone()
            found = orjson.loads(row[0]).get("automatically_purge", True) if row else True
            if found != automatic:
                sql.execute(_SET_PURGING, (orjson.dumps(_config(automatic=automatic)).decode(),))

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One transaction on Chroma's database; one that fails may have to be rolled back."""
        with self.step(), closing(sqlite3.connect(self.database, timeout=_BUSY_S)) as sql, sql:
            yield sql

    def _truncate_log(self, raw: RawCollection) -> None:
        """Remove what the rows and the index on the disk hold, except for the last entry.

        With an empty log SQLite would assign its numbers again, and Chroma would ignore the
        entries that get them.
        """
        from tribal_mcp.stores.chroma.checksums import accept_replaced  # noqa: PLC0415 - to write

        with self.connection() as sql:
            accept_replaced(sql, raw)
            sql.execute(_TRUNCATE, (f"%/{raw.id}", raw.id))

    def close_client(self) -> None:
        """Close the client; it reopens when needed."""
        if self._client is not None:
            self._client.close()  # type: ignore[attr-defined]
            self._client = None

    def close(self) -> None:
        """Close everything; it reopens when needed."""
        self.close_client()
        self.close_files()
        if self._versions is not None:
            self._versions.close()
            self._versions = None

    def close_files(self) -> None:
        """Close the files, which are read; they reopen when needed."""
        for open_one in (self._files, self._copy):
            if open_one is not None:
                open_one.close()
        self._files = self._copy = None
        self._words.clear()

    def _data_version(self) -> int:
        """Changes whenever another connection commits, if asked on the same connection."""
        if self._versions is None:
            self._versions = sqlite3.connect(
                f"{self.database.as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        return int(self._versions.execute("PRAGMA data_version").fetchone()[0])

    def check_free_space(self, batch_bytes: int) -> None:
        """Compare the space that a batch may need with the free space.

        Raises:
            NoSpace: there is not enough.
        """
        free = shutil.disk_usage(self.path).free
        needed = FREE_BYTES + _SPACE_FACTOR * batch_bytes
        if free < needed:
            raise NoSpace(
                f"The disk of the memory store has {free / 2**20:,.0f} MiB free, and the next step "
                f"needs {needed / 2**20:,.0f} MiB. Free some space and try again."
            )

    def size(self) -> int:
        """The bytes of the store's files. Does not require the lock."""
        total = 0
        for parent, folders, files in os.walk(self.path):
            if Path(parent) == self.path:
                folders[:] = filter(STORE_FILES.fullmatch, folders)
                files[:] = filter(STORE_FILES.fullmatch, files)
            for name in files:
                with suppress(FileNotFoundError):
                    total += os.lstat(Path(parent, name)).st_size
        return total

    def chroma_files(self) -> ChromaFiles:
        """The folder's files, for planning a write.

        Raises:
            StoreError: their layout is unknown.
        """
        files = self.files()
        if isinstance(files, ApiFiles):
            raise StoreError(_UNKNOWN)
        return files

    def raw(self, name: str) -> RawCollection | None:
        """The collection of that name as the database has it, or None."""
        return self.chroma_files().collection(name) if self.exists else None

    def back_up_index(self, name: str) -> None:
        """Sync the collection's index and save what keeps it readable, then truncate the log.

        Called before and after each call to Chroma that changes the collection. Cheap if the index
        has not changed.
        """
        raw = self.raw(name)
        if raw is None:
            return
        segment, applied = self.chroma_files().vector_segment(raw)
        try:
            changed = self.index_backup.save(segment, applied, partial(self._verify_index, raw))
        except (OSError, StoreError):
            self.open_steps += 1  # the next session rebuilds the index from the log
            make_private(self.own / REBUILD / segment)
            raise
        if changed and self._owns_log:
            self._truncate_log(raw)

    def _verify_index(self, raw: RawCollection) -> None:
        """Compare the index files with the part of the log that they make superfluous.

        Raises:
            SystemFailure: they differ, as the system did not write all of them.
        """
        try:
            lost = bool(self.chroma_files().unwritten(raw))
        except StoreDamaged:  # a rebuild, which compares all vectors itself, may have to begin so
            segment, _ = self.chroma_files().vector_segment(raw)
            lost = not (self.own / REBUILD / segment).exists()
        if lost:
            raise SystemFailure(
                f"The disk did not store all of the vector index of {raw.name!r}. Nothing is lost: "
                "the vectors are in Chroma's log, and the next call rebuilds the index from it. "
                "Check the disk."
            )

    def is_intact(self) -> bool:
        """Whether all index files can be read, and are what Chroma can load."""
        try:
            with ChromaFiles(self.path) as files:
                return not any(
                    files.needs_backup(raw) or files.without_vector(raw) or files.torn_links(raw)
                    for raw in files.collections()
                )
        except (StoreError, OSError, sqlite3.Error):
            return False

    def apply_log(self, name: str) -> None:
        """Let Chroma apply its log to the rows, before a write is planned on them."""
        raw = self.raw(name)
        if raw is not None and self.chroma_files().unapplied(raw):
            self.own_log()
            self.back_up_index(name)
            with self.step():
                self.chroma_collection(name).count()
            self.back_up_index(name)

    def chroma_collection(self, name: str) -> "ChromaCollection":
        """The existing collection of that name, for writing."""
        return self.client().get_collection(name, embedding_function=None)


def _config(*, automatic: bool) -> dict[str, str | bool]:
    return {"automatically_purge": automatic, "_type": "EmbeddingsQueueConfigurationInternal"}


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


atexit.register(ChromaFolder.close_all)
