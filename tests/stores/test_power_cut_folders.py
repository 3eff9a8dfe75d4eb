"""Folders as a power cut left them: a repair ends with a sound store and keeps no wrong vector."""

import tarfile
from pathlib import Path

import pytest

from tests.support.command_line import Tribal
from tests.support.examples import DATA, vector
from tribal_mcp import open_store

CASES = {
    "st_swap_966": (144, 122),
    "st_im6": (116, 70),
    "st_refused": (103, 21),
    "st_lost_after_end": (240, 17),
}
"""How many memories each has, and how many vectors provably belong to their ids."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a folder, which is in `tmp_path`."""
    name: str = request.param
    with tarfile.open(DATA / "crash" / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return name


def test_a_repair_ends_with_a_sound_store(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / case))
    assert tribal("check").code == 5
    repaired = tribal("check", "--repair")
    assert (repaired.code, "tribal-mcp reembed" in repaired.out) == (0, True)
    assert tribal("check").code == 0


async def test_only_proven_vectors_are_kept(case: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / case)
    await store.repair()
    entries = await store.get_many(await store.list_ids())
    found = {i: e.embedding for i, e in entries.items() if e.embedding is not None}
    assert (len(entries), len(found)) == CASES[case]
    for memory_id, kept in found.items():
        stored = vector(int(memory_id.removeprefix("memory-")), kept.size)
        assert kept.tobytes() == stored.tobytes()
    await store.close()
