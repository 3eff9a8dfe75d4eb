"""Damaged folders of five Chroma versions: every command ends with a message, and rescue saves all.

Each recipe damages one table or file. No command may end in a traceback, no advice may lead in a
circle, nothing that only reads may change a byte, and a rescue has every memory and every vector
that is provably there.
"""

import json
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from tests.campaigns.processes import FULL
from tests.support.chroma_folders import chroma
from tests.support.command_line import Ran, Tribal
from tests.support.damage import RECIPES, Recipe
from tests.support.examples import memories
from tests.support.old_chroma import VERSIONS, digests, unpack
from tribal_mcp import open_store
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.stores.record import OURS as OWNED

OURS = "ours"
"""A folder that this program made."""
COUNT = 21
FOLDERS = (*VERSIONS, OURS)
_CHOSEN = [
    (recipe, FOLDERS[number % len(FOLDERS)])
    for number, recipe in enumerate(RECIPES)
    if number % 4 == 0
]
CASES = [(recipe, version) for recipe in RECIPES for version in FOLDERS] if FULL else _CHOSEN

pytestmark = pytest.mark.campaign


def ours(folder: Path) -> dict[str, bytes]:
    """Fill a folder as this program does, with an index on the disk; the vectors by id."""
    hnsw: Any = {"space": "l2", "sync_threshold": 10, "batch_size": 5}
    with chroma(folder) as client:
        client.create_collection(
            "memories", embedding_function=None, configuration={"hnsw": hnsw}, metadata={OWNED: 1}
        )

    async def fill() -> None:
        async with open_store(folder) as store:
            await store.set_identity(create_embedding_metadata("all-MiniLM-L6-v2", 8))
            for start in range(0, COUNT, 4):
                await store.upsert(memories(COUNT)[start : start + 4])

    anyio.run(fill)
    return {m.id: np.asarray(m.embedding, np.float32).tobytes() for m in memories(COUNT)}


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, bytes]]:
    version = request.param
    if version == OURS:
        return tmp_path / "folder", ours(tmp_path / "folder")
    folder, expected = unpack(version, tmp_path)
    return folder, {
        memory_id: np.asarray(vector, np.float32).tobytes()
        for memory_id, _, _, vector in expected["notes-l2"]
    }


def ask(tribal: Tribal, *words: str) -> Ran:
    ran = tribal(*words)
    assert ran.code in (0, 5), (words, ran)
    assert "Traceback" not in ran.err
    return ran


@pytest.mark.parametrize(
    ("recipe", "folder"),
    [pytest.param(r, v, id=f"{r.name}-{v}") for r, v in CASES],
    indirect=["folder"],
)
def test_a_damaged_folder(
    recipe: Recipe,
    folder: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tribal: Tribal,
) -> None:
    place, vectors = folder
    recipe.damage(place)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(place))
    if (tmp_path / "expected.json").exists():
        monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    before = digests(place)
    for words in (("stats",), ("export", "out.json"), ("recall", "note"), ("check",)):
        ask(tribal, *words)
    rescued(tribal, tmp_path / "first.json", recipe, vectors)
    if not (place / "tribal-mcp" / "writing.json").exists():
        assert before == digests(place)
    follow(tribal, tmp_path, recipe, vectors)


def rescued(tribal: Tribal, path: Path, recipe: Recipe, vectors: dict[str, bytes]) -> None:
    """Rescue, and compare what was saved with what is provably there."""
    ran = ask(tribal, "rescue", str(path), "--json", "--overwrite")
    if ran.code == 5:
        assert recipe.lost_rows >= COUNT, ran
        assert "rescue" not in ran.err, ran
        return
    entries = json.loads(path.read_text())["entries"]
    counts = json.loads(ran.out)
    assert len(entries) >= COUNT - recipe.lost_rows, ran
    found = {
        e["id"]: np.asarray(e["embedding"], np.float32).tobytes() for e in entries if e["embedding"]
    }
    wrong = [i for i, vector in found.items() if i in vectors and vectors[i] != vector]
    assert not wrong, (wrong, ran)
    assert len(found) >= COUNT - recipe.lost_vectors, ran
    assert len(entries) - len(found) <= counts["lost_vectors"], ran


def follow(tribal: Tribal, tmp_path: Path, recipe: Recipe, vectors: dict[str, bytes]) -> None:
    """Do as the messages say, until the folder is sound or there is nothing left to do."""
    ran = ask(tribal, "check")
    if "--repair" in ran.out + ran.err and ran.code:
        repaired = ask(tribal, "check", "--repair")
        said = repaired.out + repaired.err
        assert "check --repair" not in said, ran
        if repaired.code == 0:
            assert ask(tribal, "check").code == 0
            exported = tribal("export", "after.json", "--overwrite")
            assert exported.code == 0, exported
            return
        assert "rescue" in said or recipe.lost_rows >= COUNT, repaired
    if ran.code:
        rescued(tribal, tmp_path / "second.json", recipe, vectors)
