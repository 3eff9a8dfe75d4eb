"""Check, repair and rescue on damaged folders, from the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.examples import memories, memory
from tribal_mcp import open_store
from tribal_mcp.config import Settings
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run as run_job
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch

MODEL = create_embedding_metadata("all-MiniLM-L6-v2", 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """1,500 memories with a vector, more than Chroma keeps in its log, and one without."""

    async def fill() -> None:
        async with open_store(tmp_path / "store") as store:
            await store.set_identity(MODEL)
            await store.upsert([*memories(1500), memory(1500, embedding=None)])

    anyio.run(fill)
    return tmp_path / "store"


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tribal_mcp", *words, "--json"],
        env={"TRIBAL_DATA_DIR": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def contents(folder: Path) -> list[MemoryEntry]:
    async def read() -> list[MemoryEntry]:
        async with open_store(folder) as store:
            return list((await store.get_many(await store.list_ids())).values())

    return anyio.run(read)


def index_of(folder: Path) -> Path:
    [index] = {path.parent for path in folder.glob("*/index_metadata.pickle")}
    return index


def test_check_reports_a_healthy_folder_as_sound(folder: Path) -> None:
    code, result = run(folder, "check")
    assert code == 0
    assert result["sound"]
    assert result["problems"] == []


def test_check_finds_a_truncated_index_and_repairs_it_from_the_vectors_that_are_left(
    folder: Path,
) -> None:
    data = index_of(folder) / "data_level0.bin"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    code, result = run(folder, "check")
    assert code == 5
    assert not result["sound"]
    code, result = run(folder, "check", "--repair")
    assert code == 0, result
    assert result["done"]
    found = contents(folder)
    assert {entry.id for entry in found} == {f"memory-{n}" for n in range(1501)}
    kept = [entry for entry in found if entry.embedding is not None]
    assert len(kept) >= 500
    assert all(entry == memory(int(entry.id.split("-")[1])) for entry in kept)


def test_export_refuses_lost_vectors_and_recommends_a_check(folder: Path, tmp_path: Path) -> None:
    data = index_of(folder) / "data_level0.bin"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    done = subprocess.run(
        [sys.executable, "-m", "tribal_mcp", "export", str(tmp_path / "out.json")],
        env={"TRIBAL_DATA_DIR": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "check --repair" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_rescue_saves_every_text_of_a_folder_without_its_index(
    folder: Path, tmp_path: Path
) -> None:
    for path in index_of(folder).iterdir():
        path.write_bytes(b"rubbish")
    bundle = tmp_path / "rescued.json"
    code, result = run(folder, "rescue", str(bundle))
    assert code == 0
    assert result["memory_count"] == 1501
    assert result["notes"]
    rescued = PortableBundle.from_dict(json.loads(bundle.read_text()))
    assert rescued.manifest.embedding == MODEL
    lost = [entry for entry in rescued.entries if entry.embedding is None]
    assert len(lost) == result["lost_vectors"] + 1
    expected = [*memories(1500), memory(1500, embedding=None)]
    assert all(a.same_but_for_vector(b) for a, b in zip(rescued.entries, expected, strict=True))


def test_rescue_saves_everything_of_a_healthy_folder(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "rescued.json"
    _, result = run(folder, "rescue", str(bundle))
    assert (result["memory_count"], result["lost_rows"], result["lost_vectors"]) == (1501, 0, 0)
    rescued = PortableBundle.from_dict(json.loads(bundle.read_text()))
    assert rescued.entries == contents(folder)


@pytest.mark.anyio
async def test_rescue_saves_tombstones_from_a_damaged_folder(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    async with open_store(folder) as store:
        await store.upsert(memories(3))
        await store.apply(Change(forget={"memory-1": 5, "missing": 6, "erased": 7, "back": 8}))
    for data in folder.glob("*/data_level0.bin"):
        data.write_bytes(b"rubbish")
    # The journal has a batch whose process was killed before the first step.
    begun = Change([memory(0, id="back")], {"memory-2": 9}, ["erased"])
    ChromaFolder.at(folder).journal.write(Batch("memories", begun))
    settings = Settings(data_dir=folder, bundle_dirs=str(tmp_path))
    path = tmp_path / "rescued.json"
    await run_job(Context(settings, Limits()), "rescue", {"output_path": str(path)})
    rescued = PortableBundle.from_dict(json.loads(path.read_bytes()))
    assert {entry.id for entry in rescued.entries} == {"memory-0", "back"}
    assert {one.id: one.deleted_at_us for one in rescued.deleted} == {
        "memory-1": 5, "missing": 6, "memory-2": 9,
    }  # fmt: skip
