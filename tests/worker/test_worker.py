"""The store process, line by line: calls, stops, and how it ends."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_client import settings, write_many
from tribal_mcp.worker import pool as process
from tribal_mcp.worker.main import _Calls, _Progress

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def real_worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        process.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def ask(worker: subprocess.Popen[bytes], *messages: dict[str, Any]) -> None:
    assert worker.stdin is not None
    worker.stdin.write(b"".join(json.dumps(m).encode() + b"\n" for m in messages))
    worker.stdin.flush()


def answer(worker: subprocess.Popen[bytes], until: str = "") -> dict[str, Any]:
    """The next answer, or the next progress whose message starts with `until`."""
    assert worker.stdout is not None
    for line in worker.stdout:
        message: dict[str, Any] = json.loads(line)
        progress = message.get("progress")
        if progress is None or (until and progress[1].startswith(until)):
            return message
    raise AssertionError("The process ended without an answer.")


@pytest.mark.usefixtures("folder")
def test_a_stop_ends_the_running_call_and_not_the_next_one() -> None:
    with real_worker() as worker:
        ask(worker, {"stop": True}, {"call": "stats", "arguments": {}})
        assert answer(worker)["result"]["count"] == 0
        ask(worker, {"call": "stats", "arguments": {}}, {"stop": True})
        assert "result" in answer(worker)
        ask(worker, {"call": "stats", "arguments": {}})
        assert "result" in answer(worker)


@pytest.mark.parametrize("end", ["end of input", "SIGTERM"])
def test_a_worker_that_is_asked_to_end_finishes_its_batch_and_reports_the_progress(
    folder: Path, end: str
) -> None:
    write_many(folder / "many.json", 4000)
    with real_worker() as worker:
        ask(worker, {"call": "import", "arguments": {"input_path": "many.json"}})
        answer(worker, until="Imported")
        if end == "SIGTERM":
            worker.send_signal(signal.SIGINT)  # ignored: the server decides
            worker.send_signal(signal.SIGTERM)
        else:
            assert worker.stdin is not None
            worker.stdin.close()
        error = answer(worker)["error"]
        assert error["type"] == "Stopped"
        assert "of 4,000 entries had been processed" in error["message"]
        assert "To continue, repeat the import" in error["message"]
        assert worker.wait(30) == 0


def test_a_worker_ends_if_its_server_stops_reading(folder: Path) -> None:
    write_many(folder / "many.json", 4000)
    with real_worker() as worker:
        ask(worker, {"call": "import", "arguments": {"input_path": "many.json"}})
        answer(worker, until="Imported")
        assert worker.stdout is not None
        assert worker.stdin is not None
        worker.stdout.close()
        worker.stdin.close()
        assert worker.wait(30) == 0


def test_a_stop_right_after_its_call_is_not_lost() -> None:
    read, go_on = threading.Event(), threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'{"call": "a", "arguments": {}}'
        yield b'{"stop": true}'
        read.set()
        go_on.wait()

    calls = _Calls(lines(), at_end=read.set)
    assert read.wait(30)
    assert calls.next() == {"call": "a", "arguments": {}}
    assert calls.stopped()
    go_on.set()
    assert calls.next() is None


def test_progress_strictly_increases_even_if_only_the_message_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(100))
    monkeypatch.setattr("tribal_mcp.worker.main.time.monotonic", lambda: next(now))
    with (tmp_path / "out").open("wb") as out:
        progress = _Progress(out)
        for percent, message in [(0, "a"), (0, "a"), (0, "b"), (5, "c"), (0, "d"), (100, "e")]:
            progress(percent, message)
    lines = (tmp_path / "out").read_text().splitlines()
    said = [json.loads(line)["progress"] for line in lines]
    assert [message for _, message in said] == ["a", "b", "c", "d", "e"]
    percents = [percent for percent, _ in said]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
