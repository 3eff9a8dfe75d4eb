"""The store process: does the work of a server, which keeps running if this one hangs or dies.

One JSON line in is a call, `{"call": name, "arguments": {…}, "read_only": false}`, or
`{"stop": true}` for the running call. Lines out are `{"progress": [percent, message]}` and at the
end of the call `{"result": {…}}` or `{"error": {"type": …, "message": …}}`; beside either,
`next_steps` as `next_steps.to_json` writes them. At the end of its input it finishes the batch in
progress and ends, so it never outlives its server, however that ends.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from tribal_mcp.config import load
from tribal_mcp.errors import TribalError
from tribal_mcp.next_steps import to_json
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.stores.chroma.folder import ChromaFolder

LAST_BATCH_S = 20.0
"""How long the batch in progress may take once the server has ended."""

IDLE_S = 300.0
"""How long stores stay open without a call: an open Chroma client holds its vector index."""

_PROGRESS_EVERY_S = 0.1
_PERCENT_DIGITS = 2

log = logging.getLogger(__name__)


class _Calls:
    """The incoming calls, read by a thread so that a stop is seen during a call."""

    def __init__(self, source: Iterable[bytes], at_end: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._source = source
        self._at_end = at_end
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._source:
                message = json.loads(line)
                if "stop" in message:
                    self._stop.set()
                else:  # the previous call has been answered, and a late stop was meant for it
                    self._stop.clear()
                    self._queue.put(message)
        finally:
            self.end()
            self._at_end()

    def end(self) -> None:
        """Accept no more calls, and stop the running one after the batch in progress."""
        self._stop.set()
        self._queue.put(None)

    def stopped(self) -> bool:
        """Whether the running call should stop."""
        return self._stop.is_set()

    def next(self) -> dict[str, Any] | None:
        """Wait for the next call; None if there are no more. Stores do not stay open for long."""
        with suppress(queue.Empty):
            return self._queue.get(timeout=IDLE_S)
        ChromaFolder.close_all()
        return self._queue.get()


class _Progress:
    """Writes progress that only increases, at a limited rate."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._percent = -1.0
        self._message = ""
        self._at = 0.0

    def __call__(self, percent: float, message: str) -> None:
        now = time.monotonic()
        percent = round(percent, _PERCENT_DIGITS)
        if percent <= self._percent:
            if message == self._message:
                return
            percent = round(self._percent + 10**-_PERCENT_DIGITS, _PERCENT_DIGITS)
        if now - self._at < _PROGRESS_EVERY_S and percent < 100:  # noqa: PLR2004 - percent
            return
        self._at, self._percent, self._message = now, percent, message
        _send(self._out, {"progress": [percent, message]})


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the server has ended, which the end of the input shows, too
        # A name on the disk may not be UTF-8, which no client could read.
        out.write(json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n")
        out.flush()


async def _serve(calls: _Calls, out: BinaryIO) -> None:
    while call := await anyio.to_thread.run_sync(calls.next):
        _send(out, await _answer(call, _Progress(out), calls))


_SAID: set[str] = set()
"""What this process has said about the settings."""


async def _answer(call: dict[str, Any], progress: _Progress, calls: _Calls) -> dict[str, Any]:
    try:
        context = Context(
            *load(),
            progress=progress,
            stop=calls.stopped,
            read_only=call.get("read_only", False),
            said=_SAID,
            keep_open=True,
        )
        result = await run(context, call["call"], call["arguments"])
        return {
            "result": result.model_dump(mode="json"),
            "next_steps": to_json(result.next_steps),
        }
    except TribalError as error:
        return {
            "error": {"type": type(error).__name__, "message": str(error)},
            "next_steps": to_json(error.next_steps),
        }
    except Exception:
        log.exception("The call %s failed", call["call"])
        return {"error": {"type": "", "message": ""}}


def _exit_after_deadline() -> None:
    time.sleep(LAST_BATCH_S)
    os._exit(1)  # Chroma can hang forever on a full disk


def main() -> None:
    """Serve calls until the input ends. Standard output is the pipe; prints go to stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls = _Calls(sys.stdin.buffer, _exit_after_deadline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    signal.signal(signal.SIGTERM, lambda *_: calls.end())
    anyio.run(_serve, calls, out)
    ChromaFolder.close_all()
    os._exit(0)  # the reading thread may still be waiting


if __name__ == "__main__":
    main()
