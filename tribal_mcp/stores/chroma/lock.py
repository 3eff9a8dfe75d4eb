"""The lock of a Chroma folder, which every process takes, and the marker of the one that writes.

The lock is held during each step that must be atomic to others. The operating system releases it
when its holder dies. The marker tells those who wait which process has it. If a process gets the
lock and still finds a marker, that marker is stale: its writer was killed while writing.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import anyio
from filelock import FileLock, Timeout

from tribal_mcp.errors import StoreLocked
from tribal_mcp.files.atomic import make_private, remove_durably, write_atomically
from tribal_mcp.stores.errors import explained

OWN_FOLDER = "tribal-mcp"
"""The directory for our own files in a Chroma folder."""

_POLL_S = 0.02
_REPORT_AFTER_S = 2.0


def boot_id() -> str:
    """Identifies the time since this machine started; empty if the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        import ctypes  # noqa: PLC0415 - on no other system

        found = ctypes.create_string_buffer(64)
        size = ctypes.c_size_t(len(found))
        if not ctypes.CDLL(None).sysctlbyname(
            b"kern.bootsessionuuid", found, ctypes.byref(size), None, 0
        ):
            return found.value.decode()
    return ""


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that writes to the folder.

    Attributes:
        boot: see `boot_id`; None in a marker of a version before 0.2.
    """

    pid: int
    program: str
    host: str
    since: str
    boot: str | None = None

    @classmethod
    def this_process(cls) -> "Writer":
        """This process, writing since now."""
        program = Path(sys.argv[0] or "python").name
        now = datetime.now(UTC).isoformat()
        return cls(os.getpid(), program, socket.gethostname(), now, boot_id())

    @property
    def before_restart(self) -> bool:
        """Whether the machine has, or may have, restarted since."""
        return self.boot is not None and (not self.boot or self.boot != boot_id())

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program} on {self.host}, since {self.since[:19]}Z)"


class _ExclusiveLock:
    """A lock that one thread of one process can hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._file = FileLock(path, thread_local=False)
        self._shared: BinaryIO | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; whether it was."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            self._acquire_file()
        except BaseException as error:
            self._threads.release()
            if isinstance(error, Timeout):
                return False
            raise
        return True

    def _acquire_file(self) -> None:
        folder = self._path.parent
        try:
            make_private(folder)
            self._file.acquire(timeout=0)
        except OSError as error:
            if error.errno != errno.EROFS or not folder.parent.is_dir():
                raise
            self._share_file()

    def _share_file(self) -> None:
        """Lock a read-only file: it may be mounted writable elsewhere."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return  # this program has never written to the folder
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Timeout(str(self._path)) from None
        self._shared = file

    def release(self) -> None:
        """Release the lock."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        self._file.release()
        self._threads.release()

    def held_here(self) -> bool:
        """Whether this process holds the lock."""
        return self._threads.locked()


class FolderLock:
    """The lock of one folder and its writer marker; shared by all stores of this process.

    A second lock is for whoever is next in turn, so that a process with many short steps can't
    keep others waiting for ever.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder / OWN_FOLDER
        self._marker = self._own / "writing.json"
        self._lock = _ExclusiveLock(self._own / "lock")
        self._next = _ExclusiveLock(self._own / "next")

    async def acquire(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        """Wait for the lock.

        Args:
            timeout_s: how long to wait.
            on_wait: called repeatedly after two seconds with a sentence that names the holder; an
                exception from it ends the wait.

        Raises:
            StoreLocked: the lock was not free within `timeout_s`.
            StoreError: the lock files can't be created in this folder.
        """
        start = time.monotonic()
        is_next = False
        try:
            while True:
                with explained(self._own):
                    is_next = is_next or self._next.try_acquire()
                    if is_next and self._lock.try_acquire():
                        return
                waited = time.monotonic() - start
                if waited > timeout_s:
                    raise StoreLocked(
                        f"The memory store is in use by {self._holder()}. It was still in use "
                        f"after {waited:.0f} s. Try again later, or set TRIBAL_LOCK_TIMEOUT_S to "
                        "wait longer."
                    )
                if waited > _REPORT_AFTER_S and on_wait:
                    on_wait(f"Waiting for the memory store, in use by {self._holder()}")
                await anyio.sleep(_POLL_S)
        finally:
            if is_next:
                self._next.release()

    def held_elsewhere(self) -> bool:
        """Whether another process holds the lock."""
        if self._lock.held_here():
            return False
        with explained(self._own):
            acquired = self._lock.try_acquire()
        if not acquired:
            return not self._lock.held_here()
        self._lock.release()
        return False

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _holder(self) -> str:
        with suppress(OSError):  # the lock itself matters, not its name
            writer = self.writer()
            return str(writer) if writer else "another process"
        return "another process"

    def writer(self) -> Writer | None:
        """The process that the marker names. To the holder of the lock, a killed writer."""
        try:
            return Writer(**json.loads(self._marker.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # a version that wrote it in place was killed
            return Writer(0, "unknown", "unknown", "")

    def set_marker(self) -> None:
        """Record, before its first write, that this process writes."""
        write_atomically(self._marker, json.dumps(asdict(Writer.this_process())).encode())

    def clear_marker(self) -> None:
        """Record that this process has finished writing."""
        remove_durably(self._marker)
