"""A result without memories says where it looked, and what is there instead."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.chroma_folders import chroma, create, vectors
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tests.support.old_chroma import unpack
from tribal_mcp import open_store
from tribal_mcp.stores.chroma.store import ChromaStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("export", "out.json"), 5),
        (("export", "out.json", "--since", "2026-01-01"), 5),
        (("check",), 5),
        (("check", "--repair"), 5),
        (("copy", "--to", "elsewhere"), 5),
        (("stats",), 0),
        (("list",), 0),
        (("recall", "rivers"), 0),
        (("history",), 0),
        (("forget", "x"), 0),
        (("show", "x"), 2),
        (("undo",), 2),
        (("rescue", "out.json"), 5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_every_command_names_the_folder_of_a_missing_store(
    tribal: Tribal, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    ran = tribal(*words)
    assert ran.code == code, ran
    assert str(tmp_path / "store") in ran.out + ran.err
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / "store").exists()


def test_an_export_from_a_missing_store_replaces_no_bundle(tribal: Tribal, tmp_path: Path) -> None:
    assert tribal("remember", "A memory.").code == 0
    assert tribal("export", "backup.json").code == 0
    before = (tmp_path / "backup.json").read_bytes()
    (tmp_path / "store").rename(tmp_path / "unmounted")
    ran = tribal("export", "backup.json", "--overwrite", "--allow-smaller")
    assert ran.code == 5
    assert f"no memory store in {tmp_path / 'store'}" in ran.err
    assert (tmp_path / "backup.json").read_bytes() == before


def test_an_export_of_a_store_whose_memories_were_deleted_is_empty(
    tribal: Tribal, tmp_path: Path
) -> None:
    memory_id = json.loads(tribal("remember", "A memory.", "--json").out)["id"]
    assert tribal("forget", memory_id).code == 0
    ran = tribal("export", "out.json")
    assert ran.code == 0
    assert f"{tmp_path / 'store'} holds 0 memories" in ran.out


def test_memories_under_other_names_are_named_with_their_counts(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = unpack("1.0.15", tmp_path)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    for words, code in ((("export", "out.json"), 5), (("stats",), 0), (("recall", "rivers"), 0),
                        (("list",), 0), (("check",), 0)):  # fmt: skip
        ran = tribal(*words)
        assert ran.code == code, ran
        said = " ".join((ran.out + ran.err).split())
        assert f"{folder} has no collection 'memories'" in said
        assert "'notes-l2' (21 memories)" in said
        assert "set TRIBAL_COLLECTION" in said
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    assert "21" in tribal("stats").out


def test_an_empty_collection_names_those_that_hold_memories(
    tribal: Tribal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_COLLECTION", "others")
    assert tribal("remember", "A memory without a vector.").code == 0
    monkeypatch.delenv("TRIBAL_COLLECTION")
    memory_id = json.loads(tribal("remember", "Another.", "--json").out)["id"]
    assert tribal("forget", memory_id).code == 0
    for words in (("stats",), ("list",), ("export", "out.json")):
        ran = tribal(*words)
        assert ran.code == 0
        said = " ".join(ran.out.split())
        assert "holds 0 memories in 'memories'" in said
        assert "Other collections: 'others' (1 memory)" in said
        assert ".pending" not in said


def _of_another_program(folder: Path) -> None:
    folder.mkdir()
    with chroma(folder) as client:
        create(client).add(ids=["a", "b", "c"], embeddings=vectors(3), documents=["x", "y", "z"])


@pytest.mark.parametrize("date", ["--from", "--to"])
def test_memories_without_a_date_are_counted_when_dates_leave_them_out(
    tribal: Tribal, tmp_path: Path, date: str
) -> None:
    _of_another_program(tmp_path / "store")
    for words in (("export", "out.json", "--overwrite"), ("list",), ("recall", "x")):
        ran = tribal(*words, date, "2026-01-01")
        assert ran.code == 0, ran
        said = " ".join(ran.out.split())
        assert "3 memories have no known date, so the dates left them out." in said, ran
        assert "known date, so" not in tribal(*words).out


def test_imported_memories_without_a_date_are_counted_too(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _of_another_program(tmp_path / "store")
    assert tribal("export", "out.json").code == 0
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "new"))
    assert tribal("import", "out.json").code == 0
    assert "3 memories have no known date" in " ".join(
        tribal("list", "--from", "2026-01-01").out.split()
    )
    assert "known date" not in tribal("list", "--to", "2026-01-01").out
    assert json.loads(tribal("stats", "--json").out)["months"] == {"unknown": 3}


async def test_other_collections_are_counted_with_their_memories_without_a_vector(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, "one") as store:
        await store.upsert([*memories(3), memory(3, embedding=None)])
        await store.delete(["memory-0"])
    async with open_store(tmp_path, "bare") as store:
        await store.upsert([memory(1, embedding=None, created_at=datetime(1970, 1, 1, tzinfo=UTC))])
        assert await store.counts() == {"one": 3, "bare": 1}
    async with ChromaStore(tmp_path / "nowhere") as store:
        assert await store.counts() is None
