"""What version 0.1.0 wrote is read whole: bundles, folders, and folders whose writer was killed.

`tests/data/frozen/README.md` says how the files were made. They never change: a version that
writes another format still reads these. So this file uses public doors only.
"""

import asyncio
import gzip
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import Tribal
from tests.support.embedding_server import embedding_server
from tribal_mcp import open_store
from tribal_mcp.portability.embedding_metadata import PortableBundle
from tribal_mcp.services.import_export import entry_to_dict, export_memories

FROZEN = Path(__file__).parent / "data" / "frozen"
EXPECTED = json.loads((FROZEN / "expected.json").read_text())
BUNDLES: dict[str, dict[str, Any]] = EXPECTED["bundles"]
FOLDERS: dict[str, dict[str, Any]] = EXPECTED["folders"]
SAME_CONTENT = "plain.json"
"""The bundle whose memories stand in `expected.json` once, for all that hold the same."""

State = dict[str, Any]


# What is expected, and what is there


def exact(memory: dict[str, Any]) -> str:
    """What tells 1, 1.0 and True apart, 0.0 and -0.0, and the keys' order."""
    return json.dumps(memory)


def memories(numbers: list[int]) -> dict[str, str]:
    """The memories of those numbers, by id; the vector is the hex of its float32 bytes."""
    found = [EXPECTED["memories"][number] for number in numbers]
    return {memory["id"]: exact(memory) for memory in found}


def expected(state: State) -> State:
    return {**state, "memories": memories(state["memories"])}


def form(bundle: PortableBundle) -> dict[str, str]:
    """The memories of a bundle as `memories` gives them."""
    found: dict[str, str] = {}
    for entry in bundle.entries:
        fields, vector = entry_to_dict(entry), entry.embedding
        assert entry.metadata == fields.get("metadata", {})
        hexed = None if vector is None else np.asarray(vector, "<f4").tobytes().hex()
        found[entry.id] = exact({**fields, "embedding": hexed})
    return found


def held(store: Path) -> State:
    """All that a folder holds."""
    bundle = asyncio.run(export_memories(open_store(store), limit=None))
    assert bundle.manifest.embedding is not None
    return {
        "model": bundle.manifest.embedding.to_dict(),
        "memories": form(bundle),
        "forgotten": {one.id: one.to_dict()["deleted_at"] for one in bundle.deleted},
    }


def of_bundle(name: str) -> dict[str, str]:
    return memories(BUNDLES[name]["memories"] or BUNDLES[SAME_CONTENT]["memories"])


