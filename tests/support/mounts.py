"""Mounts, for tests that run as root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only_mount(there: Path, here: Path | None = None) -> Iterator[Path]:
    """A read-only mount of a directory on another one, by default on itself."""
    here = here or there
    _mount("--bind", there, here)
    try:
        _mount("-o", "remount,ro,bind", here)
        yield here
    finally:
        subprocess.run(["/bin/umount", "--lazy", here], check=True)


def _mount(*options: str | Path) -> None:
    try:
        subprocess.run(["/bin/mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount")
