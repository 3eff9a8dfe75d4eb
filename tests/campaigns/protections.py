"""Switches protections off: a campaign that does not fail then proves nothing."""

from collections.abc import Collection

from tribal_mcp.stores import chroma, chroma_folder
from tribal_mcp.stores.chroma_folder import ChromaFolder
from tribal_mcp.stores.guard import Guard
from tribal_mcp.stores.journal import Journal
from tribal_mcp.stores.lock import FolderLock


def switch_off(names: Collection[str]) -> None:
    """Run without those protections, in this process."""
    for name in names:
        _SWITCHES[name]()


def _no_lock() -> None:
    FolderLock._try = lambda self: self._threads.acquire(blocking=False)  # type: ignore[method-assign]


def _no_reopen() -> None:
    ChromaFolder._data_version = lambda self: 0  # type: ignore[method-assign]


def _no_journal() -> None:
    Journal.write = lambda self, batch: None  # type: ignore[method-assign]


def _no_recovery() -> None:
    chroma.recover = lambda folder: folder.lock.unmark()


def _no_guard() -> None:
    Guard.save = lambda self, segment, applied: None  # type: ignore[method-assign]


def _no_schema_check() -> None:
    chroma_folder.refuse_strangers = lambda raw: None


_SWITCHES = {
    "lock": _no_lock,
    "reopen": _no_reopen,
    "journal": _no_journal,
    "recovery": _no_recovery,
    "guard": _no_guard,
    "schema": _no_schema_check,
}
