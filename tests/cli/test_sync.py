"""`tribal-mcp sync` as a user sees it."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import Tribal
from tests.support.mcp_client import SERVER, write_many
from tests.support.mounts import read_only_mount


def test_two_machines_share_their_memories(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    there = ("--data-dir", "other")
    write_many(tmp_path / "some.json", 3)
    tribal("import", "some.json")
    first = tribal("sync", "shared", "--name", "laptop")
    assert (first.code, first.err) == (0, "")
    assert "published   3" in first.out
    plan = tribal("sync", "shared", "--name", "desktop", "--dry-run", *there)
    assert plan.out.startswith("Dry run: sync with")
    assert "others      laptop" in plan.out
    done = tribal("sync", "shared", "--name", "desktop", *there)
    assert "added           3" in done.out
    assert json.loads(tribal("stats", "--json", *there).out)["count"] == 3
    assert "sync shared: 3 added" in tribal("history", *there).out


def test_a_file_that_can_not_be_used_is_named_with_exit_code_4(
    tribal: Tribal, tmp_path: Path
) -> None:
    folder = tmp_path / "shared" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "00000001-0123456789abcdef.jsonl.zst").write_bytes(b"damaged")
    ran = tribal("sync", "shared")
    assert ran.code == 4
    assert "damaged     0123456789abcdef/00000001-0123456789abcdef.jsonl.zst" in ran.out
    assert "Delete any other, so that its content arrives again." in " ".join(ran.out.split())


def test_a_wrong_folder_is_an_error(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not exist" in tribal("sync", "nowhere").err
    assert "TRIBAL_SYNC_DIR" in tribal("sync").err
    assert "is not UTF-8" in tribal("sync", "\udcff").err
    tribal("remember", "one", "--data-dir", "data")
    for data in ("data", "other"):
        assert "data folder" in tribal("sync", "data", "--data-dir", data).err
    (tmp_path / "file").touch()
    assert "is a file" in tribal("sync", "file").err
    assert "store of this machine" in tribal("sync", ".", "--data-dir", "data").err
    (tmp_path / "shared").mkdir()
    tribal("keygen", "shared/key")
    monkeypatch.setenv("TRIBAL_AGE_IDENTITY", str(tmp_path / "shared" / "key"))
    assert "everybody could read the folder with it" in tribal("sync", "shared").err


def test_the_first_machine_in_a_folder_and_a_mistyped_tag_are_noted(
    tribal: Tribal, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    tribal("remember", "one", "--tag", "team")
    ran = tribal("sync", "shared", "--tag", "taem", "--dry-run")
    assert "memories tagged 'taem'" in ran.out
    assert "No memory here is tagged 'taem', so nothing was published" in ran.out
    first = tribal("sync", "shared").out
    assert "shared      all memories" in first
    assert "first machine in this folder" in first
    assert "first machine" not in tribal("sync", "shared").out


def test_two_collections_of_a_data_folder_in_one_shared_folder_are_noted(
    tribal: Tribal, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    tribal("remember", "one")
    tribal("sync", "shared")
    for text in ("two", "three"):
        tribal("remember", text, "--collection", "notes")
    plan = tribal("sync", "shared", "--collection", "notes", "--dry-run").out
    assert "The collection 'memories' of this data folder is synced with this folder, too" in plan
    tribal("sync", "shared", "--collection", "notes")
    assert "collections" not in tribal("sync", "shared", "--collection", "notes").out.split()


def test_a_subfolder_in_capital_letters_is_to_be_renamed(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared" / "0123456789ABCDEF").mkdir(parents=True)
    (tmp_path / "shared" / "0123456789ABCDEF" / "00000001-0123456789abcdef.jsonl.zst").touch()
    assert "is not used. Rename it to '0123456789abcdef'." in tribal("sync", "shared").out


def test_a_data_folder_that_can_not_be_written_to_is_named(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    tribal("remember", "one", "--data-dir", "data")
    with read_only_mount(tmp_path / "data"):
        ran = tribal("sync", "shared", "--data-dir", "data")
    assert ran.code == 5
    assert f"'{tmp_path / 'data' / 'tribal-mcp' / 'sync'}' can't be used" in ran.err
    assert "Nothing was changed. Check the data folder" in ran.err


def test_options_that_find_or_do_nothing_say_so(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    assert "There is nothing to withdraw" in tribal("sync", "shared", "--operations").out
    ran = tribal("sync", "shared", "--watch", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert "--watch syncs, and --dry-run changes nothing" in ran.err


def test_an_empty_folder_instead_of_the_shared_one_is_noted(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    tribal("remember", "one")
    tribal("sync", "shared")
    (tmp_path / "shared").rename(tmp_path / "elsewhere")
    (tmp_path / "shared").mkdir()
    assert "none of the files that were in it" in tribal("sync", "shared").out


def test_a_conflict_shows_what_differs_in_each_version(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    there = ("--data-dir", "other")
    for context, where in (("at work", there), ("at home", ())):
        entry = {"id": "colour", "memory": "blue", "context": context}
        (tmp_path / "some.json").write_text(json.dumps([entry]))
        tribal("import", "some.json", *where)
        tribal("sync", "shared", *where)
    shown = tribal("sync", "shared", "--conflicts").out
    assert "visible     blue\n              context: at " in shown
    assert {"at home", "at work"} == set(re.findall("context: (.*)", shown))
    assert "Which conflict to resolve is not given" in tribal("sync", "shared", "--take", "1").err
    assert tribal("sync", "shared", "--resolve", "colour", "--take", "0").code == 2
    unknown = tribal("sync", "shared", "--resolve", "color").err
    assert "run `tribal-mcp sync shared --conflicts`" in unknown.replace(f"{tmp_path}/", "")
    assert "resolved    1" in tribal("sync", "shared", "--resolve", "colour").out


def test_a_list_of_conflicts_that_is_not_complete_says_so(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    for text, where in (("blue", ("--data-dir", "other")), ("green", ())):
        entries = [{"id": name, "memory": text} for name in ("colour", "shape")]
        (tmp_path / "some.json").write_text(json.dumps(entries))
        tribal("import", "some.json", *where)
        tribal("sync", "shared", *where)
    assert "not listed" not in tribal("sync", "shared", "--conflicts").out
    monkeypatch.setattr("tribal_mcp.services.sync.report._CONFLICTS", 1)
    assert "1 more conflict is not listed" in tribal("sync", "shared", "--conflicts").out


def test_encryption_that_has_no_key_is_not_kept(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    assert "as an option" in tribal("sync", "shared", "--encrypt").err
    assert tribal("sync", "shared").code == 0


def test_watching_goes_on_and_prints_what_was_done(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    write_many(tmp_path / "some.json", 2)
    tribal("import", "some.json")
    waits = iter((0, 0, 1))

    def wait(_seconds: float) -> None:
        if next(waits):
            raise KeyboardInterrupt
        tribal_other("remember", "later")

    def tribal_other(*words: str) -> None:
        subprocess.run([SERVER, *words], check=True, capture_output=True)

    monkeypatch.setattr("tribal_mcp.cli.store.time.sleep", wait)
    ran = tribal("sync", "shared", "--watch")
    assert ran.code == 130
    assert re.findall("published +([0-9]+)", ran.out) == ["2", "1"]  # the second "later" is known


def test_watching_resolves_a_conflict_only_once(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    there = ("--data-dir", "other")
    for text, where in (("blue", there), ("green", ())):
        (tmp_path / "some.json").write_text(json.dumps([{"id": "colour", "memory": text}]))
        tribal("import", "some.json", *where)
        tribal("sync", "shared", *where)
    assert "before the first sync\n" in tribal("sync", "shared", "--conflicts").out  # not in 1970
    waits = iter((0, 1))

    def wait(_seconds: float) -> None:
        if next(waits):
            raise KeyboardInterrupt
        subprocess.run([SERVER, "remember", "later"], check=True, capture_output=True)

    monkeypatch.setattr("tribal_mcp.cli.store.time.sleep", wait)
    ran = tribal("sync", "shared", "--watch", "--resolve", "colour")
    assert "no conflict" not in ran.err
    assert len(re.findall("published +1", ran.out)) == 2


def test_watching_names_what_lasts_once(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    damaged = shared / "0123456789abcdef" / "00000001-0123456789abcdef.jsonl.zst"
    steps = iter(("damage", "", "away", "", "back", ""))

    def wait(_seconds: float) -> None:
        match next(steps, None):
            case "damage":
                damaged.parent.mkdir()
                damaged.write_bytes(b"damaged")
            case "away":
                shared.rename(tmp_path / "elsewhere")
            case "back":
                (tmp_path / "elsewhere").rename(shared)
            case None:
                raise KeyboardInterrupt

    monkeypatch.setattr("tribal_mcp.cli.store.time.sleep", wait)
    ran = tribal("sync", "shared", "--watch")
    assert ran.out.count("(incomplete or altered: not used)") == 2  # before and after it was away
    assert ran.err.count("does not exist") == 1
