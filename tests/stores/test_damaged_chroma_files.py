"""Damaged Chroma files: what is left is read, and never read wrongly."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_folders import (
    Record,
    add,
    assert_same_as_chroma,
    change,
    chroma,
    create,
    existing,
    index_of,
    read_all,
    record,
    the,
    vectors,
)
from tribal_mcp.errors import StoreDamaged
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.salvage import SalvagedFiles

IDS = [f"id{n}" for n in range(40)]
NUMBERS = vectors(40)


def salvaged(folder: Path) -> list[Record]:
    with SalvagedFiles(folder) as files:
        return [record(raw) for batch in files.read(the(files)) for raw in batch]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 records: the index files have 20, the log has the last of these and the rest."""
    with chroma(tmp_path / "chroma") as client:
        collection = create(client, space="cosine", sync_threshold=20)
        add(collection, IDS[:20], NUMBERS[:20], documents=IDS[:20])
        add(collection, IDS[20:30], NUMBERS[20:30], documents=IDS[20:30])
        assert_same_as_chroma(tmp_path / "chroma", collection)
    return tmp_path / "chroma"


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self._call


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, exec, subprocess.call])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    folder: Path, tmp_path: Path, function: Callable[..., Any], *, nested: bool
) -> None:
    canary = tmp_path / "canary"
    command: dict[Any, object] = {
        os.system: f"touch {canary}", subprocess.call: ["touch", str(canary)],
    }  # fmt: skip
    evil = Runs(
        function, command.get(function, f"__import__('pathlib').Path({str(canary)!r}).touch()")
    )
    stored = pickle.dumps({"id_to_label": {"id0": 1}, "more": [evil]} if nested else evil)
    (index_of(folder) / "index_metadata.pickle").write_bytes(stored)
    with ChromaFiles(folder) as files:
        with pytest.raises(StoreDamaged, match="can't be trusted"):
            list(files.read(the(files)))
        [records] = files.read(the(files), vectors=False)
        assert IDS[:30] == [record.document for record in records]
    assert not canary.exists()
    pickle.loads(stored)  # noqa: S301 - shows that it would run
    assert canary.exists()


