"""Real Syncthing devices on loopback, which announce themselves to nobody."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

COMMAND = shutil.which("syncthing") or ""
_FOLDER = "memories"
_END_S = 60.0
_OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "startBrowser": "false",
    "crashReportingEnabled": "false",
    "setLowPriority": "false",
    "urAccepted": "-1",
    "autoUpgradeIntervalH": "0",
    "stunKeepaliveStartS": "0",
    "reconnectionIntervalS": "1",
}
_SHARE = {"fsWatcherDelayS": "1", "rescanIntervalS": "5"}


class Device:
    """A Syncthing process that shares one folder with others.

    Args:
        home: for its configuration.
        shared: the folder that it shares.
    """

    def __init__(self, home: Path, shared: Path) -> None:
        self._home, self._shared = home, shared
        self.sync_port, self._web_port = _free_port(), _free_port()
        shared.mkdir(parents=True, exist_ok=True)
        self._run("generate", "--no-default-folder")
        self.id = self._run("serve", "--device-id").strip()
        self._key = ""
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, command: str, *options: str) -> str:
        words = [COMMAND, command, f"--home={self._home}", *options]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def configure(self, others: Iterable["Device"]) -> None:
        """Share the folder with these devices, and with nobody else."""
        path = self._home / "config.xml"
        tree = ET.parse(path)  # noqa: S314 - Syncthing's own
        root = tree.getroot()
        options, web = root.find("options"), root.find("gui")
        assert options is not None
        assert web is not None
        for name, value in {
            **_OPTIONS,
            "listenAddress": f"tcp://127.0.0.1:{self.sync_port}",
        }.items():
            _set(options, name, value)
        _set(web, "address", f"127.0.0.1:{self._web_port}")
        self._key = web.findtext("apikey", "")
        share = {"id": _FOLDER, "label": "", "path": str(self._shared), "type": "sendreceive"}
        folder = ET.SubElement(root, "folder", {**share, "fsWatcherEnabled": "true", **_SHARE})
        ET.SubElement(folder, "device", {"id": self.id})
        for other in others:
            ET.SubElement(folder, "device", {"id": other.id})
            device = ET.SubElement(root, "device", {"id": other.id})
            _set(device, "address", f"tcp://127.0.0.1:{other.sync_port}")
        tree.write(path)

    def start(self) -> Self:
        """Start it and wait until it responds."""
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "serve", f"--home={self._home}", "--no-browser", "--no-restart"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _wait_until(self._answers)
        return self

    def stop(self) -> None:
        """Stop it as its user would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Disconnect it from all others."""
        self._call("/system/pause", method="POST")

    def resume(self) -> None:
        """Connect it again."""
        self._call("/system/resume", method="POST")

    def is_in_step_with(self, other: "Device") -> bool:
        """Whether another one has all that this one has."""
        self._call(f"/db/scan?folder={_FOLDER}", method="POST")
        try:
            done = self._call(f"/db/completion?folder={_FOLDER}&device={other.id}")
        except urllib.error.HTTPError:  # not connected yet
            return False
        own = self._call(f"/db/status?folder={_FOLDER}")
        connected = self._call("/system/connections")["connections"][other.id]["connected"]
        return bool(
            connected
            and done["completion"] == 100
            and own["state"] == "idle"
            and not own["needBytes"]
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._home / "log").read_text()
        try:
            return bool(self._call("/system/ping")["ping"] == "pong")
        except (urllib.error.URLError, ConnectionError):
            return False

    def _call(self, path: str, method: str = "GET") -> Any:  # noqa: ANN401 - any JSON
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._web_port}/rest{path}",
            method=method,
            headers={"X-API-Key": self._key},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")


def settle(devices: Iterable[Device]) -> None:
    """Wait until all have the same."""
    for one, other in permutations(devices, 2):
        _wait_until(partial(one.is_in_step_with, other))


def _wait_until(is_so: Callable[[], bool]) -> None:
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < _END_S
        time.sleep(0.1)


@contextmanager
def devices(folder: Path, *shared: Path) -> Iterator[list[Device]]:
    """Devices that share these folders, and are stopped at the end of the block."""
    all_ = [Device(folder / f"syncthing-{path.name}", path) for path in shared]
    with ExitStack() as stack:
        for one in all_:
            one.configure(other for other in all_ if other is not one)
            stack.callback(one.stop)
            one.start()
        settle(all_)
        yield all_


def _set(parent: ET.Element, name: str, value: str) -> None:
    found = parent.find(name)
    if found is None:
        found = ET.SubElement(parent, name)
    found.text = value


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
