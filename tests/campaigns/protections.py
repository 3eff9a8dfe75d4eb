"""Disables mechanisms: a campaign that still passes then proves nothing about them."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from filelock import FileLock

from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.files.directory import Draft
from tribal_mcp.stores.chroma import session as sessions
from tribal_mcp.stores.chroma import write as batches
from tribal_mcp.stores.chroma.files.index_backup import IndexBackup
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Journal
from tribal_mcp.stores.chroma.lock import Writer


def switch_off(names: Collection[str]) -> None:
    """Disable these mechanisms in this process."""
    for name in names:
        _SWITCHES[name]()


def _put(where: object, name: str, what: object) -> None:
    setattr(where, name, what)


@contextmanager
def _in_place(_: BundleFolders, path: str, **_how: object) -> Iterator[Draft]:
    """Write a bundle under its final name instead of a temporary one."""
    with Draft(FileIO(path, "wb")) as draft:
        draft.path = Path(path)
        yield draft


_SWITCHES: dict[str, Callable[[], None]] = {
    "lock": lambda: _put(FileLock, "acquire", lambda *_, **__: None),
    "reopen": lambda: _put(ChromaFolder, "_data_version", lambda _: 0),
    "journal": lambda: _put(Journal, "write", lambda *_: None),
    "recovery": lambda: _put(sessions, "recover", lambda folder, *_: folder.end_writing()),
    "sync": lambda: _put(os, "fsync", lambda _: None),
    "log": lambda: _put(ChromaFolder, "own_log", lambda folder: folder.client()),
    "restart": lambda: _put(Writer, "before_restart", property(lambda _: False)),
    "guard": lambda: _put(IndexBackup, "save", lambda *_: None),
    "publish": lambda: _put(BundleFolders, "publish", _in_place),
    "schema": lambda: _put(batches, "check_embedding_function", lambda _: None),
}
