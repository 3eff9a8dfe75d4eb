"""The server's side of its store processes: started when needed, replaced when they die.

A call that comes while another is at work gets a process of its own, so that a long import keeps
nobody from asking; the folder's lock keeps them apart. This module imports neither Chroma nor
numpy, for a server must answer at once.
"""

import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tribal_mcp import errors
from tribal_mcp.errors import StoreError, TribalError
from tribal_mcp.next_steps import NextStep, from_json

PROCESSES = 3
"""Calls that may be at work at once; a further one waits."""

# -P: a folder named as a module of ours, where the server happens to be started, is never run.
COMMAND = (sys.executable, "-P", "-m", "tribal_mcp.worker.main")

STALLED_S = 900.0
"""A call that shows no sign of life for so long is ended: far longer than any one step takes."""

_LAST_BATCH_S = 25.0
_LINE_BYTES = 64 * 1024 * 1024
_GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)

OnProgress = Callable[[float, str], Awaitable[None]]

log = logging.getLogger(__name__)


class _Worker:
    """One store process: one call at a time, and each call is answered, a stopped one too."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._in = process.stdin
        self._out = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls) -> Self:
        """Start one, in a session of its own.

        What is sent to the server's whole group (Ctrl-C, a host that kills it) leaves this process
        to finish the batch in hand.
        """
        try:
            return cls(await anyio.open_process(COMMAND, stderr=None, start_new_session=True))
        except OSError as error:
            raise StoreError(
                f"The store process can't be started: {error.strerror}. Free some memory, or "
                "install tribal-mcp again."
            ) from error

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: dict[str, Any]) -> None:
        await self._in.send(json.dumps(message).encode() + b"\n")

    async def answer(self, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """Read up to the end of the call."""
        while True:
            try:
                with anyio.fail_after(STALLED_S):
                    line = await self._out.receive_until(b"\n", _LINE_BYTES)
            except TimeoutError:
                raise StoreError(
                    f"The store process did nothing for {STALLED_S / 60:.0f} minutes and is ended; "
                    "Chroma can hang, on a full disk for one. What was acknowledged is safe. Look "
                    "at the disk, and run the same again."
                ) from None
            message: dict[str, Any] = json.loads(line)
            if "progress" not in message:
                return message
            if on_progress:
                await on_progress(*message["progress"])

    async def stop(self) -> bool:
        """Have the call at work end after the batch in hand; whether it did so in time."""
        with anyio.move_on_after(_LAST_BATCH_S):
            try:
                await self.send({"stop": True})
                answer = await self.answer()
            except _GONE:
                return False
            log.info("Stopped: %s", answer.get("error", {}).get("message", "it was done"))
            return True
        return False

    async def end(self) -> int | None:
        """Let it finish the batch in hand; kill it if that takes too long."""
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them all. Calls have ended by now: whoever cancels one waits until it has stopped."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for worker in self._idle:
                    group.start_soon(worker.end)

    async def call(
        self,
        name: str,
        arguments: dict[str, Any],
        on_progress: OnProgress | None = None,
        *,
        read_only: bool = False,
    ) -> dict[str, Any]:
        """Carry out a job of `services.jobs`: the fields of its result, `next_steps` among them.

        Cancelled, it stops the job after the batch in hand before it returns. With `read_only`
        the job is refused unless it only reads.

        Raises:
            TribalError: what kept the job from being done.
            RuntimeError: a bug; the process has logged its traceback.
        """
        async with self._places:
            with anyio.CancelScope(shield=True):  # half a message would spoil all that follow
                worker = await self._take()
            usable = False
            try:
                with anyio.CancelScope(shield=True):
                    await worker.send(
                        {"call": name, "arguments": arguments, "read_only": read_only}
                    )
                answer = await worker.answer(on_progress)
                usable = True
            except _GONE:
                raise StoreError(
                    "The store process ended unexpectedly. What was acknowledged is safe. Run the "
                    "same again; if it happens again, run `tribal-mcp check`."
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
            log.warning("A store process was given up; it ended with %s", await worker.end())


def _error(error: dict[str, str], next_steps: list[NextStep]) -> Exception:
    kind = getattr(errors, error["type"], None) if error["type"] else None
    if isinstance(kind, type) and issubclass(kind, TribalError):
        return kind(error["message"], *next_steps)
    return RuntimeError("The store process failed; its log has the traceback.")
