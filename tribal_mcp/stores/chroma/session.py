"""Sessions on a Chroma folder: who has the lock, and for how long.

A session belongs to the task that began it and to those that this one starts; within it, further
sessions on the same folder nest. The folder's work is done in threads, one at a time, for Chroma
and the disk may keep the event loop waiting.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from tribal_mcp.errors import StoreLocked
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.recovery import recover
from tribal_mcp.stores.errors import explained

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Session:
    """A session of this task and of those that it starts."""

    folder: ChromaFolder
    locked: bool = False
    ended: bool = False


_sessions: ContextVar[tuple[_Session, ...]] = ContextVar("_sessions", default=())


class Sessions:
    """The sessions of one store.

    Args:
        folder: the Chroma folder.
        timeout_s: how long to wait for its lock.
        on_wait: told who has it, again and again; what it raises ends the waiting.
    """

    def __init__(
        self, folder: ChromaFolder, timeout_s: float, on_wait: Callable[[str], None] | None
    ) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._on_wait = on_wait

    @asynccontextmanager
    async def session(self, *, writing: bool = False) -> AsyncIterator[None]:
        """Nobody else changes the folder within the block; sessions nest.

        Args:
            writing: something will be written. Otherwise a folder that is missing stays so.
        """
        folder = self._folder
        outer = session_on(folder)
        if outer is not None:
            if writing and not outer.locked:
                await self._lock(outer)
                if folder.exists:
                    raise StoreLocked(
                        "Another process has made this store just now. Run the same again."
                    )
            yield
            return
        async with self.locked(when=writing or folder.exists):
            yield

    @asynccontextmanager
    async def locked(self, *, when: bool = True, recovering: bool = True) -> AsyncIterator[None]:
        """A session of its own.

        Args:
            when: whether to take the lock at its begin.
            recovering: whether to mend first what a killed writer left.
        """
        folder = self._folder
        session = _Session(folder)
        _sessions.set((*(s for s in _sessions.get() if not s.ended), session))
        try:
            if when:
                await self._lock(session, recovering=recovering)
            yield
        finally:
            session.ended = True
            if session.locked:
                with anyio.CancelScope(shield=True):
                    try:
                        await in_thread(folder, folder.end)
                    finally:
                        folder.lock.release()

    async def _lock(self, session: _Session, *, recovering: bool = True) -> None:
        await session.folder.lock.acquire(self._timeout_s, self._on_wait)
        session.locked = True
        await in_thread(session.folder, session.folder.begin)
        if recovering:
            await in_thread(session.folder, partial(recover, session.folder))


def session_on(folder: ChromaFolder) -> _Session | None:
    """The session of this task on that folder."""
    return next((s for s in _sessions.get() if s.folder is folder and not s.ended), None)


async def in_thread(folder: ChromaFolder, work: Callable[[], T], *, alone: bool = True) -> T:
    """Do the work in a thread: one at a time for a folder, unless it keeps to files of its own."""

    def working() -> T:
        with folder.at_work if alone else nullcontext(), explained(folder.path):
            return work()

    return await anyio.to_thread.run_sync(working)
