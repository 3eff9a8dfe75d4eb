"""Failures of Chroma, SQLite and the operating system, translated to errors that users understand.

They raise a dozen classes for the same failure, and Chroma's Rust code panics with a class that is
not an `Exception`. So the error number in the message decides, and the free space on the disk.
"""

import errno
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError, SystemFailure, TribalError
from tribal_mcp.files.failures import DISK_FULL, failure
from tribal_mcp.next_steps import NextStep

_log = logging.getLogger(__name__)

CHECK = NextStep("To see what is damaged, run {call}.", "check")
REPAIR = NextStep("To repair it, run {call}.", "check", {"repair": True})
RESCUE = NextStep("To save what can still be read, run {call}.", "rescue", {"output_path": ...})

FULL = ("disk is full", "disk full", "no space left", "quota exceeded")
_FULL_BYTES = 1 << 20
_DAMAGED = (
    "malformed",
    "not a database",
    "deserializing pickle",
    "hnsw segment reader",
    "Could not decode",
)
_THEIRS = {"chromadb", "chromadb_rust_bindings", "sqlite3", "pyo3_runtime"}
_DATABASE = "chroma.sqlite3"
_SAFE = "Everything that was acknowledged is safe."
_WRITTEN = "Everything acknowledged before had been written to the disk."
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_SQLITE_CODE = re.compile(r"\bcode: (\d+)")
_PRIMARY = 0xFF
"""The bits of an SQLite error code that hold the kind of error."""
_ERRNO = {
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
_NOT_DAMAGE = {
    *_ERRNO,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


@contextmanager
def explained(folder: Path, is_intact: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Raise failures in the block as a `StoreError` or `NoSpace`; bugs are raised unchanged.

    Args:
        folder: the folder of the store, or one above the files that the block uses.
        is_intact: reads the store again and says whether it is intact; asked if Chroma calls it
            damaged, as it does after a read that failed once.
    """
    try:
        yield
    except BaseException as error:
        theirs = type(error).__module__.partition(".")[0] in _THEIRS
        if not theirs and not isinstance(error, OSError):
            raise
        problem = _translated(error, folder, is_intact)
        if problem is None:
            raise
        if theirs:
            _log.info("Chroma failed", exc_info=error)
        raise problem from error


def _translated(
    error: BaseException, folder: Path, is_intact: Callable[[], bool]
) -> TribalError | None:
    """The error for users; None if it is a bug."""
    message = str(error)
    system = error if isinstance(error, OSError) else _system_error(error, message, folder)
    if not (system and system.errno in DISK_FULL) and _is_full(message, folder):
        return NoSpace(f"The disk of the memory store is full. {_SAFE} Free some space, try again.")
    if system is not None:
        return failure(
            system,
            _shown(system, folder),
            _WRITTEN if system.errno == errno.EIO else _SAFE,
            advice="Check the folder and its permissions (TRIBAL_DATA_DIR).",
        )
    damaged = any(part in message for part in _DAMAGED)
    if damaged:
        in_database = _code(error, message) == sqlite3.SQLITE_CORRUPT
        if _is_sound(folder) if in_database else is_intact():
            return SystemFailure(
                "A file in the folder of the memory store could not be read, and is not damaged: "
                f"the disk may be failing. {_WRITTEN} Check the disk, keep a bundle on another "
                "one, and try again."
            )
        return StoreDamaged("The memory store is damaged.", CHECK)
    if isinstance(error, sqlite3.ProgrammingError):
        return None
    return StoreError(
        f"Chroma can't read or write the memory store ({type(error).__name__}). {_SAFE}", CHECK
    )


def is_damage(error: sqlite3.Error, folder: Path) -> bool:
    """Whether the database is damaged, rather than its disk failing or the system refusing it."""
    code = getattr(error, "sqlite_errorcode", None)  # errors of Python's module have none
    if code == sqlite3.SQLITE_CORRUPT:
        return not _is_sound(folder)
    if code == sqlite3.SQLITE_CANTOPEN:
        return not (folder / _DATABASE).exists()
    return code is None or code & _PRIMARY not in _NOT_DAMAGE


def _shown(error: OSError, folder: Path) -> str:
    """The file of an error relative to the store's folder: the subject of a sentence."""
    path = Path(os.fsdecode(error.filename)) if error.filename else folder
    of_folder = error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
    if of_folder or path == folder or not path.is_relative_to(folder):
        return "The folder of the memory store"
    return f"{os.fspath(path.relative_to(folder))!r} in the folder of the memory store"


def _system_error(error: BaseException, message: str, folder: Path) -> OSError | None:
    """The failed system call behind an error of SQLite or Chroma, if it tells."""
    database = os.fspath(folder / _DATABASE)
    found = _OS_ERROR.search(message)
    if found:
        return OSError(int(found[1]), os.strerror(int(found[1])))
    code = _code(error, message) or 0
    kind = code & _PRIMARY
    if kind in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        refused = None if kind == sqlite3.SQLITE_CANTOPEN else errno.EACCES
        return _refusal(database) or (OSError(refused, "", database) if refused else None)
    if code == sqlite3.SQLITE_IOERR_NOMEM:
        number = errno.ENOMEM
    elif kind == sqlite3.SQLITE_IOERR and not os.access(folder, os.W_OK):
        number, database = errno.EACCES, os.fspath(folder)  # for its journal
    else:
        number = _ERRNO.get(kind, 0)
    return OSError(number, os.strerror(number), database) if number else None


def _code(error: BaseException, message: str) -> int | None:
    """The code of an SQLite error, also of one that Chroma reports."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None)  # our own have none
    found = _SQLITE_CODE.search(message)
    return int(found[1]) if found else None


def _refusal(path: str) -> OSError | None:
    """Why the system does not open a file for writing; SQLite does not tell."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return error
    return None


def _is_sound(folder: Path) -> bool:
    """Whether the database is intact: SQLite takes a failed read for damage.

    One that a transaction in progress keeps from being read counts as intact.
    """
    try:
        database = f"{(folder / _DATABASE).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as sql:
            return bool(sql.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error as error:
        return (_code(error, "") or 0) & _PRIMARY in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}
    except OSError:
        return False


def _is_full(message: str, folder: Path) -> bool:
    if any(part in message.lower() for part in FULL):
        return True
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False
