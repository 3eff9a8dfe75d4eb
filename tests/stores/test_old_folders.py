"""Folders that Chroma 0.4 to 1.5 made: read as they are, and converted only if that is allowed."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_folders import change, chroma, existing, the
from tests.support.command_line import Tribal, plain
from tests.support.mounts import read_only_mount
from tests.support.old_chroma import COLLECTIONS, OLDER, VERSIONS, digests, unpack
from tribal_mcp.stores.chroma import migration
from tribal_mcp.stores.chroma.files.reader import ChromaFiles

READING = (
    ("stats",),
    ("history",),
    ("recall", "rivers"),
    ("export", "all.json", "--overwrite"),
    ("check",),
    ("rescue", "rescued.json", "--overwrite"),
    ("forget", "n01", "--dry-run"),
    ("remember", "A new note.", "--dry-run"),
    ("import", "bundle.json", "--dry-run"),
    ("undo", "--dry-run"),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_record_of_an_older_version_is_read_from_its_files(
    tmp_path: Path, version: str
) -> None:
    folder, expected = unpack(version, tmp_path)
    with ChromaFiles(folder) as files:
        for name in COLLECTIONS:
            found = {r.id: r for batch in files.read(the(files, name)) for r in batch}
            assert {i for i, *_ in expected[name]} == found.keys()
            for memory_id, document, metadata, vector in expected[name]:
                record = found[memory_id]
                assert (record.document, record.metadata) == (document, metadata)
                assert record.vector is not None
                given = np.asarray(vector, np.float32)
                if name == "notes-cosine":
                    assert np.allclose(given, record.vector, rtol=1e-5)
                else:
                    assert given.tobytes() == record.vector.tobytes()
            assert files.without_vector(the(files, name)) == []
            assert files.without_row(the(files, name)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_reading_changes_no_byte_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal, version: str
) -> None:
    folder, _ = unpack(version, tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(plain(3)))
    before = digests(folder)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    for name in COLLECTIONS:
        monkeypatch.setenv("TRIBAL_COLLECTION", name)
        for words in READING:
            ran = tribal(*words)
            assert ran.code in (0, 2), (words, ran)  # 2: there is nothing to undo
        bundle = json.loads((tmp_path / "all.json").read_text())
        assert len(bundle["entries"]) == 21
    assert before == digests(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_on_a_read_only_mount_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal, version: str
) -> None:
    folder, _ = unpack(version, tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(plain(3)))
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    with read_only_mount(folder):
        for words in READING:
            ran = tribal(*words)
            assert ran.code in (0, 2), (words, ran)  # 2: there is nothing to undo
        assert tribal("remember", "A new note.").code == 5
    assert len(json.loads((tmp_path / "all.json").read_text())["entries"]) == 21


@pytest.mark.parametrize("version", OLDER)
def test_a_write_that_would_convert_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal, version: str
) -> None:
    folder, _ = unpack(version, tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(plain(3)))
    before = digests(folder)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    for words in (
        ("remember", "A new note."),
        ("forget", "n01"),
        ("import", "bundle.json"),
    ):
        ran = tribal(*words)
        assert ran.code == 5, (words, ran)
        assert "TRIBAL_MIGRATE_FOLDER" in ran.err
    assert before == digests(folder)


@pytest.mark.parametrize("version", OLDER)
def test_a_folder_is_converted_with_consent_and_a_copy_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal, version: str
) -> None:
    folder, expected = unpack(version, tmp_path)
    before = digests(folder)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    monkeypatch.setenv("TRIBAL_MIGRATE_FOLDER", "true")
    ran = tribal("forget", "n01", "--json")
    assert ran.code == 0, ran
    [kept] = tmp_path.glob("folder.before-conversion-*")
    assert digests(kept) == before
    assert str(kept) in tribal("stats").out
    with chroma(folder) as client:
        assert existing(client, "notes-l2").count() == 20
        assert existing(client, "notes-ip").count() == len(expected["notes-ip"])
    monkeypatch.delenv("TRIBAL_MIGRATE_FOLDER")
    assert tribal("forget", "n02").code == 0
    assert len(list(tmp_path.glob("folder.before-conversion-*"))) == 1


def test_a_folder_that_chroma_cannot_convert_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal
) -> None:
    folder, _ = unpack("0.6.3", tmp_path)
    before = digests(folder)

    def fails(_: object) -> None:
        raise sqlite3.OperationalError("Failed to apply logs to the metadata segment")

    monkeypatch.setattr(migration, "_write_to_each", fails)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    monkeypatch.setenv("TRIBAL_MIGRATE_FOLDER", "true")
    ran = tribal("forget", "n01")
    assert ran.code == 5
    assert "left as it is" in ran.err
    assert before == digests(folder)
    assert not list(tmp_path.glob("folder.before-conversion-*"))


def test_a_folder_in_an_unknown_layout_is_read_from_a_private_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal
) -> None:
    folder, _ = unpack("1.0.15", tmp_path)
    change(folder, "ALTER TABLE maintenance_log RENAME TO old_log")
    change(folder, "ALTER TABLE embeddings_queue ADD COLUMN shard INTEGER")
    before = digests(folder)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ran = tribal("stats")
    assert ran.code == 0, ran
    assert "21 memories" in ran.out
    assert "temporary copy" in ran.out
    assert before == digests(folder)


@pytest.mark.parametrize("journal", ["chroma.sqlite3-journal"])
def test_a_transaction_of_another_killed_program_is_not_rolled_back_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tribal: Tribal, journal: str
) -> None:
    folder, _ = unpack("0.5.23", tmp_path)
    other = tmp_path / "killed"
    other.mkdir()
    sql = sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)
    sql.execute("PRAGMA cache_size = 5")
    sql.execute("BEGIN IMMEDIATE")
    sql.execute("UPDATE embedding_metadata SET string_value = zeroblob(4000)")
    migration.copy_store(folder, other)  # as the disk is if it is killed now
    sql.execute("ROLLBACK")
    sql.close()
    assert (other / journal).stat().st_size
    before = digests(other)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(other))
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes-l2")
    ran = tribal("export", "all.json")
    assert ran.code == 0, ran
    assert "n01 about" in (tmp_path / "all.json").read_text()
    assert before == digests(other)
