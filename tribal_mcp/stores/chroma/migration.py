"""Keeps a folder of an older Chroma as it is, until its user allows that it is converted.

Chroma converts the database of an older version as soon as it opens it, for good: programs with
the older version can't open it any more. So what is only read is read from the files, or through
Chroma from a private copy. Before the first write, if it is allowed, the conversion and a write are
tried on a private copy, and a copy of the folder is kept beside it.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError
from tribal_mcp.files.atomic import fsync_directory, fsync_path
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.schema import is_before_current
from tribal_mcp.stores.chroma.loading import load_chroma
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.errors import explained
from tribal_mcp.stores.raw import HARMLESS_EMBEDDERS, UnknownLayout

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

DATABASE = "chroma.sqlite3"
STORE_FILES = re.compile(
    rf"{re.escape(DATABASE)}.*|{OWN_FOLDER}|[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}"
)
"""The store's own files; other files, such as bundles, may be in the same folder."""
COPIES = ".before-conversion-"
"""What the name of a copy of a folder adds to that of the folder."""
_LOCKS = {"lock", "next"}
_CHUNK = 1 << 20
_TRIAL_ID = "tribal-mcp-trial"


class PrivateCopy:
    """A temporary copy of a folder, which Chroma may convert; it is removed when it is closed.

    Args:
        folder: the Chroma folder.

    Attributes:
        path: where it is.
        needs_conversion: whether Chroma converts the folder when it opens it.
        is_readable: whether the layout is known, or older than the known ones.

    Raises:
        NoSpace: the directory for temporary files has too little free space.
    """

    def __init__(self, folder: Path) -> None:
        self.needs_conversion = True
        self.is_readable = True
        self._stamp = _stamp(folder)
        self._source = folder
        self.path = Path(tempfile.mkdtemp(prefix="tribal-mcp-"))
        self._client: ClientAPI | None = None
        try:
            copy_store(folder, self.path)
        except BaseException:
            self.close()
            raise

    def is_current(self) -> bool:
        """Whether the folder has not changed since it was copied."""
        return self._stamp == _stamp(self._source)

    def files(self) -> ChromaFiles | ApiFiles:
        """The files of the copy, converted by Chroma if that is needed to read them."""
        with suppress(UnknownLayout):
            files = ChromaFiles(self.path)
            self.needs_conversion = files.older
            return files
        with closing(sqlite3.connect(self.path / DATABASE)) as sql:
            self.needs_conversion = self.is_readable = is_before_current(sql)
        client = self.client()
        try:
            return ChromaFiles(self.path)
        except UnknownLayout:
            return ApiFiles(client)

    def client(self) -> "ClientAPI":
        """A client of the copy, which Chroma converts."""
        if self._client is None:
            self._client = open_client(self.path)
        return self._client

    def close(self) -> None:
        """Remove the copy."""
        if self._client is not None:
            self._client.close()  # type: ignore[attr-defined]
            self._client = None
        shutil.rmtree(self.path, ignore_errors=True)


def open_client(folder: Path) -> "ClientAPI":
    """A Chroma client on that folder. It converts the database of an older version."""
    load_chroma()
    import chromadb  # noqa: PLC0415 - takes seconds
    from chromadb.config import Settings  # noqa: PLC0415

    settings = Settings(_env_file=None, anonymized_telemetry=False)
    if _is_before_current(folder / DATABASE):
        # Some of Chroma's connections may know the tables as they were before the conversion, and
        # then it crashes. A client that is opened later has new ones.
        chromadb.PersistentClient(folder, settings=settings).close()  # type: ignore[attr-defined]
    return chromadb.PersistentClient(folder, settings=settings)


def _is_before_current(database: Path) -> bool:
    if not database.exists():
        return False
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as sql:
        return is_before_current(sql)


