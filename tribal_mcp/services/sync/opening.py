"""What a sync begins with: its folder, its lock, and the state that belongs to both."""

import errno
import platform
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from unicodedata import normalize

import anyio
from filelock import FileLock, Timeout

from tribal_mcp.config import Settings
from tribal_mcp.errors import StoreError, StoreLocked, UsageError
from tribal_mcp.files.age_keys import recipient_files
from tribal_mcp.files.atomic import make_private
from tribal_mcp.files.failures import failure
from tribal_mcp.files.replica_folders import Listing, SharedFolder
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.filters import read_filter
from tribal_mcp.portability.replication.records import NAME_CHARACTERS
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.chroma.migration import DATABASE

_WAIT_S = 0.1
_ERRNO = {
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def path_of(context: Context, request: SyncRequest) -> Path:
    """The shared folder: only the user's own command line may name another than the setting."""
    setting = context.settings.sync_dir
    try:
        given = Path(request.folder).expanduser().absolute() if request.folder else setting
    except RuntimeError:
        raise UsageError(f"{request.folder!r:.200}: that user has no home folder.") from None
    if given is None:
        raise UsageError(
            "No folder is given. Name the folder that the machines share, or set TRIBAL_SYNC_DIR."
        )
    if not context.trusted and given != setting:
        raise UsageError("Only the folder of the setting TRIBAL_SYNC_DIR can be synced from here.")
    if "\0" in str(given):
        raise UsageError(f"{str(given)!r:.200} can't be the path of a folder.")
    _check_text(str(given))
    own = given.resolve().is_relative_to(context.settings.data_dir.resolve())
    if own or (given / DATABASE).exists():
        raise UsageError(
            f"{str(given)!r:.300} is in the data folder of a store, which machines can't share. "
            "Nothing was changed. Name a folder elsewhere."
        )
    _check_private(context.settings, given)
    return given


def check(request: SyncRequest) -> None:
    """Refuse arguments that are not valid.

    Raises:
        UsageError: one is not, or they exclude each other.
    """
    read_filter(request.tags, "", "")
    if request.all and request.tags:
        raise UsageError("Share all memories, or only those with some tags: not both.")
    if request.version and not request.resolve:
        raise UsageError("Which conflict to resolve is not given. Give the id of the memory, too.")
    name = request.name
    if name and not (name.strip() and name.isprintable() and len(name) <= NAME_CHARACTERS):
        raise UsageError(
            f"{name!r:.80} can't be the name of a machine: it has to be up to {NAME_CHARACTERS} "
            "printable characters."
        )
    for text in (request.resolve, request.withdraw, request.remove_machine, *request.tags):
        _check_text(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r:.300} is not UTF-8. Choose another name.") from None


def _check_private(settings: Settings, shared: Path) -> None:
    """Check that what others must not read or change is not in the folder that they share."""
    reads, adds = "everybody could read the folder with it", "everybody could add a key to it"
    own = [
        (settings.data_dir, "store of this machine", "nothing may copy it while it is used"),
        (settings.age_identity, "file of TRIBAL_AGE_IDENTITY", reads),
        (settings.age_passphrase_file, "file of TRIBAL_AGE_PASSPHRASE_FILE", reads),
        *((path, "file of TRIBAL_AGE_RECIPIENTS", adds) for path in recipient_files(settings)),
    ]
    for path, what, why in own:
        if path and path.resolve().is_relative_to(shared.resolve()):
            raise UsageError(
                f"The {what}, {str(path)!r:.300}, is in the folder {str(shared)!r:.300} that the "
                f"machines share: {why}. Nothing was changed. Move it, or name another folder."
            )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raises failures on a state as errors for users."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.ProgrammingError):
            raise
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        shown = f"{str(path)!r:.300}"
        if kind in _ERRNO:
            system = OSError(_ERRNO[kind], str(error))
            raise failure(system, shown, "To continue, repeat the sync.") from error
        raise StoreError(
            f"{shown}, which has what this store knows of the shared folder, is damaged. Delete "
            "it, and in the next sync, name the tags that are shared and ask for encryption again, "
            "as it had those, too."
        ) from error


@asynccontextmanager
async def locked(own: Path, context: Context, *, dry_run: bool) -> AsyncIterator[None]:
    """Wait for another sync of the same store."""
    if dry_run and not own.exists():  # noqa: ASYNC240 - a local folder
        yield
        return
    lock = FileLock(own / "lock", thread_local=False)
    end = time.monotonic() + context.settings.lock_timeout_s
    waiting = context.waiting()
    while True:
        try:
            make_private(own)
            lock.acquire(timeout=0)
            break
        except Timeout:
            waiting("Another sync of this store is running")
            if time.monotonic() > end:
                raise StoreLocked(
                    "Another sync of this store is still running. Nothing was changed. Try again "
                    "later."
                ) from None
            await anyio.sleep(_WAIT_S)
        except OSError as error:
            advice = "Check the data folder and its permissions (TRIBAL_DATA_DIR)."
            shown = f"{str(own)!r:.300}"
            raise failure(error, shown, "Nothing was changed.", advice=advice) from error
    try:
        yield
    finally:
        lock.release()


def state_of(
    own: Path, folder: Path, listing: Listing, store: MemoryStore, *, dry_run: bool
) -> SyncState:
    """The state for this folder: of several, the one that knows files in it, or its path."""
    replicas = {file.replica for file in listing.files.values()}
    best, found = 0, own / f"{time.time_ns():x}.db"
    left: list[Path] = []
    for path in sorted(own.glob("*.db")):
        with explained(path), closing(SyncState(path, dry_run=True)) as state:
            is_left = not state["path"] and not state.is_new  # its sync was refused
            if is_left or state["collection"] != getattr(store, "name", ""):
                left += [path] * is_left
                continue
            knows = state["replica"] in replicas or not state.files().keys().isdisjoint(
                listing.files
            )
            is_here = bool(state["path"]) and Path(state["path"]).resolve() == folder.resolve()
            score = 2 * knows + is_here
            if score > best:
                best, found = score, path
    for path in left if not dry_run else ():
        path.unlink(missing_ok=True)
    with explained(found):
        return SyncState(found, dry_run=dry_run)


def configure(
    state: SyncState,
    request: SyncRequest,
    folder: SharedFolder,
    listing: Listing,
    store: MemoryStore,
) -> None:
    """Record the arguments.

    Raises:
        UsageError: what the others encrypt is to be published without encryption.
    """
    encrypts = request.encrypt or state["encrypted"]
    if not encrypts and any(file.encrypted for file in listing.files.values()):
        raise UsageError(
            "The machines that share this folder encrypt their files. Nothing was changed.",
            NextStep(
                "To encrypt, too, run {call}.",
                "sync",
                {"folder": str(folder.path), "encrypt": True},
            ),
        )
    before = state.tags
    tags = before if not (request.tags or request.all) else request.tags
    were_more = not set(before) <= set(tags) if before else not state.is_new
    with state.transaction():
        if tags and were_more:
            state.forget_unpublished()
            state["narrowed"] = "1"  # until what is no longer shared has been recorded as deleted
        state["path"] = str(folder.path)
        state["collection"] = getattr(store, "name", "")
        name = request.name or state["name"] or platform.node() or "unnamed"
        state["name"] = normalize("NFC", name)  # the form in which people type it differs
        if set(tags) != set(before):
            state.tags = tags
            state["mark"] = ""  # other memories are shared, so all are looked at
        if request.encrypt:
            state["encrypted"] = "1"
