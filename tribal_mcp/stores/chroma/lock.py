"""One door to the folder: a lock that every process takes, and a mark left while it writes.

The lock is held around each step that must be whole to others, and the system gives it back when
its holder dies. The mark names the holder to those who wait; whoever gets the lock and still finds
a mark knows that its writer died in mid-write.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import anyio
from filelock import FileLock, Timeout

from tribal_mcp.errors import StoreLocked
from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.stores.errors import explained

if sys.platform != "win32":
    import fcntl

OWN_FOLDER = "tribal-mcp"
"""Where our own files lie in a Chroma folder."""

_POLL_S = 0.02
_SAY_SO_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes to the folder."""

    pid: int
    program: str
    host: str
    since: str

    @classmethod
    def me(cls) -> "Writer":
        """This process, from now on."""
        program = Path(sys.argv[0] or "python").name
        return cls(os.getpid(), program, socket.gethostname(), datetime.now(UTC).isoformat())

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program} on {self.host}, since {self.since[:19]}Z)"


class _OneAtATime:
    """A lock among all threads of all processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._file = FileLock(path, thread_local=False)
        self._shared: BinaryIO | None = None

    def take(self) -> bool:
        """Take it if nobody has it; whether that was so."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            self._take_file()
        except BaseException as error:
            self._threads.release()
            if isinstance(error, Timeout):
                return False
            raise
        return True

    def _take_file(self) -> None:
        folder = self._path.parent
        try:
            make_private(folder)
            self._file.acquire(timeout=0)
        except OSError as error:
            if error.errno != errno.EROFS or not folder.parent.is_dir():
                raise
            self._share_file()

    def _share_file(self) -> None:
        """Where we can't write: another may have the same disk mounted so that it can."""
        if sys.platform == "win32":
            return
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return  # none of ours has ever been here
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Timeout(str(self._path)) from None
        self._shared = file

    def give_back(self) -> None:
        """Let somebody else have it."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        self._file.release()
        self._threads.release()

    def is_here(self) -> bool:
        """Whether this process has it."""
        return self._threads.locked()


class FolderLock:
    """The lock of one folder and the mark beside it; shared by all stores of this process.

    Whoever waits is next in turn, so that a long row of short steps keeps nobody out.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder / OWN_FOLDER
        self._mark = self._own / "writing.json"
        self._lock = _OneAtATime(self._own / "lock")
        self._next = _OneAtATime(self._own / "next")

    async def acquire(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        """Wait for the lock; after two seconds `on_wait` is told who has it, until it is free.

        What `on_wait` raises ends the waiting.

        Raises:
            StoreLocked: `timeout_s` have passed.
            StoreError: there can be no lock in this folder.
        """
        start = time.monotonic()
        is_next = False
        try:
            while True:
                with explained(self._own):
                    is_next = is_next or self._next.take()
                    if is_next and self._lock.take():
                        return
                waited = time.monotonic() - start
                if waited > timeout_s:
                    raise StoreLocked(
                        f"The memory store is in use by {self._holder()}; waited {waited:.0f} s. "
                        "Try again when that has ended, or wait longer with "
                        "TRIBAL_LOCK_TIMEOUT_S."
                    )
                if waited > _SAY_SO_AFTER_S and on_wait:
                    on_wait(f"Waiting for the memory store, in use by {self._holder()}")
                await anyio.sleep(_POLL_S)
        finally:
            if is_next:
                self._next.give_back()

    def is_elsewhere(self) -> bool:
        """Whether another process has the lock at the moment."""
        if self._lock.is_here():
            return False
        with explained(self._own):
            taken = self._lock.take()
        if not taken:
            return not self._lock.is_here()
        self._lock.give_back()
        return False

    def release(self) -> None:
        """Give the lock back."""
        self._lock.give_back()

    def _holder(self) -> str:
        writer = self.writer()
        return str(writer) if writer else "another process"

    def writer(self) -> Writer | None:
        """Whoever left the mark. With the lock in hand: a writer that died in mid-write."""
        try:
            return Writer(**json.loads(self._mark.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # killed while the mark itself was written
            return Writer(0, "unknown", "unknown", "")

    def mark(self) -> None:
        """Say that this process writes, from before its first write."""
        write_atomically(self._mark, json.dumps(asdict(Writer.me())).encode())

    def unmark(self) -> None:
        """Say that all is written."""
        self._mark.unlink(missing_ok=True)
