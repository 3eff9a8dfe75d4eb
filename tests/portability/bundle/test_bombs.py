"""Bundles that would exhaust the memory, each read in a process of its own that is measured."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIZE = "more than 16,777,216 bytes"
VALUES = "more than 265,536 strings, lists and objects"
BOMB_REASONS = {
    "zeros in gzip": "UTF-16|more than 200 times",
    "zeros in zstd": "UTF-16|more than 200 times",
    "spaces in gzip": "more than 200 times",
    "spaces in zstd": "more than 200 times",
    "a line of 1 GB": SIZE,
    "an entry of 1 GB": SIZE,
    "a stream with a line of 1 GB": SIZE,
    "a text of 1 GB in a pretty file": SIZE,
    "a number of 1 GB": SIZE,
    "a key of 1 GB": SIZE,
    "a list of 1 GB beside the entries": SIZE,
    "brackets": VALUES,
    "an entry of many objects": VALUES,
    "ten million tiny entries": "more than 100,000 entries",
    "ten million tiny lines": "more than 100,000 entries",
    "ten million keys": "duplicate key",
    "1 GB of white space": "empty",
    "1 GB of blank lines in a stream": "more than 201,000 lines",
    "entries with one id": "more than 100,000 entries",
    "ids of 8 MB": "^\\d+ MB",
    "a key of 8 MB": "more than 1,000 characters",
    "tombstones of 2 MB": "the limit is 4,096 .TRIBAL_LIMIT_ID_BYTES",
    "entries of tiny values": "^\\d+ MB",
}


@pytest.mark.parametrize("name", BOMB_REASONS)
def test_an_oversized_bundle_is_refused_in_little_memory(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.bombs", name], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.search(BOMB_REASONS[name], ended.stdout), ended.stdout
    assert int(ended.stdout.split()[-2]) < 300
