"""One door to the folder: a lock that every process takes, and a mark left while it writes.

The lock is held around each step that must be whole to others, and the system gives it back when
its holder dies. The mark names the holder to those who wait; whoever gets the lock and still finds
a mark knows that its writer died in mid-write.
"""

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

import anyio
from filelock import FileLock, Timeout

from tribal_mcp.errors import StoreLocked

OWN_FOLDER = "tribal-mcp"
"""Where our own files lie in a Chroma folder."""

_POLL_S = 0.02
_SAY_SO_AFTER_S = 2.0
_GIVE_WAY_AFTER_S = 1.0


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


class FolderLock:
    """The lock of one folder and the mark beside it; shared by all stores of this process."""

    def __init__(self, folder: Path) -> None:
        self._own = folder / OWN_FOLDER
        self._mark = self._own / "writing.json"
        self._file = FileLock(self._own / "lock", thread_local=False)
        self._threads = threading.Lock()
        self._since = 0.0

    async def acquire(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        """Wait for the lock; after two seconds `on_wait` is told, once, who has it.

        Raises:
            StoreLocked: `timeout_s` have passed.
        """
        start = time.monotonic()
        told = False
        while not self._try():
            waited = time.monotonic() - start
            if waited > timeout_s:
                raise StoreLocked(
                    f"The memory store is in use by {self._holder()}; waited {waited:.0f} s. "
                    "Try again when that has ended, or wait longer with TRIBAL_LOCK_TIMEOUT_S."
                )
            if waited > _SAY_SO_AFTER_S and not told and on_wait:
                told = True
                on_wait(f"Waiting for the memory store, in use by {self._holder()}")
            await anyio.sleep(_POLL_S)
        self._since = time.monotonic()

    def _try(self) -> bool:
        if not self._threads.acquire(blocking=False):
            return False
        try:
            make_private(self._own)
            self._file.acquire(timeout=0)
        except BaseException as error:
            self._threads.release()
            if isinstance(error, Timeout):
                return False
            raise
        return True

    def is_elsewhere(self) -> bool:
        """Whether another process has the lock at the moment."""
        if self._threads.locked():
            return False
        if not self._try():
            return not self._threads.locked()
        self._file.release()
        self._threads.release()
        return False

    async def release(self) -> None:
        """Give the lock back; after a long step, leave those who wait a moment to get it."""
        held = time.monotonic() - self._since
        self._file.release()
        self._threads.release()
        if held > _GIVE_WAY_AFTER_S:
            await anyio.sleep(2 * _POLL_S)

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
        with self._mark.open("w") as file:
            json.dump(asdict(Writer.me()), file)
            file.flush()
            os.fsync(file.fileno())

    def unmark(self) -> None:
        """Say that all is written."""
        self._mark.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, for this user alone."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
