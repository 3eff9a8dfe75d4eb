"""Calls of the store processes: counted, and stopped if the client disconnects.

A stopped import ends after the current batch.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tribal_mcp.errors import Stopped
from tribal_mcp.files.spool import Spool
from tribal_mcp.http_api.content import EVENTS
from tribal_mcp.http_api.next_steps import as_request
from tribal_mcp.http_api.problems import Problem, busy, response_of
from tribal_mcp.next_steps import in_words
from tribal_mcp.services.permissions import READ_ONLY
from tribal_mcp.worker.pool import Progress, StoreProcesses

MAX_CALLS = 16
"""Calls that may run or wait at once, once their body has arrived; another one is refused."""

READ_CALLS = 8
"""How many of them may be of the read-only token."""

Run = Callable[[Progress | None], Awaitable[dict[str, Any]]]


class Calls:
    """The calls that are running."""

    def __init__(self, processes: StoreProcesses, spool: Spool) -> None:
        self.spool = spool
        self._processes = processes
        self._count = 0
        self._reading = 0

    @property
    def is_busy(self) -> bool:
        """Whether any call is running."""
        return self._count > 0

    @contextmanager
    def slot(self, request: Request) -> Iterator[None]:
        """Hold one of the slots.

        Raises:
            Problem: all slots are taken, or all of this token.
        """
        read_only = request.scope[READ_ONLY]
        if self._count >= MAX_CALLS:
            raise busy()
        if read_only and self._reading >= READ_CALLS:
            raise busy("this token")
        self._count += 1
        self._reading += read_only
        try:
            yield
        finally:
            self._count -= 1
            self._reading -= read_only

    async def call(
        self,
        request: Request,
        job: str,
        arguments: dict[str, Any],
        on_progress: Progress | None = None,
    ) -> dict[str, Any]:
        """The result of a job. The body must have been read; a disconnected client stops the job.

        Raises:
            TribalError: why the job failed.
        """
        result: dict[str, Any] = {}
        failure: Exception = Stopped("The client disconnected. Completed changes are safe.")

        async def work() -> None:
            nonlocal result, failure
            try:
                result = await self._processes.call(
                    job, arguments, on_progress, read_only=request.scope[READ_ONLY]
                )
            except Exception as error:  # noqa: BLE001 - raised below, out of the group
                failure = error
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            try:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            except Problem as problem:  # an unexpected body that does not end
                failure = problem
            group.cancel_scope.cancel()
        if not result:
            raise failure
        if steps := result.pop("next_steps"):
            result["next_step"] = in_words(steps, as_request)
        return result


class Events(Response):
    """A call as server-sent events: `progress`, and finally `result` or `error`.

    The status is sent with the first event, so a request that is refused before any progress has
    the status of its problem.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(media_type=EVENTS)
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"
        self._run = run

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Run the call and send its events."""
        begun = False

        async def event(name: str, data: bytes, *, last: bool = False) -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
            body = b"event: %s\ndata: %s\n\n" % (name.encode(), data)
            await send({"type": "http.response.body", "body": body, "more_body": not last})

        async def progress(percent: float, message: str) -> None:
            await event("progress", json.dumps({"percent": percent, "message": message}).encode())

        try:
            result = await self._run(progress)
        except Exception as error:
            if not begun:
                raise
            await event("error", bytes(response_of(error).body), last=True)
        else:
            await event("result", json.dumps(result).encode(), last=True)