def unpack(name: str, tmp_path: Path) -> Path:
    """The frozen folder of that name, where `tribal` looks for its store."""
    with tarfile.open(FROZEN / "folders" / f"{name}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "store"


def bring(name: str, tmp_path: Path) -> str:
    shutil.copy(FROZEN / "bundles" / name, tmp_path)
    return name


def ask(tribal: Tribal, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The result of a command."""
    done = tribal(*arguments, "--json")
    assert done.code == code, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


def assert_has(result: dict[str, Any], fields: dict[str, Any]) -> None:
    """Fields that a later version adds are none of our business."""
    assert {name: result[name] for name in fields} == fields


def assert_history(tribal: Tribal, operations: list[dict[str, Any]]) -> None:
    found = ask(tribal, "history")["operations"]
    assert len(found) == len(operations)
    for one, fields in zip(found, operations, strict=True):
        assert_has(one, fields)


def assert_sound(tribal: Tribal) -> None:
    assert ask(tribal, "check")["sound"]


def kinds(tribal: Tribal, *, code: int) -> list[str]:
    return sorted(problem["kind"] for problem in ask(tribal, "check", code=code)["problems"])


# Bundles


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_is_imported_whole(tribal: Tribal, tmp_path: Path, name: str) -> None:
    about = BUNDLES[name]
    said = ask(tribal, "import", bring(name, tmp_path), "--on-conflict", "merge")
    assert (said["imported"], said["errors"]) == (len(about["order"]), 0)
    assert said["deletions"] == len(about["forgotten"])
    assert "version" not in " ".join(said["notes"])  # it is known
    now = held(tmp_path / "store")
    assert now["memories"] == of_bundle(name)
    assert now["forgotten"] == about["forgotten"]
    kept = ("model_name", "dimensions", "provider", "created_at")
    assert now["model"] == {field: about["manifest"]["embedding"][field] for field in kept}


@pytest.mark.parametrize("name", [name for name in BUNDLES if name.endswith((".json", ".json.gz"))])
def test_a_bundle_in_memory_has_its_order_its_manifest_and_its_tombstones(name: str) -> None:
    about = BUNDLES[name]
    bundle = PortableBundle.from_dict(json.loads(text_of(name)))
    assert [entry.id for entry in bundle.entries] == about["order"]
    assert form(bundle) == of_bundle(name)
    assert (bundle.rejected, bundle.notes) == ([], [])
    assert {one.id: one.to_dict()["deleted_at"] for one in bundle.deleted} == about["forgotten"]
    assert bundle.to_dict()["manifest"] == about["manifest"]


def text_of(name: str) -> str:
    data = (FROZEN / "bundles" / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode()


DAMAGE = {
    "a memory": ('"Fact 7: ', '"Fact 8: '),
    "a vector": (r'"embedding":\[0\.1', '"embedding":[0.2'),
    "a compact vector": (r'"embedding":"\w\w', '"embedding":"++'),
    "a tombstone": ('"never-here"', '"never-home"'),
    "the count of tombstones": ('"deleted_count":4', '"deleted_count":3'),
    "the manifest": ('"provider":"onnx"', '"provider":"other"'),
}
PLAIN, COMPACT = ["plain.json", "plain.jsonl"], ["compact.json", "compact.jsonl.gz"]
DAMAGED = [
    (what, name)
    for what in DAMAGE
    for name in PLAIN + COMPACT
    if name not in {"a vector": COMPACT, "a compact vector": PLAIN}.get(what, [])
]


@pytest.mark.parametrize(("what", "name"), DAMAGED)
def test_the_integrity_block_of_a_bundle_still_finds_what_was_changed(
    tribal: Tribal, tmp_path: Path, what: str, name: str
) -> None:
    text = text_of(name)
    pattern, other = DAMAGE[what]
    found = re.search(pattern, text)
    assert found
    before, after = text[: found.start()], text[found.end() :]
    (tmp_path / "damaged.json").write_text(before + other + after)
    done = tribal("import", "damaged.json")
    assert done.code == 3
    if what == "a memory":  # the marks tell where
        assert re.search(rf"\b{before.count(chr(10)) + 1}\b", done.err)
    assert ask(tribal, "stats")["count"] == 0


@pytest.mark.parametrize(
    "name", ["since-time.json", "since-bundle.jsonl.gz", "since-bundle-compact.json"]
)
def test_a_bundle_of_changes_brings_a_copy_up_to_date(
    tribal: Tribal, tmp_path: Path, name: str
) -> None:
    ask(tribal, "import", bring("week-1.json", tmp_path))
    ask(tribal, "import", bring(name, tmp_path), "--on-conflict", "merge")
    assert held(tmp_path / "store") == expected(FOLDERS["store"]["holds"])


def test_an_earlier_bundle_tells_what_has_changed_since(tribal: Tribal, tmp_path: Path) -> None:
    unpack("store", tmp_path)
    about = BUNDLES["since-bundle.jsonl.gz"]
    ask(tribal, "export", "changes.json", "--since", bring("week-1.json", tmp_path))
    changes = PortableBundle.from_dict(json.loads((tmp_path / "changes.json").read_bytes()))
    assert form(changes) == memories(about["memories"])
    assert {one.id for one in changes.deleted} == about["forgotten"].keys()
    assert_has(changes.manifest.to_dict(), {f: about["manifest"][f] for f in SINCE})
    again = tribal("export", "again.json", "--since", bring("since-time.json", tmp_path))
    assert again.code == 2
    assert BUNDLES["since-time.json"]["manifest"]["exported_at"] in again.err


SINCE = ("since", "since_sha256")


def test_a_time_tells_what_has_come_in_since(tribal: Tribal, tmp_path: Path) -> None:
    unpack("store", tmp_path)
    about = BUNDLES["since-time.json"]
    ask(tribal, "export", "changes.json", "--since", about["manifest"]["since"])
    changes = PortableBundle.from_dict(json.loads((tmp_path / "changes.json").read_bytes()))
    assert form(changes) == memories(about["memories"])
    assert {one.id for one in changes.deleted} == about["forgotten"].keys()


# Folders


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_whole(tribal: Tribal, tmp_path: Path, name: str) -> None:
    state = expected(FOLDERS[name]["holds"])
    store = unpack(name, tmp_path)
    assert held(store) == state
    said = ask(tribal, "stats")
    bare = ['"embedding": null' in memory for memory in state["memories"].values()]
    assert (said["count"], said["without_vector"]) == (len(bare), sum(bare))
    assert said["forgotten"] == len(state["forgotten"])
    if "stats" in FOLDERS[name]:
        assert_has(said, FOLDERS[name]["stats"])
    if "history" in FOLDERS[name]:
        assert_history(tribal, FOLDERS[name]["history"])
    if "leftover" not in FOLDERS[name].get("problems", ()):
        assert_sound(tribal)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_check_names_what_is_wrong_and_changes_nothing(
    tribal: Tribal, tmp_path: Path, name: str
) -> None:
    unpack(name, tmp_path)
    problems = FOLDERS[name].get("problems", [])
    for _ in range(2):
        assert kinds(tribal, code=5 if {*problems} - {"foreign", "leftover"} else 0) == problems


@pytest.mark.parametrize("name", ["store", "foreign"])
def test_a_folder_takes_new_memories(tribal: Tribal, tmp_path: Path, name: str) -> None:
    store = unpack(name, tmp_path)
    new = ask(tribal, "remember", "The release branch is r99")["id"]
    now = held(store)
    assert "The release branch is r99" in now["memories"].pop(new)
    assert now == expected(FOLDERS[name]["holds"])
    ask(tribal, "forget", new)
    now = held(store)
    del now["forgotten"][new]
    assert now == expected(FOLDERS[name]["holds"])
    assert_sound(tribal)


# Restore points


def test_all_operations_are_undone_one_after_another(tribal: Tribal, tmp_path: Path) -> None:
    store = unpack("store", tmp_path)
    for step in FOLDERS["store"]["undone"]:
        ask(tribal, "undo", step["point"])
        if step["holds"]:
            assert held(store) == expected(step["holds"])
    said = ask(tribal, "stats")
    assert (said["count"], said["forgotten"], said["embedding"]) == (0, 0, None)


def test_the_history_of_one_memory_is_known(tribal: Tribal, tmp_path: Path) -> None:
    unpack("store", tmp_path)
    found = ask(tribal, "history", "--memory", "memory-13")["operations"]
    assert [one["operation"] for one in found] == ["undo", "forget", "import"]
    found = ask(tribal, "history", "--memory", "memory-5")["operations"]
    assert [one["source"] for one in found] == ["merge.json", "first.json"]


@pytest.mark.parametrize("name", ["moved", "switching"])
def test_a_change_of_model_is_undone_bit_for_bit_and_repeated(
    tribal: Tribal, tmp_path: Path, name: str
) -> None:
    about = FOLDERS[name]
    store = unpack(name, tmp_path)
    back = ask(tribal, "undo", about["point"])["restore_point"]
    assert held(store) == expected(about["undone"])
    ask(tribal, "undo", back)
    assert held(store) == expected(about["holds"])


def test_a_point_whose_contents_were_removed_stays_in_the_history_only(
    tribal: Tribal, tmp_path: Path
) -> None:
    about = FOLDERS["moved"]
    store = unpack("moved", tmp_path)
    for point in about["emptied"]:
        assert tribal("undo", point).code == 2
    assert held(store) == expected(about["holds"])


# What a killed writer left


def test_a_killed_import_is_continued_and_undone_as_one(tribal: Tribal, tmp_path: Path) -> None:
    about = FOLDERS["stopped-import"]
    store = unpack("stopped-import", tmp_path)
    name = bring("arriving.json", tmp_path)
    said = ask(tribal, "import", name, "--on-conflict", "overwrite")
    assert said["restore_point"] == about["point"]
    assert held(store) == expected(about["completed"])
    assert_has(ask(tribal, "history")["operations"][0], {"state": "complete"})
    ask(tribal, "undo", about["point"])
    assert held(store) == expected(about["undone"])


def test_the_written_part_of_a_killed_import_is_undone(tribal: Tribal, tmp_path: Path) -> None:
    about = FOLDERS["stopped-import"]
    store = unpack("stopped-import", tmp_path)
    ask(tribal, "undo", about["point"])
    assert held(store) == expected(about["undone"])


def test_a_move_that_was_killed_embeds_only_what_was_not_embedded(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = FOLDERS["stopped-move"]
    store = unpack("stopped-move", tmp_path)
    with embedding_server() as server:
        for variable, value in server.settings(6).items():
            monkeypatch.setenv(variable, value)
        point = ask(tribal, "reembed", "--all")["restore_point"]
        assert sorted(server.embedded.elements()) == sorted(about["missing"])
    now, then = held(store), expected(about["completed"])
    assert (now["memories"], now["forgotten"]) == (then["memories"], then["forgotten"])
    ask(tribal, "undo", point)
    assert held(store) == expected(about["holds"])


def test_a_killed_batch_is_completed_and_its_import_undone(tribal: Tribal, tmp_path: Path) -> None:
    about = FOLDERS["mid-batch"]
    store = unpack("mid-batch", tmp_path)
    assert held(store) == expected(about["holds"])
    ask(tribal, "undo", about["point"])
    assert held(store) == expected(about["undone"])


def test_a_killed_undo_is_continued_and_can_itself_be_undone(
    tribal: Tribal, tmp_path: Path
) -> None:
    about = FOLDERS["mid-undo"]
    store = unpack("mid-undo", tmp_path)
    assert ask(tribal, "undo", about["point"])["restore_point"] == about["undo"]
    assert held(store) == expected(about["undone"])
    ask(tribal, "undo", about["undo"])
    assert held(store) == expected(about["imported"])


@pytest.mark.parametrize("name", ["mid-batch", "mid-undo", "torn-index", "rebuilding", "switching"])
def test_a_repair_ends_what_was_begun(tribal: Tribal, tmp_path: Path, name: str) -> None:
    store = unpack(name, tmp_path)
    left = [kind for kind in FOLDERS[name]["problems"] if kind == "leftover"]
    assert ask(tribal, "check", "--repair", code=0)["done"]
    assert kinds(tribal, code=0) == left
    assert held(store) == expected(FOLDERS[name]["holds"])


@pytest.mark.parametrize("name", ["mid-batch", "mid-undo", "torn-index", "rebuilding"])
def test_a_rescue_saves_it_all_without_a_repair(tribal: Tribal, tmp_path: Path, name: str) -> None:
    unpack(name, tmp_path)
    said = ask(tribal, "rescue", "rescued.json")
    assert (said["lost_rows"], said["lost_vectors"]) == (0, 0)
    bundle = PortableBundle.from_dict(json.loads((tmp_path / "rescued.json").read_bytes()))
    state = expected(FOLDERS[name]["holds"])
    assert form(bundle) == state["memories"]
    assert {one.id: one.to_dict()["deleted_at"] for one in bundle.deleted} == state["forgotten"]


# Other programs


def test_vectors_of_another_program_are_what_it_wrote() -> None:
    about = FOLDERS["foreign"]
    read = memories(about["holds"]["memories"])
    for memory_id, written in about["written"].items():
        np.testing.assert_allclose(
            np.frombuffer(bytes.fromhex(json.loads(read[memory_id])["embedding"]), "<f4"),
            np.frombuffer(bytes.fromhex(written), "<f4"),
            rtol=1e-6,
        )
