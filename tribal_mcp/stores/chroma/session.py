"""Sessions on a Chroma folder: periods during which this process holds the folder's lock.

A session belongs to the task that started it and to that task's child tasks. Further sessions on
the same folder within it nest. Work on the folder runs in threads, one at a time, because Chroma
and the disk may block for long.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from tribal_mcp.errors import StoreLocked
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.loading import load_chroma
from tribal_mcp.stores.errors import explained

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Session:
    """A session of this task and its child tasks."""

    folder: ChromaFolder
    locked: bool = False
    ended: bool = False


_sessions: ContextVar[tuple[_Session, ...]] = ContextVar("_sessions", default=())


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one store.

    Attributes:
        folder: the Chroma folder.
        timeout_s: how long to wait for its lock.
        on_wait: called repeatedly during the wait with a sentence that names the lock's holder;
            an exception from it ends the wait.
    """

    folder: ChromaFolder
    timeout_s: float
    on_wait: Callable[[str], None] | None

    @asynccontextmanager
    async def session(self, *, writing: bool = False, unsure: bool = False) -> AsyncIterator[None]:
        """No other process changes the folder within the block; sessions nest.

        Args:
            writing: whether the block writes. If not, a missing folder is not created.
            unsure: whether it may turn out not to write; then the first write imports Chroma.
        """
        folder = self.folder
        outer = session_on(folder)
        if outer is not None:
            if writing and not outer.locked:
                await self._lock(outer)
                if folder.exists:
                    raise StoreLocked("Another process has just created this store. Try again.")
            yield
            return
        if writing and not (unsure and folder.exists):
            await anyio.to_thread.run_sync(load_chroma)  # not while others wait for the lock
        async with self.locked(when=writing or folder.exists):
            yield

    @asynccontextmanager
    async def locked(self, *, when: bool = True, recovering: bool = True) -> AsyncIterator[None]:
        """A session of its own.

        Args:
            when: whether to take the lock at its start.
            recovering: whether to recover first from what a killed writer left behind.
        """
        folder = self.folder
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
                        await in_thread(folder, folder.end_session)
                    finally:
                        folder.lock.release()

    async def _lock(self, session: _Session, *, recovering: bool = True) -> None:
        await session.folder.lock.acquire(self.timeout_s, self.on_wait)
        session.locked = True
        await in_thread(session.folder, session.folder.begin_session)
        if recovering:
            await in_thread(session.folder, partial(self._recover, session.folder))

    def _recover(self, folder: ChromaFolder) -> None:
        if folder.is_interrupted:
            from tribal_mcp.stores.chroma.recovery import recover  # noqa: PLC0415 - rarely needed

            recover(folder, self._report)

    def _report(self, sentence: str) -> None:
        if self.on_wait is not None:
            anyio.from_thread.run_sync(self.on_wait, sentence)


def session_on(folder: ChromaFolder) -> _Session | None:
    """This task's session on that folder, None if it has none."""
    return next((s for s in _sessions.get() if s.folder is folder and not s.ended), None)


async def in_thread(folder: ChromaFolder, work: Callable[[], T], *, alone: bool = True) -> T:
    """Run the work in a thread.

    Args:
        folder: the folder that it is about.
        work: the work.
        alone: whether to wait for other threads that use the folder's object. False for work that
            opens files of its own.
    """

    def working() -> T:
        turn = folder.thread_lock if alone else nullcontext()
        with turn, explained(folder.path, folder.is_intact):
            return work()

    return await anyio.to_thread.run_sync(working)