def try_conversion(folder: Path) -> None:
    """Convert a private copy of the folder, and write to each collection in it.

    Raises:
        StoreError: Chroma fails, or loses a record.
        NoSpace: there is too little space for the copy.
    """
    copy = PrivateCopy(folder)
    try:
        with explained(copy.path):
            before = _vectors_of(copy)
            _write_to_each(copy)
            after = _vectors_of(copy)
        if before is not None and before != after:
            raise StoreDamaged("Records would be missing afterwards.")
    except StoreError as error:
        raise StoreError(
            "Chroma could not convert and write to a copy of this folder, so the folder was left "
            f"as it is: {error} Reading and exporting work. To write, export the memories and "
            "import them into another folder (TRIBAL_DATA_DIR)."
        ) from error
    finally:
        copy.close()


def _vectors_of(copy: PrivateCopy) -> dict[str, list[str]] | None:
    """The ids with vectors in each collection; None if the layout is unknown."""
    try:
        with ChromaFiles(copy.path) as files:
            return {raw.id: sorted(files.ids_with_vector(raw)) for raw in files.collections()}
    except UnknownLayout:
        return None


def _write_to_each(copy: PrivateCopy) -> None:
    import numpy as np

    client = copy.client()
    with ChromaFiles(copy.path) as files:
        found = files.collections()
    for raw in found:
        if raw.embedding_functions() <= HARMLESS_EMBEDDERS:
            collection = client.get_collection(raw.name, embedding_function=None)
            vector = np.full((1, raw.dimension or 1), 0.5, np.float32)
            collection.add(ids=[_TRIAL_ID], embeddings=vector, documents=["A trial."])
            collection.delete([_TRIAL_ID])
            collection.get(limit=1, include=["documents", "metadatas", "embeddings"])


def keep_copy(folder: Path) -> Path:
    """Copy the store's files beside the folder, durably; the copy.

    Raises:
        NoSpace: there is too little space for it.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = folder.with_name(f"{folder.name}{COPIES}{moment}")
    unfinished = kept.with_name(f"{kept.name}.part")
    unfinished.mkdir(mode=0o700)
    try:
        copy_store(folder, unfinished)
        for parent, _, names in os.walk(unfinished):
            for name in names:
                fsync_path(Path(parent, name))
            fsync_directory(Path(parent))
        unfinished.rename(kept)
        fsync_directory(kept.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return kept


def copy_store(source: Path, target: Path) -> None:
    """Copy the store's files to an existing directory.

    Raises:
        NoSpace: there is too little space for them.
    """
    with explained(source):
        files = list(_store_files(source))
        needed = sum(path.stat().st_blocks * 512 for path in files)
        free = shutil.disk_usage(target).free
        if free < needed + _CHUNK:
            raise NoSpace(
                f"A copy of the folder needs {needed / 2**20:,.0f} MiB, and "
                f"{free / 2**20:,.0f} MiB are free. Free some space and try again."
            )
        for path in files:
            there = target / path.relative_to(source)
            there.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
            _copy_file(path, there)


def _store_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        if here == folder:
            folders[:] = filter(STORE_FILES.fullmatch, folders)
            names[:] = filter(STORE_FILES.fullmatch, names)
        elif here == folder / OWN_FOLDER:
            names[:] = set(names) - _LOCKS
        yield from (here / name for name in names if not (here / name).is_symlink())


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; what is empty space in it, as in Chroma's link lists, stays so."""
    with source.open("rb") as old, target.open("xb") as new:
        size = os.fstat(old.fileno()).st_size
        for start, end in _extents(old.fileno(), size):
            old.seek(start)
            new.seek(start)
            while part := old.read(min(_CHUNK, end - old.tell())):
                new.write(part)
        new.truncate(size)


def _extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # the rest is empty
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _stamp(folder: Path) -> list[tuple[int, int]]:
    found = []
    for name in (DATABASE, f"{DATABASE}-journal", f"{DATABASE}-wal"):
        with suppress(OSError):
            stat = (folder / name).stat()
            found.append((stat.st_size, stat.st_mtime_ns))
    return found
