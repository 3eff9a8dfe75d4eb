"""What a sync costs, next to an export and an import: whole commands, each in a new process.

    python benchmarks/sync.py STORE

STORE is a data folder, such as one that `latency.py` has built; it is copied and not changed.
Prints for each command the CPU time, the time by the clock, the peak memory, and the size of what
it wrote.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "tribal_mcp"]
EDIT = """
import sys, asyncio
from dataclasses import replace
from pathlib import Path
from tribal_mcp.stores.chroma.store import open_store

async def edit():
    store = open_store(Path(sys.argv[1]))
    [memory_id, *_] = await store.list_ids()
    entry = await store.get(memory_id)
    await store.upsert([replace(entry, tags=[*entry.tags, "edited"])])
    await store.close()

asyncio.run(edit())
"""


def run(name: str, store: Path, *arguments: str, wrote: Path | None = None) -> None:
    """Run a command, and print what it cost."""
    before = _size(wrote)
    os.sync()
    begin = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, *arguments],
        env={**os.environ, "TRIBAL_DATA_DIR": str(store)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - begin
    if status:
        raise SystemExit(f"{name} failed")
    print(
        f"{name:24} {used.ru_utime + used.ru_stime:8.2f} s CPU {took:8.2f} s"
        f" {used.ru_maxrss / 1024:7.0f} MiB {_size(wrote) - before:12,} bytes",
        flush=True,
    )


def _size(path: Path | None) -> int:
    if path is None or not path.exists():
        return 0
    return sum(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file())


def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        one, two, other, shared = (folder / n for n in ("one", "two", "other", "shared"))
        bundle = folder / "bundle.jsonl.zst"
        shutil.copytree(sys.argv[1], one)
        shared.mkdir()
        sync = ("sync", str(shared))
        run("export", one, "export", str(bundle), wrote=bundle)
        run("publish all", one, *sync, "--name", "one", wrote=shared)
        run("no news", one, *sync, wrote=shared)
        run("import", other, "import", str(bundle))
        run("receive all", two, *sync, "--name", "two", wrote=shared)
        run("no news", two, *sync, wrote=shared)
        subprocess.run([sys.executable, "-c", EDIT, str(one)], check=True)  # noqa: S603
        run("publish one change", one, *sync, wrote=shared)
        run("receive one change", two, *sync, wrote=shared)
        run("no news", two, *sync, wrote=shared)


if __name__ == "__main__":
    main()
