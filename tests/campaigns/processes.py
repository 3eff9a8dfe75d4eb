"""Processes that a campaign starts and kills, forked from one that has imported Chroma."""

import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FULL = os.environ.get("TRIBAL_CAMPAIGN") == "full"
PROTECTIONS = frozenset(os.environ.get("TRIBAL_CAMPAIGN_WITHOUT", "").split())
"""Mechanisms that are disabled, to see a campaign fail."""

_started: list[BaseProcess] = []
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.campaigns.preload"])


def times(short: int, full: int) -> int:
    """Return the number of rounds of a short or a full run."""
    return full if FULL else short


def report(line: str) -> None:
    """Print what a campaign did; visible with `pytest -s`."""
    print(f"\n{line}")  # noqa: T201


@dataclass(slots=True)
class Child:
    """A running process; `lines` receives its reports."""

    process: BaseProcess
    lines: Connection

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()

    def reports(self) -> list[Any]:
        """Return the unread reports."""
        found = []
        try:
            while self.lines.poll():
                found.append(self.lines.recv())
        except (EOFError, OSError):
            pass
        return found

    def close(self) -> None:
        """Close the process and its pipe."""
        self.lines.close()
        self.process.close()


def start(work: Callable[..., Any], *arguments: object) -> Child:
    """Run `work(report, *arguments)` in a new process."""
    here, there = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_child, args=(work, there, PROTECTIONS, arguments), daemon=True
    )
    process.start()
    there.close()
    _started.append(process)
    return Child(process, here)


def kill_all() -> None:
    """Kill the processes that a failed test left running."""
    for process in _started:
        try:
            process.kill()
        except ValueError:  # closed already
            continue
        process.join()
    _started.clear()


def kill_at_random(child: Child, chance: random.Random, within_s: float, index: Path) -> None:
    """Kill at any moment in half of the cases, and while an index is written in the other half."""
    begin = time.monotonic()
    moment = chance.uniform(0, within_s)
    if chance.random() < 0.5:
        time.sleep(moment)
    else:
        before = _stamp(index)
        while time.monotonic() - begin < within_s and child.process.is_alive():
            now = _stamp(index)
            if now != before and time.monotonic() - begin > moment / 2:
                time.sleep(chance.choice([0, 0, 0.0001, 0.0005, 0.002]))
                break
            before = now
    child.kill()


def _stamp(index: Path) -> list[int]:
    found: list[int] = []
    for name in ("header.bin", "index_metadata.pickle"):
        with suppress(FileNotFoundError):  # a repair moves them
            found.append((index / name).stat().st_mtime_ns)
    return found


def answer(child: Child, timeout_s: float = 250) -> Any:  # noqa: ANN401
    """Wait until a process ends and return its result; its reports are discarded."""
    try:
        while True:
            if not child.lines.poll(timeout_s):
                child.kill()
                raise TimeoutError
            try:
                kind, value = child.lines.recv()
            except EOFError:
                child.process.join()
                raise AssertionError(f"It crashed: {child.process.exitcode}") from None
            if kind == "done":
                child.process.join()
                return value
            if kind == "failed":
                raise AssertionError(value)
    finally:
        child.kill()
        child.close()


def ask(work: Callable[..., Any], *arguments: object, timeout_s: float = 250) -> Any:  # noqa: ANN401
    """Run `work(report, *arguments)` in a new process and return its result."""
    return answer(start(work, *arguments), timeout_s)


def _child(
    work: Callable[..., Any], pipe: Connection, off: frozenset[str], arguments: tuple[object, ...]
) -> None:
    from tests.campaigns.protections import switch_off  # noqa: PLC0415 - in the child only

    switch_off(off)
    try:
        pipe.send(("done", work(pipe.send, *arguments)))
    except BaseException:  # noqa: BLE001 - it is raised again in `answer`
        pipe.send(("failed", traceback.format_exc()))
