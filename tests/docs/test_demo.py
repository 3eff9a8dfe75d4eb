"""`make demo` works."""

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_moves_memories_through_two_servers_and_ends_with_the_same_bundle() -> None:
    done = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, again = re.findall(r"sha256 ([0-9a-f]{64})", done.stdout)
    assert first == again
    counts = re.findall(r"(\d+) new, \d+ overwritten, (\d+) skipped", done.stdout)
    assert counts == [("4", "0"), ("4", "0"), ("0", "4")]
    assert done.stdout.endswith("have the same 4 memories and vectors, byte for byte.\n")
