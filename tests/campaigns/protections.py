"""Switches protections off: a campaign that does not fail then proves nothing."""

from collections.abc import Callable, Collection
from typing import Any

from filelock import FileLock

from tribal_mcp.stores import batches, sessions
from tribal_mcp.stores.chroma_folder import ChromaFolder
from tribal_mcp.stores.guard import Guard
from tribal_mcp.stores.journal import Journal


def switch_off(names: Collection[str]) -> None:
    """Run without those protections, in this process."""
    for name in names:
        _SWITCHES[name]()


def _put(where: object, name: str, what: Callable[..., Any]) -> None:
    setattr(where, name, what)


_SWITCHES: dict[str, Callable[[], None]] = {
    "lock": lambda: _put(FileLock, "acquire", lambda *_, **__: None),
    "reopen": lambda: _put(ChromaFolder, "_data_version", lambda _: 0),
    "journal": lambda: _put(Journal, "write", lambda *_: None),
    "recovery": lambda: _put(sessions, "recover", lambda folder: folder.lock.unmark()),
    "guard": lambda: _put(Guard, "save", lambda *_: None),
    "schema": lambda: _put(batches, "refuse_strangers", lambda _: None),
}
