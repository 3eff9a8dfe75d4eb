"""Has the real programs write stores, and reads these: `make interop`.

Each program is installed in an environment of its own, from the package index, and writes a small
store through its own API; a deterministic function stands in for the embedding model. Then the
store is imported, and texts, ids, dates, tags, links, instances and vectors are compared with what
the program's API returns. The results go to docs/interop.md. Not part of the suite.
"""

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.interchange.samples import read_sample, source_at
from tests.interop.exports import READERS, check_export
from tribal_mcp.interchange.reading import read_time
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.memory import MemoryEntry

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("INTEROP_ENVIRONMENTS", ROOT / ".interop"))
PAGE = ROOT / "docs" / "interop.md"
_SYSTEM_PYTHON = Path("/usr/bin/python3")
_SERVER = "node_modules/@modelcontextprotocol/server-memory/dist/index.js"


@dataclass(frozen=True, slots=True)
class System:
    """A program: the package whose version counts, the writer, and the packages it needs.

    `npm` are packages whose archives it needs, without their dependencies.

    `extensions` is true if its SQLite has to load extensions; `python` is the oldest version that
    it runs on.
    """

    package: str
    writer: str
    requirements: tuple[str, ...] = ()
    extensions: bool = False
    python: str = ""
    npm: tuple[str, ...] = ()


_BUN = f"@oven/bun-{sys.platform}-{'x64' if platform.machine() == 'x86_64' else 'aarch64'}"
SYSTEMS = (
    System("@modelcontextprotocol/server-memory", "reference_server"),
    System("langchain-chroma", "langchain", ("chromadb==1.5.9",)),
    System("llama-index-vector-stores-chroma", "llamaindex", ("chromadb==1.5.9",)),
    System("mem0ai", "mem0", ("chromadb==1.5.9",)),
    System("mempalace", "mempalace"),
    System("mcp-memory-service", "mcp_memory_service", extensions=True),
    System(  # its own requirements are incomplete, and too wide
        "chromadb-data-pipes",
        "cdp",
        ("pyarrow<19", "jinja2", "langchain-community<0.3", "click<8.2"),
    ),
    System("basic-memory", "basic_memory", python="3.12"),
    System("cognee", "cognee"),
    System("tribalmemory", "tribalmemory"),
    System("claude-mem", "claude_mem", npm=(_BUN, "claude-mem")),
    System("portable-ai-memory", "pam"),
    System("fastokf", "okf"),
)


def environment(system: System) -> tuple[list[str], str]:
    """The command that runs the writer, and the version of the program; installs it once."""
    folder = ENVIRONMENTS / system.writer
    script = str(Path(__file__).parent / "writers" / f"write_{system.writer}.py")
    if system.npm:
        packages = [_unpacked(folder, name) for name in system.npm]
        version = json.loads((packages[-1] / "package.json").read_text())["version"]
        return [sys.executable, script, "{}", f"{packages[0]}/bin/bun", str(packages[-1])], version
    if system.package.startswith("@"):
        package = folder / _SERVER.split("/dist", maxsplit=1)[0] / "package.json"
        if not package.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _run(["npm", "install", "--no-audit", "--no-fund", system.package], cwd=folder)
        version = json.loads(package.read_text())["version"]
        return [sys.executable, script, "{}", str(folder / _SERVER)], version
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        own = not system.extensions or hasattr(sqlite3.Connection, "enable_load_extension")
        base = sys.executable if own else str(_SYSTEM_PYTHON)
        if system.python and sys.version_info < tuple(map(int, system.python.split("."))):
            base = _interpreter(system.python)
        _run([base, "-m", "venv", "--without-pip", str(folder)])
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
        _run([*install, system.package, *system.requirements])
        (folder / ".ready").touch()
    command = f"from importlib.metadata import version; print(version({system.package!r}))"
    return [str(python), script, "{}"], _run([str(python), "-c", command]).strip()


def _unpacked(folder: Path, package: str) -> Path:
    """The content of an npm package, without its dependencies."""
    place = folder / package.replace("/", "-")
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / _run(["npm", "pack", "--silent", package], cwd=folder).strip()
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
    return place / "package"


