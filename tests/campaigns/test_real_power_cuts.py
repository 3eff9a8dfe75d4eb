"""Real file systems lose their power: the image of a mounted disk is copied without a sync.

What the system had not written back yet is missing in the copy, as after a power cut. Mounting
takes root; file systems without a program to create them are left out.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from tests.campaigns import power
from tests.campaigns.processes import ask, report, times

pytestmark = pytest.mark.campaign

MOUNT = (shutil.which("mount") or "mount", "-o", "loop")
UMOUNT = shutil.which("umount") or "umount"
SIZES_MIB = {"ext4": 128, "btrfs": 192, "xfs": 320}


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[None]:
    """The file system in the image."""
    place.mkdir(exist_ok=True)
    done = subprocess.run([*MOUNT, image, place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not permitted")
    try:
        yield
    finally:
        subprocess.run([UMOUNT, place], check=True)


def cut_once(system: str, place: Path, chance: random.Random) -> list[str]:
    """Cut the power of a program once: what is lost or wrong after it."""
    image, disk, copy, out = (place / name for name in ("image", "disk", "copy", "out"))
    out.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZES_MIB[system] << 20)
    subprocess.run([f"mkfs.{system}", image], check=True, capture_output=True)
    with mounted(image, disk):
        ask(power.prepared, disk / "store", "upsert")
        os.sync()
        module = ("-m", "tests.campaigns.power", "upsert")
        command: list[str | Path] = [sys.executable, *module, disk / "store", out]
        with subprocess.Popen(command) as process:
            marks = out / "steps.marks"
            while not (marks.exists() and marks.read_text()):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 3))
            process.send_signal(signal.SIGSTOP)
            acknowledged = marks.read_text().split()
            shutil.copyfile(image, copy)
            process.kill()
    done = sum(mark != "end" for mark in acknowledged) - 1
    held = [
        power.Held(**json.loads(path.read_text()))
        for number in range(done, done + 2)
        if (path := out / str(number)).exists()
    ]
    if len(held) <= 1 and "end" not in acknowledged:
        return []  # stopped before it had said what the step in progress leads to
    with mounted(copy, place / "after"):
        return ask(after_the_cut, place / "after" / "store", held)  # type: ignore[no-any-return]


def after_the_cut(_report: object, folder: Path, held: list[power.Held]) -> list[str]:
    """What is lost or wrong, as found after a restart."""
    from tribal_mcp.stores.chroma import lock  # noqa: PLC0415 - in the child only

    lock.boot_id = lambda: "after the cut"
    return anyio.run(lambda: power.problems(folder, held, whole=False))


@pytest.mark.parametrize("system", SIZES_MIB)
def test_real_file_systems_lose_nothing_that_was_acknowledged(system: str, tmp_path: Path) -> None:
    if not shutil.which(f"mkfs.{system}") or os.geteuid():
        pytest.skip(f"there is no mkfs.{system}, or this is not root")
    chance = random.Random(7)  # noqa: S311
    rounds = times(1, 10)
    wrong: list[str] = []
    for number in range(rounds):
        place = tmp_path / str(number)
        place.mkdir()
        wrong += cut_once(system, place, chance)
        shutil.rmtree(place)
    report(f"{system}: {rounds} power cuts, {len(wrong)} problems")
    assert wrong == []
