"""Failures of Chroma, SQLite and the operating system, translated to errors that users understand.

They raise a dozen classes for the same failure, and Chroma's Rust code panics with a class that is
not an `Exception`. So the message decides, and the free space on the disk.
"""

import errno
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError
from tribal_mcp.next_steps import NextStep

_log = logging.getLogger(__name__)

CHECK = NextStep("To see what is damaged, run {call}.", "check")
REPAIR = NextStep("To repair it, run {call}.", "check", {"repair": True})
RESCUE = NextStep("To save what can still be read, run {call}.", "rescue", {"output_path": ...})

FULL = ("disk is full", "disk full", "no space left", "quota exceeded")
_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT}
_FULL_BYTES = 1 << 20
_DAMAGED = ("malformed", "not a database", "deserializing pickle", "hnsw segment reader")
_THEIRS = {"chromadb", "chromadb_rust_bindings", "sqlite3", "pyo3_runtime"}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Raise failures in the block as a `StoreError` or `NoSpace`; bugs are raised unchanged."""
    try:
        yield
    except BaseException as error:
        theirs = type(error).__module__.partition(".")[0] in _THEIRS
        if not theirs and not isinstance(error, OSError):
            raise
        message = str(error)
        if _is_full(error, message, folder):
            raise NoSpace(
                "The disk of the memory store is full. Everything that was acknowledged is safe. "
                "Free some space and try again."
            ) from error
        if isinstance(error, OSError):
            raise StoreError(
                f"The folder of the memory store can't be used: {error.strerror or message}. Check "
                "TRIBAL_DATA_DIR."
            ) from error
        damaged = any(part in message for part in _DAMAGED)
        if isinstance(error, sqlite3.ProgrammingError) and not damaged:
            raise
        _log.info("Chroma failed", exc_info=error)
        if damaged:
            raise StoreDamaged("The memory store is damaged.", CHECK) from error
        raise StoreError(
            f"Chroma can't read or write the memory store ({type(error).__name__}). Everything "
            "that was acknowledged is safe.",
            CHECK,
        ) from error


def _is_full(error: BaseException, message: str, folder: Path) -> bool:
    if getattr(error, "errno", None) in _FULL_ERRNO or any(
        part in message.lower() for part in FULL
    ):
        return True
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False
