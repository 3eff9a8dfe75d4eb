"""Reading Chroma's files without Chroma returns the same records as Chroma does."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chroma_folders import (
    SPACES,
    add,
    assert_same_as_chroma,
    change,
    chroma,
    create,
    existing,
    random_metadata,
    read_all,
    record,
    records_from_chroma,
    seeded,
    the,
    typed,
    vectors,
)
from tribal_mcp.stores.chroma.files.reader import ChromaFiles

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("sync_threshold", [3, 10, 1000])
@pytest.mark.parametrize("space", SPACES)
def test_every_record_is_the_same_as_through_chroma(
    tmp_path: Path, space: str, sync_threshold: int
) -> None:
    numbers, ids = vectors(60), [f"id{n}" for n in range(60)]
    with chroma(tmp_path) as client:
        one = create(client, "one", space=space, sync_threshold=sync_threshold)
        two = create(client, "two", space="l2", sync_threshold=4)
        steps: list[Callable[[], object]] = [
            partial(add, one, ids[:30], numbers[:30], documents=ids[:30]),
            partial(add, two, ids[:5], vectors(5, 3)),
            partial(one.delete, ids=ids[3:9]),
            *(partial(add, one, [i], numbers[9:10]) for i in ids[30:34]),
            partial(one.update, ids=ids[10:13], embeddings=numbers[40:43]),
            partial(add, one, ids[4:6], numbers[44:46]),  # again, after they were deleted
            partial(add, one, ids[10:12], numbers[50:52]),  # ignored, because they exist
            partial(
                one.update, ids=["never"], embeddings=numbers[:1]
            ),  # ignored, because it does not exist
            partial(one.upsert, ids=ids[12:36], embeddings=numbers[12:36]),
            partial(two.delete, ids=ids[:5]),
            partial(one.update, ids=ids[20:22], metadatas=[{"a": 1}, {"b": [2]}]),
            partial(one.delete, ids=ids[:2]),
            partial(add, one, ids[:2], numbers[:2]),
        ]
        for step in steps:
            step()
            assert_same_as_chroma(tmp_path, one, two)
    with chroma(tmp_path) as client:
        assert_same_as_chroma(tmp_path, existing(client, "one"), existing(client, "two"))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3))
def test_records_are_the_same_as_through_chroma_after_random_calls(
    tmp_path: Path, seed: int
) -> None:
    rng = seeded(seed)
    with chroma(tmp_path) as client:
        collections = [
            create(client, f"col{n}", space=space, sync_threshold=rng.choice([2, 5, 20]))
            for n, space in enumerate(SPACES)
        ]
        for collection in collections:  # Chroma itself loses an update of the only vector
            add(collection, ["first", "second"], vectors(2, 3, seed))
        for step in range(80):
            collection = rng.choice(collections)
            ids = rng.sample([f"id{n}" for n in range(25)] + ["ünï", "a\0b"], rng.choice([1, 2, 7]))
            numbers, metadatas = vectors(len(ids), 3, step), [random_metadata(rng) for _ in ids]
            some: dict[str, Any] = {
                "embeddings": numbers,
                "metadatas": metadatas,
                "documents": rng.choice([None, ids, ["", *ids[1:]], ["nul\0", *ids[1:]]]),
            }
            match rng.choice(["add", "upsert", "update", "delete", "unset"]):
                case "delete":
                    collection.delete(ids=ids)
                case "unset":
                    collection.update(ids=ids, metadatas=[{"a": None, "tags": None}] * len(ids))
                case call:
                    getattr(collection, call)(ids=ids, **some)
            if step % 8 == 0:
                assert_same_as_chroma(tmp_path, *collections)
    with chroma(tmp_path) as client:
        assert_same_as_chroma(tmp_path, *(existing(client, c.name) for c in collections))


def test_every_kind_of_metadata_and_document_is_read_unchanged(tmp_path: Path) -> None:
    records: list[tuple[str, str, dict[str, Any] | None]] = [
        ("plain", "text", None),
        ("empty", "", {"empty": "", "blank": " "}),
        ("ünï😀", "ünï😀", {"schlüssel": "wert", "list": ["ü", "", "ü"]}),
        ("nul\0", "a\0b\0", {"nul\0key": "\0"}),
        ("numbers", "1", {"int": 1, "float": 1.0, "big": 2**63 - 1, "small": -(2**63)}),
        ("truths", "2", {"yes": True, "no": False, "both": [True, False]}),
        ("lists", "3", {"ints": [3, 1, 2], "floats": [0.5, 1e300], "words": ["b", "a", "b"]}),
        ("long", "x" * 100_000, {"long": "y" * 100_000}),
    ]
    ids = [i for i, _, _ in records]
    with chroma(tmp_path) as client:
        collection = create(client)
        add(
            collection,
            ids,
            vectors(len(ids)),
            documents=[d for _, d, _ in records],
            metadatas=[m for _, _, m in records],
        )
        add(collection, ["no document"], vectors(1))
        assert_same_as_chroma(tmp_path, collection)
    read = read_all(tmp_path)
    assert [(i, d, m or {}) for i, d, m in records] == [r[:3] for r in read[:-1]]
    assert read[-1][:3] == ("no document", None, {})


def test_keys_that_chroma_stores_and_does_not_return_are_read(tmp_path: Path) -> None:
    with chroma(tmp_path) as client:
        collection = create(client)
        metadata: Any = {"chroma:mine": "x", "other": 1}
        add(collection, ["a"], vectors(1), metadatas=[metadata])
        assert collection.get()["metadatas"] == [{"other": 1}]
    assert metadata == read_all(tmp_path)[0][2]


def test_vectors_of_a_cosine_index_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    """Once they are in the index; in the log they are as they were written."""
    ids, numbers = [f"id{n}" for n in range(20)], vectors(20, 384)
    with chroma(tmp_path) as client:
        collection = create(client, space="cosine", sync_threshold=21)
        add(collection, ids, numbers)
        assert [r[3] for r in read_all(tmp_path)] == [vector.tobytes() for vector in numbers]
        collection.delete(ids=["id7"])
        assert records_from_chroma(collection) == read_all(tmp_path)


def test_records_are_in_the_requested_order_without_missing_ones(tmp_path: Path) -> None:
    ids = [f"id{n}" for n in range(2500)]
    with chroma(tmp_path) as client:
        add(create(client, sync_threshold=1500), ids, vectors(2500), documents=ids)
    asked = seeded(1).sample(ids, 2400)
    with ChromaFiles(tmp_path) as files:
        raw = the(files)
        batches = list(files.read(raw, ["nobody", *asked, "id7", "id7"], batch_size=1100))
        assert [len(batch) for batch in batches] == [1099, 1100, 203]
        read = [r for batch in batches for r in batch]
        assert [*asked, "id7", "id7"] == [r.id for r in read]
        by_id = {r.id: record(r) for batch in files.read(raw) for r in batch}
        assert [by_id[r.id] for r in read] == [record(r) for r in read]
        assert sorted(asked) == sorted(files.existing(raw, [*asked, "nobody"]))
        [[alone]] = files.read(raw, ["id3"], vectors=False)
        assert (alone.document, alone.vector) == ("id3", None)
        assert list(files.read(raw, ["nobody"])) == []


def test_a_collection_without_records_is_empty(tmp_path: Path) -> None:
    with chroma(tmp_path) as client:
        assert_same_as_chroma(tmp_path, create(client))
        with ChromaFiles(tmp_path) as files:
            assert the(files).dimension is None
            assert files.collection("another") is None


@pytest.mark.parametrize("space", ["l2", "cosine"])
def test_changes_that_a_killed_writer_left_only_in_the_log_are_read(
    tmp_path: Path, space: str
) -> None:
    """The result is what Chroma would return after it opens the folder again."""
    before, after = tmp_path / "before", tmp_path / "after"
    rng, ids = seeded(2), [f"id{n}" for n in range(30)]
    with chroma(before) as client:
        collection = create(client, space=space)
        metadatas = [random_metadata(rng) or {"tags": ["x"], "created_at_us": 5} for _ in ids]
        add(collection, ids[:20], vectors(20), metadatas=metadatas[:20], documents=ids[:20])
    shutil.copytree(before, after)
    with chroma(after) as client:
        collection = existing(client)
        collection.update(ids=ids[:4], metadatas=[{"tags": ["x"], "a": None, "b": 1}] * 4)
        collection.upsert(ids=ids[3:6], embeddings=vectors(3, seed=1), documents=["new"] * 3)
        collection.delete(ids=ids[8:12])
        add(collection, ids[10:30], vectors(20, seed=2), metadatas=metadatas[9::-1] * 2)
        collection.update(ids=["id29"], metadatas=[{"tags": ["x"], "created_at_us": 7}])
    change(
        before,
        f"ATTACH '{after}/chroma.sqlite3' AS after",
        "INSERT INTO embeddings_queue SELECT * FROM after.embeddings_queue "
        "WHERE seq_id > (SELECT max(seq_id) FROM main.max_seq_id)",
    )
    assert typed(read_all(after)) == typed(read_all(before))
    with ChromaFiles(before) as files:
        raw = the(files)
        assert files.unapplied(raw) == 4 + 3 + 4 + 20 + 1
        assert files.count(raw) == 28
        assert files.without_vector(raw) == files.without_row(raw) == []
        assert sorted(files.existing(raw, ["id10", "id9", "id29"])) == ["id10", "id29"]
        assert files.matching_ids(raw, ["x"], 7, 7) == ["id29"]
        found = files.ids(raw)
        with chroma(before) as client:
            assert found == existing(client).get(include=[])["ids"]
            existing(client).delete(ids=["id29"])
            assert_same_as_chroma(before, existing(client))
            raw = the(files)
            assert (files.unapplied(raw), files.ids(raw)) == (0, found[:-1])


def test_open_files_return_what_was_written_since(tmp_path: Path) -> None:
    numbers = vectors(50)
    with chroma(tmp_path) as client, ChromaFiles(tmp_path) as files:
        collection = create(client, sync_threshold=10)
        for n in range(50):
            add(collection, [f"id{n}"], numbers[n : n + 1])
            if n % 7 == 0:
                collection.delete(ids=[f"id{n // 2}"])
            read = [record(r) for batch in files.read(the(files)) for r in batch]
            assert records_from_chroma(collection) == read


def test_filters_by_tag_and_date_select_the_same_as_in_chroma(tmp_path: Path) -> None:
    rng = seeded(3)
    words = ["a", "b", "ä", "A", "%", ""]
    metadatas: list[Any] = [
        {"created_at_us": rng.randrange(50), "tags": rng.sample(words, rng.randrange(1, 4))}
        for _ in range(200)
    ] + [{"created_at_us": 9.0, "tags": "a"}, {"other": ["a"]}]
    with chroma(tmp_path) as client:
        collection = create(client)
        ids = [f"id{n}" for n in range(len(metadatas))]
        add(collection, ids, vectors(len(ids)), metadatas=metadatas)
        add(create(client, "other"), ids, vectors(len(ids)), metadatas=metadatas)
        with ChromaFiles(tmp_path) as files:
            for tags, first, last in [
                (["a"], None, None), (["a", "ä"], None, None), (["%", "%"], 10, 20), ([""], 0, 0),
                ([], 10, 20), ([], None, 7), ([], 40, None), (["none"], None, None),
            ]:  # fmt: skip
                where: list[Any] = [{"tags": {"$contains": tag}} for tag in dict.fromkeys(tags)]
                terms = [{"$or": where} if len(where) > 1 else where[0]] if tags else []
                terms += [{"created_at_us": {"$gte": first}}] if first is not None else []
                terms += [{"created_at_us": {"$lte": last}}] if last is not None else []
                clause: Any = {"$and": terms} if len(terms) > 1 else terms[0]
                expected = collection.get(where=clause, include=[])["ids"]
                assert expected == files.matching_ids(the(files), tags, first, last), clause


@pytest.mark.parametrize("name", ["with blank", "what?mode=rw", "100%20", "a#b", "ünï", "a&b"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with chroma(tmp_path / name) as client:
        collection = create(client, sync_threshold=2)
        add(collection, ["a", "b"], vectors(2))
        assert_same_as_chroma(tmp_path / name, collection)


def test_the_reader_does_not_import_chroma() -> None:
    code = "import tribal_mcp.stores.chroma.files.reader, sys; assert 'chromadb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
