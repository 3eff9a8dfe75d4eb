"""What Chroma, SQLite and the system raise, as failures that a user can act on.

They have a dozen classes for the same thing, and Chroma's Rust half panics with one that is not
even an `Exception`: so the words are looked at, and the disk.
"""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError
from tribal_mcp.next_steps import NextStep

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
    """Raise what goes wrong in the block as a `StoreError` or `NoSpace`; bugs stay as they are."""
    try:
        yield
    except BaseException as error:
        theirs = type(error).__module__.partition(".")[0] in _THEIRS
        if not theirs and not isinstance(error, OSError):
            raise
        words = str(error)
        if _is_full(error, words, folder):
            raise NoSpace(
                "The disk of the memory store is full. What was acknowledged is safe. Make space "
                "and run the same command again."
            ) from error
        if isinstance(error, OSError):
            raise StoreError(
                f"The folder of the memory store can't be used: {error.strerror or words}. "
                "TRIBAL_DATA_DIR says where it is."
            ) from error
        damaged = any(word in words for word in _DAMAGED)
        if isinstance(error, sqlite3.ProgrammingError) and not damaged:
            raise
        kind = StoreDamaged if damaged else StoreError
        raise kind(f"Chroma could not do it: {words[:300]}. Run `tribal-mcp check`.") from error


def _is_full(error: BaseException, words: str, folder: Path) -> bool:
    if getattr(error, "errno", None) in _FULL_ERRNO or any(w in words.lower() for w in FULL):
        return True
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False
