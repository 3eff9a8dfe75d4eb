"""The server's side of its store processes: started when needed, replaced when they die.

A call that arrives while another is running gets a process of its own, so that a long import does
not block other calls; the folder's lock keeps the processes apart. This module imports neither
Chroma nor numpy, so that a server starts fast.
"""

import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tribal_mcp import errors
from tribal_mcp.errors import StoreError, TribalError
from tribal_mcp.next_steps import NextStep, from_json

PROCESSES = 3
"""Calls that may run at once; a further one waits. One of them is never of a read-only caller."""

# -P: never import a module from the working directory of the server.
COMMAND = (sys.executable, "-P", "-m", "tribal_mcp.worker.main")

STALLED_S = 900.0
"""A call without any message for this long is ended; every step takes far less."""

_LAST_BATCH_S = 25.0
_LINE_BYTES = 64 * 1024 * 1024
_ENDED = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)

Progress = Callable[[float, str], Awaitable[None]]
"""Receives the progress in percent, and what is being done."""

log = logging.getLogger(__name__)


class _Worker:
    """One store process: one call at a time. Each call is answered, even if it is stopped."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._in = process.stdin
        self._out = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls) -> Self:
        """Start one, in a session of its own.

        A signal to the server's whole group (Ctrl-C, a host that kills it) does not reach it, so
        it can finish the batch in progress.

        Raises:
            StoreError: the process can't be started.
        """
        try:
            return cls(await anyio.open_process(COMMAND, stderr=None, start_new_session=True))
        except OSError as error:
            raise StoreError(
                f"Can't start the store process: {error.strerror}. Free some memory, or reinstall "
                "tribal-mcp."
            ) from error

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: dict[str, Any]) -> None:
        await self._in.send(json.dumps(message).encode() + b"\n")

    async def answer(self, on_progress: Progress | None = None) -> dict[str, Any]:
        """Read messages until the answer.

        Raises:
            StoreError: there was no message for `STALLED_S`.
        """
        while True:
            try:
                with anyio.fail_after(STALLED_S):
                    line = await self._out.receive_until(b"\n", _LINE_BYTES)
            except TimeoutError:
                raise StoreError(
                    f"The store process did not respond for {STALLED_S / 60:.0f} minutes and was "
                    "ended. Chroma can hang, for example on a full disk. Acknowledged changes are "
                    "safe. Check the disk, and try again."
                ) from None
            message: dict[str, Any] = json.loads(line)
            if "progress" not in message:
                return message
            if on_progress:
                await on_progress(*message["progress"])

    async def stop(self) -> bool:
        """End the running call after the batch in progress; whether it ended in time."""
        with anyio.move_on_after(_LAST_BATCH_S):
            try:
                await self.send({"stop": True})
                answer = await self.answer()
            except _ENDED:
                return False
            log.info("Stopped: %s", answer.get("error", {}).get("message", "completed"))
            return True
        return False

    async def end(self) -> int | None:
        """Let it finish the batch in progress; kill it if that takes too long."""
        with anyio.move_on_after(_LAST_BATCH_S):
            await self._in.aclose()
            await self._process.wait()
        if self.alive:
            self._process.kill()
        await self._process.aclose()
        return self._process.returncode


class StoreProcesses:
    """The store processes of one server; use it as an async context manager."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._places = anyio.Semaphore(PROCESSES)
        self._places_for_reading = anyio.Semaphore(PROCESSES - 1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them all. No call is running: cancelling one waits until it has stopped."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for worker in self._idle:
                    group.start_soon(worker.end)

    async def call(
        self,
        name: str,
        arguments: dict[str, Any],
        on_progress: Progress | None = None,
        *,
        read_only: bool = False,
    ) -> dict[str, Any]:
        """Carry out a job of `services.jobs`: the fields of its result, `next_steps` among them.

        If cancelled, it stops the job after the batch in progress before it returns. With
        `read_only` the job is refused unless it only reads.

        Raises:
            TribalError: what prevented the job.
            RuntimeError: a bug; the process has logged its traceback.
        """
        async with self._places_for_reading if read_only else nullcontext(), self._places:
            with anyio.CancelScope(shield=True):  # half a message would break the pipe
                worker = await self._take()
            usable = False
            try:
                with anyio.CancelScope(shield=True):
                    await worker.send(
                        {"call": name, "arguments": arguments, "read_only": read_only}
                    )
                answer = await worker.answer(on_progress)
                usable = True
            except _ENDED:
                raise StoreError(
                    "The store process ended unexpectedly. Acknowledged changes are safe. Try "
                    "again.",
                    NextStep("If it happens again, check the store with {call}.", "check"),
                ) from None
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    usable = await worker.stop()
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await self._give_back(worker, usable=usable)
        next_steps = from_json(answer.get("next_steps", ()))
        if "error" in answer:
            raise _error(answer["error"], next_steps)
        return {**answer["result"], "next_steps": next_steps}

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await self._give_back(worker, usable=False)
        return await _Worker.start()

    async def _give_back(self, worker: _Worker, *, usable: bool) -> None:
        if usable:
            self._idle.append(worker)
        else:
            log.warning("Discarded a store process; it ended with %s", await worker.end())


def _error(error: dict[str, str], next_steps: list[NextStep]) -> Exception:
    kind = getattr(errors, error["type"], None) if error["type"] else None
    if isinstance(kind, type) and issubclass(kind, TribalError):
        return kind(error["message"], *next_steps)
    return RuntimeError("The store process failed; its log has the traceback.")