def test_labels_that_chroma_0_6_wrote_are_read(folder: Path) -> None:
    before = read_all(folder)
    path = index_of(folder) / "index_metadata.pickle"
    state = pickle.dumps(pickle.loads(path.read_bytes()), 2)[2:-1]  # noqa: S301 - Chroma's own
    name = b"cchromadb.segment.impl.vector.local_persistent_hnsw\nPersistentData\n"
    path.write_bytes(b"\x80\x02" + name + b")\x81" + state + b"b.")
    assert before == read_all(folder)


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(index: Path) -> None:
        path = index / name
        if name == "data_level0.bin":  # only its beginning is in use
            os.truncate(path, 20 * 172)
        os.truncate(path, int(path.stat().st_size * share))

    return damage


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        pytest.param(cut("data_level0.bin", 0.5), 10, id="half of the data"),
        pytest.param(cut("data_level0.bin", 0.0), 20, id="data empty"),
        pytest.param(cut("length.bin", 0.05), 15, id="norms truncated"),
        pytest.param(cut("header.bin", 0.5), 20, id="header truncated"),
        pytest.param(cut("header.bin", 0.0), 20, id="header empty"),
        pytest.param(lambda index: (index / "header.bin").unlink(), 20, id="no header"),
        pytest.param(lambda index: (index / "length.bin").unlink(), 20, id="no norms"),
        pytest.param(lambda index: (index / "data_level0.bin").unlink(), 20, id="no data"),
        pytest.param(shutil.rmtree, 20, id="no index"),
        pytest.param(cut("index_metadata.pickle", 0.0), 20, id="labels empty"),
        pytest.param(cut("index_metadata.pickle", 0.5), None, id="labels truncated"),
        pytest.param(lambda index: (index / "index_metadata.pickle").unlink(), 20, id="no labels"),
    ],
)
def test_damaged_index_files_lose_only_the_vectors_in_them(
    folder: Path, damage: Callable[[Path], None], lost: int | None
) -> None:
    change(folder, "DELETE FROM embeddings_queue WHERE seq_id = 20")  # it is in both
    whole = read_all(folder)
    damage(index_of(folder))
    read = salvaged(folder)
    assert [r[:3] for r in whole] == [r[:3] for r in read]
    found = [(a[3], b[3]) for a, b in zip(whole, read, strict=True) if b[3] is not None]
    assert all(before == after for before, after in found)
    assert lost in (30 - len(found), None)  # Chroma writes labels in a random order


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A folder whose writer was killed before it wrote the index; `whole` beside it has it."""
    with chroma(tmp_path / "torn") as client:
        collection = create(client, sync_threshold=20)
        add(collection, IDS[:24], NUMBERS[:24])
        collection.delete(ids=IDS[2:5])
    shutil.copytree(tmp_path / "torn", tmp_path / "whole")
    change(
        tmp_path / "torn",
        "UPDATE collections SET schema_str = "
        """replace(schema_str, '"sync_threshold":20', '"sync_threshold":1000')""",
    )
    for name in ("torn", "whole"):
        with chroma(tmp_path / name) as client:
            collection = existing(client)
            collection.delete(ids=IDS[12:16])
            add(collection, [*IDS[2:4], *IDS[24:40]], NUMBERS[[2, 3, *range(24, 40)]])
            assert_same_as_chroma(tmp_path / name, collection)
    return tmp_path / "torn"


@pytest.mark.parametrize(
    ("data", "labels", "lost"),
    [
        ("old", "old", 0),
        ("half", "old", 0),
        ("new", "old", 0),
        ("new", "empty", 16),
        ("new", "truncated", None),
        ("new", "new", 0),
    ],
)
def test_a_kill_while_the_index_is_written_loses_only_vectors_without_labels(
    torn: Path, data: str, labels: str, lost: int | None
) -> None:
    """Chroma writes header, data and labels in this order and in place, then the database."""
    expected = read_all(torn)
    assert 35 == len(expected) == len([r for r in expected if r[3] is not None])
    new, index = index_of(torn.with_name("whole")), index_of(torn)
    shutil.copy(new / "header.bin", index)
    if data != "old":
        shutil.copy(new / "data_level0.bin", index)
    if data == "half":
        os.truncate(index / "data_level0.bin", 32 * 172 - 50)
    if labels != "old":
        shutil.copy(new / "index_metadata.pickle", index)
    if labels == "empty":
        os.truncate(index / "index_metadata.pickle", 0)
    if labels == "truncated":
        os.truncate(index / "index_metadata.pickle", 300)
    read = salvaged(torn)
    assert [r[:3] for r in expected] == [r[:3] for r in read]
    found = [(a[3], b[3]) for a, b in zip(expected, read, strict=True) if b[3] is not None]
    assert all(before == after for before, after in found)
    assert lost in (len(expected) - len(found), None)  # Chroma writes labels in a random order


def test_vectors_are_never_paired_with_ids_by_order_or_count(tmp_path: Path) -> None:
    """As many ids as labels, and yet others: one was replaced after the files were written."""
    with chroma(tmp_path) as client:
        collection = create(client, sync_threshold=20)
        add(collection, IDS[:20], NUMBERS[:20])
        collection.delete(ids=IDS[3:4])
        add(collection, ["new"], NUMBERS[39:])
    os.truncate(index_of(tmp_path) / "index_metadata.pickle", 0)
    read = salvaged(tmp_path)
    assert len(read) == 20
    found = {r[0]: r[3] for r in read if r[3] is not None}
    assert found == {"id19": NUMBERS[19].tobytes(), "new": NUMBERS[39].tobytes()}


def test_rows_without_a_vector_and_vectors_without_a_row_are_found(folder: Path) -> None:
    change(folder, "DELETE FROM embeddings WHERE embedding_id IN ('id2', 'id25')")
    change(folder, "DELETE FROM embeddings_queue WHERE id = 'id27'")
    path = index_of(folder) / "index_metadata.pickle"
    stored = pickle.loads(path.read_bytes())  # noqa: S301 - Chroma's own
    del stored["id_to_label"]["id5"]
    stored["id_to_label"]["id6"] = 999
    path.write_bytes(pickle.dumps(stored))
    with ChromaFiles(folder) as files:
        assert files.without_vector(the(files)) == ["id5", "id6", "id27"]
        assert files.without_row(the(files)) == ["id2", "id25"]
