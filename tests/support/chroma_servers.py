"""Real Chroma servers on loopback, on a port chosen by the system."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

COMMAND = Path(sys.executable).with_name("chroma")
_START_S = 120.0


class RealServer:
    """A `chroma run` process, which can be killed and restarted at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it responds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        place = ["--path", str(self._folder), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "run", *place],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        begin = time.monotonic()
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() - begin < _START_S
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat") as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def stop(self) -> None:
        """Stop the server as its user would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait()
            self._process = None


@contextmanager
def real_server(folder: Path) -> Iterator[RealServer]:
    """A server that is stopped at the end of the block."""
    server = RealServer(folder)
    try:
        yield server.start()
    finally:
        server.kill()
