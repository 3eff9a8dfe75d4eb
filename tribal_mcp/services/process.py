"""The server's side of its store processes: started when needed, replaced when they die.

A call that comes while another is at work gets a process of its own, so that a long import keeps
nobody from asking; the folder's lock keeps them apart. This module imports neither Chroma nor
numpy, for a server must answer at once.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tribal_mcp import errors
from tribal_mcp.errors import StoreError, TribalError

PROCESSES = 3
"""Calls that may be at work at once; a further one waits."""

_LAST_BATCH_S = 25.0
_GOODBYE_S = 0.5
_LINE_BYTES = 64 * 1024 * 1024

OnProgress = Callable[[float, str], Awaitable[None]]

log = logging.getLogger(__name__)


class _Worker:
    """One store process: one call at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._in = process.stdin
        self._out = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls) -> Self:
        command = [sys.executable, "-m", "tribal_mcp.services.worker"]
        return cls(await anyio.open_process(command, stderr=None, stdin=subprocess.PIPE))

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: dict[str, Any]) -> None:
        await self._in.send(json.dumps(message).encode() + b"\n")

    async def answer(self, on_progress: OnProgress | None) -> dict[str, Any]:
        """Read up to the end of the call."""
        while True:
            line = await self._out.receive_until(b"\n", _LINE_BYTES)
            message: dict[str, Any] = json.loads(line)
            if "progress" not in message:
                return message
            if on_progress:
                await on_progress(*message["progress"])

    async def hang_up(self) -> None:
        """Tell it that there are no more calls, and wait for its end."""
        await self._in.aclose()
        await self._process.wait()

    async def end(self) -> None:
        """Let it finish the batch in hand; kill it if that takes too long."""
        with anyio.move_on_after(_LAST_BATCH_S):
            await self.hang_up()
        if self.alive:
            self._process.kill()
        await self._process.aclose()


class StoreProcesses:
    """The store processes of one server; use it as an async context manager."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._places = anyio.Semaphore(PROCESSES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the idle ones; one at work finishes the batch in hand and ends by itself."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_GOODBYE_S):
            async with anyio.create_task_group() as group:
                for worker in self._all:
                    group.start_soon(worker.hang_up)

    async def call(
        self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Carry out a job of `jobs.Jobs` and give its result as a dict.

        Cancelled, it stops the job after the batch in hand before it returns.

        Raises:
            TribalError: what kept the job from being done.
            RuntimeError: a bug; the process has logged its traceback.
        """
        async with self._places:
            worker = await self._take()
            try:
                await worker.send({"call": name, "arguments": arguments})
                answer = await worker.answer(on_progress)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await self._stop(worker)
                raise
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                await self._discard(worker)
                raise StoreError(
                    "The store process ended unexpectedly. What was acknowledged is safe. Run the "
                    "same again; if it happens again, run `tribal-mcp check`."
                ) from None
            except BaseException:
                await self._discard(worker)
                raise
            self._idle.append(worker)
        if "error" in answer:
            raise _error(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            self._all.discard(worker)
        worker = await _Worker.start()
        self._all.add(worker)
        return worker

    async def _stop(self, worker: _Worker) -> None:
        with anyio.move_on_after(_LAST_BATCH_S):
            try:
                await worker.send({"stop": True})
                answer = await worker.answer(None)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                pass
            else:
                log.info("Stopped: %s", answer.get("error", {}).get("message", "it was done"))
                self._idle.append(worker)
                return
        await self._discard(worker)

    async def _discard(self, worker: _Worker) -> None:
        self._all.discard(worker)
        with anyio.CancelScope(shield=True):
            await worker.end()


def _error(error: dict[str, str]) -> Exception:
    kind = getattr(errors, error["type"], None) if error["type"] else None
    if isinstance(kind, type) and issubclass(kind, TribalError):
        return kind(error["message"])
    return RuntimeError("The store process failed; its log has the traceback.")
