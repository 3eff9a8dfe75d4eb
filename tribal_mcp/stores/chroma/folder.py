"""One Chroma folder: its lock, its files, and the Chroma client while it is written to.

Reading goes to the files and writing through Chroma, both with the folder's lock in hand. A client
that another process has written past is opened anew before it writes, for Chroma keeps its vector
index in memory. What a killed writer leaves is for `recovery`.
"""

import atexit
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from tribal_mcp.errors import NoSpace, StoreError
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.files.index_backup import IndexBackup
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.journal import Journal
from tribal_mcp.stores.chroma.lock import OWN_FOLDER, FolderLock
from tribal_mcp.stores.errors import explained
from tribal_mcp.stores.raw import RawCollection, UnknownLayout

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as ChromaCollection

OURS = "tribal_layout"
"""In the metadata of each collection that this program made."""
FREE_BYTES = 32 * 1024 * 1024
"""Free space without which nothing is written."""
_SPARE = 6
"""Free bytes wanted for each byte of a batch: the journal, the log, the rows and the index."""

Files = ChromaFiles | ApiFiles


class ChromaFolder:
    """One Chroma folder. One object for each; every method is called with its lock in hand.

    Attributes:
        notes: sentences for people about what was found in it.
        risks: steps begun and not ended. One that fails stays counted: then the mark stays, and
            the next session recovers.
        at_work: held by the thread that is at work on it.
    """

    _open: dict[Path, "ChromaFolder"] = {}  # noqa: RUF012 - the register of this process
    _register = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = path / OWN_FOLDER
        self.lock = FolderLock(path)
        self.journal = Journal(self.own / "journal.jsonl")
        self.index_backup = IndexBackup(path)
        self.notes: list[str] = []
        self.risks = 0
        self.at_work = threading.Lock()
        self._client: ClientAPI | None = None
        self._files: Files | None = None
        self._file: tuple[int, int] | None = None
        self._writing = False
        self._versions: sqlite3.Connection | None = None
        self._version = -1

    @classmethod
    def at(cls, path: Path) -> "ChromaFolder":
        """The object of that folder; every spelling of its path gives the same one."""
        real = Path(os.path.realpath(path.expanduser()))  # `resolve` fails where links go round
        with cls._register:
            return cls._open.setdefault(real, cls(real))

    @classmethod
    def close_all(cls) -> None:
        """Close what this process has open; at its end."""
        for folder in cls._open.values():
            folder.close()

    @property
    def database(self) -> Path:
        """Chroma's database."""
        return self.path / "chroma.sqlite3"

    @property
    def exists(self) -> bool:
        """Whether there is anything to read.

        Raises:
            StoreError: nothing can be, nor be written; it is no folder, or not for us.
        """
        with explained(self.path):
            try:
                return S_ISREG(self.database.stat().st_mode)
            except FileNotFoundError:
                return False

    def begin(self) -> None:
        """Called at the begin of a session."""
        self.risks = 0
        file = (stat.st_dev, stat.st_ino) if (stat := _stat(self.database)) else None
        if file != self._file:  # somebody has put another folder in its place
            self.close()
            self._file = file

    def end(self) -> None:
        """Called at the end of a session."""
        if self.risks:
            self.close()
            self._writing = False
            return
        if self._writing:  # a reader has not seen to it that the client knows what others wrote
            if self._client is not None:
                self._version = self._data_version()
            self.lock.unmark()
            self._writing = False

    @contextmanager
    def at_risk(self) -> Iterator[None]:
        """Around a step that leaves the folder in mid-write if it fails."""
        self.risks += 1
        yield
        self.risks -= 1

    def files(self) -> Files:
        """The folder's files, for reading."""
        if self._files is None:
            try:
                self._files = ChromaFiles(self.path)
            except UnknownLayout as error:
                client = self.client()  # which brings an older layout up to its own
                try:
                    self._files = ChromaFiles(self.path)
                except UnknownLayout:
                    self._files = ApiFiles(client)
                    self.note(f"{error} It is read through Chroma itself, which is slower.")
        return self._files

    def note(self, sentence: str) -> None:
        """Tell the user, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def client(self) -> "ClientAPI":
        """A client that knows of every write so far. From now on this is a write session."""
        if not self._writing:
            self.refuse_full_disk(0)
            self.lock.mark()
            self._writing = True
            if self._client is not None and self._data_version() != self._version:
                self.close_client()
        if self._client is None:
            import chromadb  # noqa: PLC0415 - takes seconds
            from chromadb.config import Settings  # noqa: PLC0415

            settings = Settings(_env_file=None, anonymized_telemetry=False)
            self._client = chromadb.PersistentClient(self.path, settings=settings)
            self._file = (stat.st_dev, stat.st_ino) if (stat := _stat(self.database)) else None
        return self._client

    def close_client(self) -> None:
        """Close the client; it opens again when it is needed."""
        if self._client is not None:
            self._client.close()  # type: ignore[attr-defined]
            self._client = None
        if isinstance(self._files, ApiFiles):
            self._files = None

    def close(self) -> None:
        """Close all; it opens again when it is needed."""
        self.close_client()
        for open_one in (self._versions, self._files):
            if open_one is not None:
                open_one.close()
        self._versions = self._files = None

    def _data_version(self) -> int:
        """Changes whenever another connection commits, if it is asked on the same connection."""
        if self._versions is None:
            self._versions = sqlite3.connect(
                f"{self.database.as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        return int(self._versions.execute("PRAGMA data_version").fetchone()[0])

    def refuse_full_disk(self, batch_bytes: int) -> None:
        """Hold what a step may need against what is free.

        Raises:
            NoSpace: it is more.
        """
        free = shutil.disk_usage(self.path).free
        wanted = FREE_BYTES + _SPARE * batch_bytes
        if free < wanted:
            raise NoSpace(
                f"The disk of the memory store has {free / 2**20:,.0f} MiB free; the next step "
                f"wants {wanted / 2**20:,.0f}. Make space and run the same command again."
            )

    def direct(self) -> ChromaFiles:
        """The folder's files, for writing: without them no plan can be made.

        Raises:
            StoreError: their layout is not known.
        """
        files = self.files()
        if isinstance(files, ApiFiles):
            raise StoreError(
                "The Chroma folder has a layout that this version does not know: it can be read "
                "and exported, but not written to. Import into another folder (TRIBAL_DATA_DIR)."
            )
        return files

    def raw(self, name: str) -> RawCollection | None:
        """The collection of that name as it stands in the database."""
        return self.direct().collection(name) if self.exists else None

    def shield(self, name: str) -> None:
        """Keep what makes the collection's index readable if the next call is killed."""
        raw = self.raw(name)
        if raw is not None:
            self.index_backup.save(*self.direct().vector_segment(raw))

    def catch_up(self, name: str) -> None:
        """Let Chroma carry out what stands in its log only, before a plan is made on the rows."""
        raw = self.raw(name)
        if raw is not None and self.direct().unapplied(raw):
            self.shield(name)
            with self.at_risk():
                self.at_name(name).count()

    def at_name(self, name: str) -> "ChromaCollection":
        """The collection of that name, which exists."""
        return self.client().get_collection(name, embedding_function=None)


def _stat(path: Path) -> Any:  # noqa: ANN401 - os.stat_result or None
    try:
        return path.stat()
    except OSError:
        return None


atexit.register(ChromaFolder.close_all)
