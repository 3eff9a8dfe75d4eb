"""Compares whole processes: the CPU time of commands, from start to exit, with plain Chroma.

    python benchmarks/processes.py [--rounds 5] [PYTHON ...]

Each PYTHON is the interpreter of another environment, such as one with an earlier version; the
sides alternate. Prints the median CPU time of each command, all of its processes together, and for
those that move 10,000 memories of 384 dimensions the ratio to plain Chroma.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BENCH = Path(__file__).with_name("bench.py")
SIZE = ("10000", "384")
SHORT = {
    "--version": (), "where": (), "stats": (), "list": (), "recall": ("agent",), "history": (),
}  # fmt: skip


def cpu_seconds(command: list[str], store: Path) -> float:
    """The CPU time of a command and of the processes that it started."""
    environment = {**os.environ, "TRIBAL_DATA_DIR": str(store)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has its bytecode
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_round(python: str, folder: Path, found: dict[str, list[float]]) -> None:
    """Run each command of one environment once."""
    store, command = folder / "store", [python, "-m", "tribal_mcp"]
    small = folder / "small"
    if not small.exists():
        cpu_seconds([*command, "remember", "an agent"], small)
    for name, arguments in list(SHORT.items()) * 5:
        found.setdefault(name, []).append(cpu_seconds([*command, name, *arguments], small))
    shutil.rmtree(store, ignore_errors=True)
    bundle, out = str(folder / "bundle.json"), str(folder / "out.json")
    for name, arguments in {
        "dry run": ("import", bundle, "--dry-run"),
        "import": ("import", bundle),
        "all skipped": ("import", bundle),
        "export": ("export", out, "--overwrite"),
    }.items():
        found.setdefault(name, []).append(cpu_seconds([*command, *arguments], store))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    sides: dict[str, dict[str, list[float]]] = {p: {} for p in (*options.pythons, sys.executable)}
    plain: dict[str, list[float]] = {"import": [], "export": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = [sys.executable, str(BENCH), "--side"]
        cpu_seconds([*bench, "make_bundle", scratch, *SIZE], folder)
        for _ in range(options.rounds):
            plain["import"].append(cpu_seconds([*bench, "import_baseline", scratch, *SIZE], folder))
            for python, found in sides.items():
                measure_round(python, folder, found)
            plain["export"].append(cpu_seconds([*bench, "export_baseline", scratch, *SIZE], folder))
    for name, runs in plain.items():
        print(f"plain Chroma, {name}: {statistics.median(runs):.2f} s")
    for python, found in sides.items():
        print(python)
        for name, runs in found.items():
            seconds = statistics.median(runs)
            base = None if name in SHORT else plain["export" if name == "export" else "import"]
            ratio = f"   {seconds / statistics.median(base):.2f} of plain Chroma" if base else ""
            print(f"  {name:12} {seconds:.2f} s{ratio}")


if __name__ == "__main__":
    main()