def _interpreter(version: str) -> str:
    """Another Python that is installed here."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = next(map(str, root.glob(f"{version}.*/bin/python3")), shutil.which(f"python{version}"))
    return found or sys.exit(f"Python {version} is needed, and is not installed.")


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def differences(written: list[dict[str, Any]], entries: list[MemoryEntry]) -> Iterator[str]:
    """How the memories that were read differ from those that were written."""
    by_text = {entry.content: entry for entry in entries}
    if len(by_text) != len(written) or len(entries) != len(written):
        yield f"{len(entries)} memories instead of {len(written)}"
    for one in written:
        entry = by_text.get(one["text"])
        if entry is None:
            yield f"{one['text']!r} is missing"
            continue
        found = {
            "id": entry.id,
            "tags": entry.tags,
            "instance": entry.source_instance,
            "related_to": entry.related_to,
            "supersedes": entry.supersedes,
            "created": entry.created_at,
            "updated": entry.updated_at,
        }
        for name, value in one.items():
            if name in found and value is not None:
                wanted = read_time(value) if name in {"created", "updated"} else value
                if found[name] != wanted:
                    yield f"{name} of {one['text']!r} is {found[name]!r} instead of {wanted!r}"
        if one.get("vector") and entry.embedding is None:
            yield f"{one['text']!r} has no vector"
        elif isinstance(one.get("vector"), list) and entry.embedding is not None:
            largest = max(abs(a - b) for a, b in zip(entry.embedding, one["vector"], strict=True))
            if largest > 1e-6:
                yield f"the vector of {one['text']!r} differs by {largest}"


def check(system: System) -> tuple[str, list[str]]:
    """The row of the table for a program, and what is wrong."""
    command, version = environment(system)
    with TemporaryDirectory() as private:
        store = Path(private) / "store"
        written = json.loads(_run([part.replace("{}", str(store)) for part in command]))
        inner = [path for path in store.iterdir() if not path.name.endswith(("-wal", "-shm"))]
        before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
        source = store if system.writer in _FOLDERS or len(inner) != 1 else inner[0]
        if system.writer == "tribalmemory":
            return _bundle_row(system, version, source, written["memories"])
        conversion, entries, _ = read_sample(source_at(source))
        wrong = list(differences(written["memories"], entries))
        if conversion.left_out.total() != written.get("left_out", 0):
            wrong.append(f"left out: {dict(conversion.left_out)}")
        if conversion.deleted != len(written.get("deleted", ())):
            wrong.append(f"{conversion.deleted} deletions")
        wrong += map(str, conversion.rejected)
        if any(path.read_bytes() != data for path, data in before.items()):
            wrong.append("the store was changed")
    cells = [
        f"{system.package} {version}",
        f"`{conversion.format.name}`",
        len(entries),
        conversion.vectors or "",
        conversion.left_out.total() or "",
        conversion.deleted or "",
        "; ".join(wrong) or "as written",
    ]
    return f"| {' | '.join(map(str, cells))} |", wrong


def _bundle_row(
    system: System, version: str, path: Path, written: list[dict[str, Any]]
) -> tuple[str, list[str]]:
    """As `check`, for a program that writes bundles."""
    with path.open("rb") as file:
        entries = [
            e for b in BundleReader(file).batches(100) for e in b if isinstance(e, MemoryEntry)
        ]
    wrong = list(differences(written, entries))
    vectors = sum(entry.embedding is not None for entry in entries)
    result = "; ".join(wrong) or "as written"
    name = f"{system.package} {version}"
    return f"| {name} | a bundle | {len(entries)} | {vectors} |  |  | {result} |", wrong


_FOLDERS = {"basic_memory", "langchain", "llamaindex", "mem0", "mempalace"}

_HEAD = """# Interoperability

`make interop` installs these programs in environments of their own, has each write a small store
through its own API, and reads it. Texts, ids, dates, tags, links, instances and vectors are
compared with what the program's API returns; no file of the store may change.

| program | read as | memories | vectors | left out | deletions | result |
|---|---|---:|---:|---:|---:|---|
"""


_READ = """

## What they read

These programs read what `tribal-mcp export` writes, through their own importers or APIs. Where they
keep it in a store of their own, that store is read back, and compared with the memories that were
exported, except for what the format announces as lost.

| program | written as | memories | read back |
|---|---|---:|---|
"""


def main() -> None:
    names = sys.argv[1:]
    written, read, failed = [], [], False
    for system in SYSTEMS:
        if names and system.writer not in names:
            continue
        if (Path(__file__).parent / "writers" / f"write_{system.writer}.py").exists():
            row, wrong = check(system)
            written.append(row)
            failed = failed or bool(wrong)
            print(row, flush=True)  # noqa: T201
        if system.writer in READERS:
            command, version = environment(system)
            row, wrong = check_export(system.writer, f"{system.package} {version}", command, _run)
            read.append(row)
            failed = failed or bool(wrong)
            print(row, flush=True)  # noqa: T201
    if not names:
        page = [_HEAD, "\n".join(written), _READ, "\n".join(read)]
        PAGE.write_text("".join(page) + "\n", encoding="utf-8")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
