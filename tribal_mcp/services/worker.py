"""The process that does a server's work: it may be slow, freeze or die without its server.

One JSON line in is a call, `{"call": name, "arguments": {…}}`, or `{"stop": true}` for the call at
work. Lines out are `{"progress": [percent, message]}` and at the end of the call `{"result": {…}}`
or `{"error": {"type": …, "message": …}}`. At the end of its input it finishes the batch in hand
and ends; so it never outlives its server, however that ends.
"""

import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
import orjson

from tribal_mcp.config import LimitSettings, Settings
from tribal_mcp.errors import TribalError
from tribal_mcp.services.jobs import Jobs

LAST_BATCH_S = 20.0
"""How long the batch in hand may take once the server is gone."""

_PROGRESS_EVERY_S = 0.1

log = logging.getLogger(__name__)


class _Calls:
    """The calls that come in, read by a thread so that a stop is seen during a call."""

    def __init__(self, source: BinaryIO) -> None:
        self.stop = threading.Event()
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._source = source
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._source:
            message = orjson.loads(line)
            if "stop" in message:
                self.stop.set()
            else:
                self._queue.put(message)
        self.stop.set()
        self._queue.put(None)
        time.sleep(LAST_BATCH_S)
        os._exit(1)  # Chroma can hang for good on a full disk

    def next(self) -> dict[str, Any] | None:
        """Wait for the next call; None when the server is gone."""
        message = self._queue.get()
        if message is not None:
            self.stop.clear()
        return message


class _Progress:
    """Writes progress that rises, and not too often."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._percent = -1.0
        self._message = ""
        self._at = 0.0

    def __call__(self, percent: float, message: str) -> None:
        now = time.monotonic()
        if percent <= self._percent and message == self._message:
            return
        if now - self._at < _PROGRESS_EVERY_S and percent < 100:  # noqa: PLR2004 - percent
            return
        self._at, self._message = now, message
        self._percent = max(percent, self._percent)
        _send(self._out, {"progress": [self._percent, message]})


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    out.write(orjson.dumps(message) + b"\n")
    out.flush()


async def _serve(calls: _Calls, out: BinaryIO) -> None:
    settings, limits = Settings(), LimitSettings()
    while message := await anyio.to_thread.run_sync(calls.next):
        jobs = Jobs(settings, limits, report=_Progress(out), stop=calls.stop.is_set)
        try:
            result = await jobs.run(message["call"], message["arguments"])
        except TribalError as error:
            answer = {"error": {"type": type(error).__name__, "message": str(error)}}
        except Exception:
            log.exception("The call %s failed", message["call"])
            answer = {"error": {"type": "", "message": ""}}
        else:
            answer = {"result": result.model_dump()}
        _send(out, answer)


def main() -> None:
    """Serve calls until the input ends. Standard output is the server's; prints go to stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        anyio.run(_serve, _Calls(sys.stdin.buffer), out)
    except BrokenPipeError:
        os._exit(0)
    os._exit(0)  # the reading thread may still sleep


if __name__ == "__main__":
    main()
