"""The pool of store processes: calls, cancellation, crashes and replacement.

Where a test has to pause a call, a scripted process replaces the real one.
"""

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from tests.support.mcp_client import settings, write_many
from tribal_mcp.errors import BundleError, StoreError
from tribal_mcp.worker import pool as process
from tribal_mcp.worker.pool import PROCESSES, StoreProcesses

pytestmark = pytest.mark.anyio

ECHO = """
import json, os, sys
def say(message):
    print(json.dumps(message), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    if "stop" in call:
        continue
    name, arguments = call["call"], call["arguments"]
    if name == "die":
        os._exit(3)
    if name == "hang":  # until it is stopped, as an import does
        say({"progress": [1.0, "begun"]})
        json.loads(sys.stdin.readline())["stop"]
        say({"progress": [2.0, "finishing the batch"]})
        say({"error": {"type": "Stopped", "message": "Stopped."}})
        continue
    say({"result": {"pid": os.getpid(), "length": len(str(arguments))}})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", ECHO))


@pytest.mark.usefixtures("scripted")
async def test_one_process_serves_consecutive_calls() -> None:
    async with StoreProcesses() as processes:
        pids = [(await processes.call("echo", {}))["pid"] for _ in range(3)]
    assert len(set(pids)) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.usefixtures("scripted")
async def test_an_idle_process_that_died_is_replaced() -> None:
    async with StoreProcesses() as processes:
        first = (await processes.call("echo", {}))["pid"]
        os.kill(first, signal.SIGKILL)
        with anyio.fail_after(30):
            while processes._idle[0].alive:  # the event loop notices a moment later
                await anyio.lowlevel.checkpoint()
        assert (await processes.call("echo", {}))["pid"] != first


@pytest.mark.usefixtures("scripted")
async def test_a_process_that_dies_during_a_call_is_an_error_and_the_next_call_works() -> None:
    async with StoreProcesses() as processes:
        with pytest.raises(StoreError, match=r"ended unexpectedly.*Try again"):
            await processes.call("die", {})
        assert (await processes.call("echo", {}))["pid"]


@pytest.mark.usefixtures("scripted")
async def test_a_large_call_arrives_complete() -> None:
    async with StoreProcesses() as processes:
        result = await processes.call("echo", {"bundle_json": "ü" * 8_000_000})
        assert result["length"] > 8_000_000


@pytest.mark.usefixtures("scripted")
async def test_cancelling_a_running_call_stops_its_job_and_keeps_the_process() -> None:
    begun = anyio.Event()

    async def on_progress(_percent: float, _message: str) -> None:
        begun.set()

    async with StoreProcesses() as processes:
        first = (await processes.call("echo", {}))["pid"]
        async with anyio.create_task_group() as group:
            group.start_soon(processes.call, "hang", {}, on_progress)
            await begun.wait()
            group.cancel_scope.cancel()
        # The answer of the stopped call is not mistaken for that of the next one.
        assert (await processes.call("echo", {}))["pid"] == first


@pytest.mark.usefixtures("scripted")
async def test_cancelling_a_call_before_its_process_has_started_keeps_the_process() -> None:
    async with StoreProcesses() as processes:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await processes.call("hang", {})
        async with anyio.create_task_group() as group:
            group.start_soon(processes.call, "hang", {}, None)
            await anyio.lowlevel.checkpoint()  # the process is starting
            group.cancel_scope.cancel()
        assert len(processes._idle) == 1
        assert (await processes.call("echo", {}))["pid"]


@pytest.mark.usefixtures("scripted")
async def test_read_only_calls_leave_a_process_to_others() -> None:
    begun = 0
    all_begun, third = anyio.Event(), anyio.Event()

    async def on_progress(_percent: float, _message: str) -> None:
        nonlocal begun
        begun += 1
        if begun == PROCESSES - 1:
            all_begun.set()

    async with StoreProcesses() as processes, anyio.create_task_group() as group:

        async def read(name: str) -> None:
            await processes.call(name, {}, on_progress, read_only=True)
            third.set()

        for _ in range(PROCESSES - 1):
            group.start_soon(read, "hang")
        await all_begun.wait()
        group.start_soon(read, "echo")
        assert (await processes.call("echo", {}))["pid"]
        assert not third.is_set()
        group.cancel_scope.cancel()


@pytest.mark.usefixtures("scripted")
async def test_a_call_beyond_the_limit_waits_and_can_be_cancelled_meanwhile() -> None:
    begun = 0
    all_begun = anyio.Event()

    async def on_progress(_percent: float, _message: str) -> None:
        nonlocal begun
        begun += 1
        if begun == PROCESSES:
            all_begun.set()

    async with StoreProcesses() as processes:
        async with anyio.create_task_group() as group:
            for _ in range(PROCESSES):
                group.start_soon(processes.call, "hang", {}, on_progress)
            await all_begun.wait()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(processes.call, "echo", {})
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            assert len(processes._idle) == 0
            group.cancel_scope.cancel()
        assert len(processes._idle) == PROCESSES
        assert (await processes.call("echo", {}))["pid"]


async def test_a_process_that_cannot_be_started_is_an_error_with_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("/nowhere/python",))
    async with StoreProcesses() as processes:
        with pytest.raises(StoreError, match=r"Can't start .*reinstall tribal-mcp\."):
            await processes.call("stats", {})


@pytest.mark.usefixtures("folder")
async def test_an_error_keeps_its_class_across_the_pipe() -> None:
    async with StoreProcesses() as processes:
        with pytest.raises(BundleError, match="not JSON"):
            await processes.call("import", {"bundle_json": "hello"})
        with pytest.raises(RuntimeError, match="its log has the traceback"):
            await processes.call("import", {"nonsense": 1})
        assert (await processes.call("stats", {}))["count"] == 0


@pytest.mark.usefixtures("scripted")
async def test_a_signal_to_the_group_of_the_server_does_not_reach_a_store_process() -> None:
    async with StoreProcesses() as processes:
        pid = (await processes.call("echo", {}))["pid"]
        assert os.getpgid(pid) != os.getpgid(0)


async def test_modules_in_the_working_directory_of_the_server_are_not_imported(
    folder: Path,
) -> None:
    for name in ("tribal_mcp/__init__.py", "json.py", "anyio.py", "chromadb.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("open('it-ran', 'w').close(); raise SystemExit(9)")
    (folder / ".env").write_text("TRIBAL_COLLECTION=planted\nCHROMA_SERVER_NOFILE=1\n")
    write_many(folder / "some.json", 2)
    async with StoreProcesses() as processes:
        await processes.call("import", {"input_path": "some.json"})
        stats = await processes.call("stats", {})
    assert (stats["count"], stats["collection"]) == (2, "memories")
    assert not (folder / "it-ran").exists()


@pytest.mark.usefixtures("folder")
async def test_prints_and_logs_do_not_break_the_protocol(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = """
import logging, os, subprocess, sys
from tribal_mcp.services import jobs
from tribal_mcp.worker import main as worker
request_of_stats, stats = jobs.JOBS["stats"]
async def noisy(context, request):
    print("printed"); sys.stdout.flush(); os.write(1, b"written\\n")
    subprocess.run(["echo", "from a child"]); logging.getLogger("x").error("logged")
    return await stats(context, request)
jobs.JOBS["stats"] = (request_of_stats, noisy)
worker.main()
"""
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", noisy))
    async with StoreProcesses() as processes:
        assert (await processes.call("stats", {}))["count"] == 0
    out, err = capfd.readouterr()
    assert out == ""
    for said in ("printed", "written", "from a child", "logged"):
        assert said in err
