"""A small real disk fills up: the error is clear, and nothing acknowledged is lost."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns import work
from tests.campaigns.processes import ask, report, times
from tests.support.examples import memory
from tribal_mcp.errors import NoSpace
from tribal_mcp.portability.memory import MemoryEntry

pytestmark = pytest.mark.campaign

MIB = 1 << 20
DISK_MIB = 64
BOUND_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty file system of 64 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount command")
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)]
    done = subprocess.run([mount, *options], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run([umount, "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_loses_nothing_acknowledged(disk: Path) -> None:
    rounds = times(2, 20)
    chance = random.Random(3)  # noqa: S311
    refused = middle = 0
    for trial in range(rounds):
        folder, ballast = disk / f"store-{trial}", disk / "ballast"
        ask(work.make_collection, folder, 50)
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(bytes(free - int(chance.uniform(0.5, 4) * MIB)))
        acknowledged, error = ask(work.fill, folder, trial, timeout_s=BOUND_S)
        assert error == "NoSpace"
        middle += (folder / "tribal-mcp" / "writing.json").exists()
        again = ask(work.fill, folder, trial + 100, timeout_s=BOUND_S)
        assert again[1] == "NoSpace"
        refused += again[0] == 0
        ballast.unlink()
        found, _ = ask(work.read_all, folder)
        for seed, count in ((trial, acknowledged), (trial + 100, again[0])):
            ids = {f"memory-{seed * 10_000 + n}" for n in range(10_000)}
            here = {i: entry for i, entry in found.items() if i in ids}
            assert here in (_written(seed, count), _written(seed, count + work.FILL))
        assert ask(work.damage, folder) == []
        ask(work.store_entries, folder, [memory(9_999_999, work.DIMENSIONS)])
        assert len(ask(work.read_all, folder)[0]) == len(found) + 1
        shutil.rmtree(folder)
    report(f"{rounds} full disks, {middle} of them in mid-write: 0 lost; {refused} refused again")


def back_up(told: work.Report, folder: Path, backups: Path) -> str:
    """Back up; the name of the error."""
    try:
        work.job(told, folder, "backup", {"folder": os.fspath(backups), "keep_last": 1})
    except NoSpace as error:
        return type(error).__name__
    return ""


def test_a_backup_to_a_full_disk_leaves_the_earlier_ones(disk: Path, tmp_path: Path) -> None:
    backups, folder = disk / "backups", tmp_path / "store"
    backups.mkdir()
    ask(work.store_entries, folder, work.filled(1, 200))
    assert ask(back_up, folder, backups) == ""
    before = {path.name: path.read_bytes() for path in backups.iterdir()}
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 4096))
    ask(work.store_entries, folder, work.filled(2, 400))
    assert ask(back_up, folder, backups) == "NoSpace"
    assert {path.name: path.read_bytes() for path in backups.iterdir()} == before
    ballast.unlink()
    assert ask(back_up, folder, backups) == ""


def _written(seed: int, count: int) -> dict[str, MemoryEntry]:
    return {entry.id: entry for entry in work.filled(seed, count)}
