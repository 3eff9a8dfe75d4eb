"""The commands remember, recall, forget and stats."""

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import Tribal, rows
from tests.support.examples import memories, memory
from tests.support.mcp_client import write_bundle


def test_remember_correct_recall_and_forget_a_memory(tribal: Tribal) -> None:
    first = tribal("remember", "Takes tea without milk", "--tag", "home", "--tag", "tea")
    assert (first.code, first.out.splitlines()[0]) == (0, "Stored")
    assert "Note: Stored without an embedding: keyword search finds it" in first.out
    tea = rows(first.out)["id"]
    again = tribal("remember", "Takes tea without milk")
    assert again.out.startswith("Already stored\n")
    assert "tagged 'home', 'tea'" in again.out
    second = tribal("remember", "With milk, since May", "--supersedes", tea, "--confidence", "0.9")
    milk = rows(second.out)["id"]
    assert rows(second.out)["corrects"] == tea

    recalled = tribal("recall", "how", "does", "tea", "go")
    assert recalled.out.startswith("2 memories (keyword search)\n")
    lines = [line.strip() for line in recalled.out.splitlines()]
    assert lines[2] == "-      With milk, since May"
    assert lines[3].startswith(milk)
    assert re.fullmatch(r"\d\.\d\d +Takes tea without milk", lines[4])
    assert re.fullmatch(rf"{tea}, \d{{4}}-\d\d-\d\d, home, tea", lines[5])
    assert lines[6] == f"out of date: superseded by {milk}"
    assert "`tribal-mcp remember TEXT --supersedes ID`" in recalled.out
    assert "tribal_" not in recalled.out

    dry = tribal("forget", milk, "nobody", "--dry-run")
    assert dry.out.startswith("Dry run: deletion of 1 memory\n")
    assert rows(dry.out) == {"deleted": milk, "not found": "nobody", "current again": tea}
    assert f"Nothing was deleted. To delete, run `tribal-mcp forget {milk}`." in dry.out
    gone = tribal("forget", milk)
    assert gone.out.startswith("Deleted 1 memory\n")
    point = rows(gone.out)["restore point"]
    assert f"`tribal-mcp undo {point}`" in gone.out
    assert "With milk" not in tribal("recall", "milk").out
    assert "forget by id: 1 forgotten" in tribal("history").out
    assert tribal("undo", point).code == 0
    assert "With milk" in tribal("recall", "milk").out


def test_recall_filters_by_tag_and_date(tribal: Tribal) -> None:
    write_bundle(Path("all.json"), memories(30))
    tribal("import", "all.json")
    out = tribal("recall", "memory", "--tag", "work", "--from", "2026-01-02", "--count", "2").out
    assert out.startswith("2 memories (keyword search)\n")
    assert set(re.findall(r"Memory number (\d+)", out)) == {"25", "27"}
    nothing = tribal("recall", "memory", "--to", "2025")
    assert nothing.code == 2
    assert "The end date '2025' is not an ISO 8601 date" in nothing.err
    nothing = tribal("recall", "memory", "--to", "2025-12-31")
    assert nothing.out.startswith("0 memories (keyword search)\n")
    assert "Found nothing in memories created before" in nothing.out


def test_memories_are_listed_page_by_page_and_shown_complete(tribal: Tribal) -> None:
    write_bundle(Path("all.json"), memories(45))
    tribal("import", "all.json")
    first = tribal("list")
    assert first.out.startswith("20 of 45 memories\n")
    assert re.findall(r"Memory number (\d+)", first.out) == [str(n) for n in range(44, 24, -1)]
    assert "`tribal-mcp list --page 2`" in first.out
    last = tribal("list", "--page", "3")
    assert re.findall(r"Memory number (\d+)", last.out) == [str(n) for n in range(4, -1, -1)]
    assert "next page" not in last.out
    tagged = tribal("list", "--tag", "work", "--count", "2", "--from", "2026-01-01")
    assert "`tribal-mcp list --tag work --from 2026-01-01 --page 2 --count 2`" in tagged.out
    assert "There are only 3 pages." in tribal("list", "--page", "9").out

    text = "A long text. " * 500
    said = json.loads(tribal("remember", text, "--tag", "home", "--json").out)
    shown = tribal("show", said["id"])
    assert shown.code == 0
    assert text.strip() in shown.out
    assert rows(shown.out)["tags"] == "home"
    assert json.loads(tribal("show", "memory-3", "--json").out)["content"] == "Memory number 3"
    nobody = tribal("show", "nobody")
    assert nobody.code == 2
    assert "'nobody' is not in /" in nobody.err
    assert "`tribal-mcp list`" in nobody.err


def test_an_empty_list_names_the_store(tribal: Tribal) -> None:
    out = tribal("list").out
    assert out.startswith("No memories\n")
    assert re.search(r"Note: There is no memory store in /\S+ yet\.", out)
    assert "To store a memory, run `tribal-mcp remember TEXT`." in out


def test_every_command_can_name_the_store(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    tribal("remember", "In the default store")
    monkeypatch.setenv("TRIBAL_CHROMA_URL", "http://127.0.0.1:9")
    place = ("--data-dir", str(other), "--collection", "work")
    said = tribal("remember", "In the other store", *place)
    assert f"--data-dir {other} --collection work`" in said.out
    assert "In the other store" in tribal("list", *place).out
    monkeypatch.delenv("TRIBAL_CHROMA_URL")
    out = tribal("list").out
    assert "In the default store" in out
    assert "In the other store" not in out


def test_where_shows_each_setting_with_its_source(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_COLLECTION", "notes")
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "very-secret")
    shown = tribal("where", "--data-dir", str(tmp_path / "x"))
    assert shown.out.startswith(f"Memories are in {tmp_path / 'x'}\n")
    found = rows(shown.out)
    assert found["TRIBAL_DATA_DIR"] == f"{tmp_path / 'x'}  (option)"
    assert found["TRIBAL_COLLECTION"] == "notes  (environment)"
    assert found["TRIBAL_CHROMA_TOKEN"] == "(set)  (environment)"  # noqa: S105
    assert found["TRIBAL_RESTORE_POINTS"] == "20  (default)"
    assert "very-secret" not in shown.out + tribal("where", "--json").out
    assert "env block" in shown.out


def test_json_option_prints_only_the_result(tribal: Tribal) -> None:
    said = json.loads(tribal("remember", "Likes tea", "--json").out)
    found = json.loads(tribal("recall", "tea", "--json").out)
    assert found["hits"][0]["id"] == said["id"]
    assert json.loads(tribal("forget", said["id"], "--json").out)["forgotten"] == [said["id"]]


def test_stats_show_counts_size_and_last_export(tribal: Tribal) -> None:
    write_bundle(Path("all.json"), [*memories(3), memory(3, embedding=None)])
    tribal("import", "all.json")
    tribal("export", "work.json", "--tag", "work")
    tribal("forget", "memory-0")
    found = rows(tribal("stats").out)
    assert found["tags"] == "work 2, home 1"
    assert found["sources"] == "auto_capture 3"
    assert found["months"] == "2026-01 3"
    assert found["tombstones"] == "1"
    assert re.fullmatch(r"[\d.]+ [kM]B", found["size"])
    path = str(Path("work.json").absolute())
    assert found["last export"].endswith(f"memories tagged 'work' (2), {path}")


def test_recall_without_words_lists_the_newest(tribal: Tribal) -> None:
    tribal("remember", "We deploy from the branch called release")
    assert "1 memory (no query, so the newest)" in tribal("recall", " ").out


def test_recall_escapes_hidden_characters(tribal: Tribal) -> None:
    tribal("remember", "Likes\x1b[2J tea\u202e now")
    out = tribal("recall", "tea").out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"Likes\x1b[2J tea\u202e now" in out
    assert "hidden characters: U+001B (1), U+202E RIGHT-TO-LEFT OVERRIDE (1)" in out


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["remember", " "], 2, "content is empty"),
        (["remember", "x", "--supersedes", "y"], 2, "There is no memory 'y' to supersede."),
        (["remember", "x", "--confidence", "7"], 2, "--confidence"),
        (["recall", "x", "--count", "99"], 2, "--count"),
        (["recall", "x", "--from", "soon"], 2, "not an ISO 8601 date"),
        (["forget"], 2, "ID"),
    ],
)
def test_invalid_arguments_have_an_exit_code_and_a_message(
    tribal: Tribal, arguments: list[str], code: int, why: str
) -> None:
    done = tribal(*arguments)
    assert (done.code, done.out) == (code, "")
    assert why in done.err


def test_a_bundle_is_not_replaced_by_a_much_smaller_one(tribal: Tribal, tmp_path: Path) -> None:
    write_bundle(Path("all.json"), memories(30))
    tribal("import", "all.json")
    assert tribal("export", "backup.json").code == 0
    whole = Path("backup.json").read_bytes()
    assert tribal("export", "backup.json", "--overwrite").code == 0
    smaller = tribal("export", "backup.json", "--overwrite", "--to", "2026-01-01T05:00")
    assert smaller.code == 2
    assert "has 30 memories, and the new one would have 5" in smaller.err
    other = tribal("export", "backup.json", "--overwrite", "--data-dir", str(tmp_path / "none"))
    assert other.code != 0
    assert len(Path("backup.json").read_bytes()) == len(whole)
    allowed = ("--overwrite", "--allow-smaller", "--to", "2026-01-01T05:00")
    assert tribal("export", "backup.json", *allowed).code == 0
    assert len(Path("backup.json").read_bytes()) < len(whole)


def test_the_next_steps_of_an_error_name_the_store_and_those_for_another_store_do_not(
    tribal: Tribal, tmp_path: Path
) -> None:
    place = ("--data-dir", str(tmp_path / "other"), "--collection", "work")
    tribal("remember", "Tea", *place)
    shown = tribal("show", "nobody", *place)
    assert shown.code == 2
    assert f"`tribal-mcp list --data-dir {tmp_path / 'other'} --collection work`" in shown.err
    out = tribal("export", str(tmp_path / "a.json"), *place).out
    assert f"`tribal-mcp import {tmp_path / 'a.json'} --dry-run` there" in out
    rescued = tribal("rescue", str(tmp_path / "b.json"), *place).out
    assert f"`tribal-mcp import {tmp_path / 'b.json'} --data-dir FOLDER`" in rescued


def test_a_dry_run_marks_the_text_of_another_memory_and_says_how_to_leave_it_out(
    tribal: Tribal, tmp_path: Path
) -> None:
    line = '{"id":"%s","content":"Deploys run from release only","created_at":"2026-01-01"}'
    for name in ("agent1", "agent2"):
        (tmp_path / f"{name}.jsonl").write_text(line % name)
    tribal("import", "agent1.jsonl")
    dry = tribal("import", "agent2.jsonl", "--dry-run").out
    assert rows(dry)["same text"] == "1 of the new, with another memory's text"
    assert "insert agent2  “Deploys run from release only” (the text of another memory)" in dry
    assert "`tribal-mcp import agent2.jsonl --skip-same-text`" in dry
    assert rows(tribal("import", "agent2.jsonl", "--skip-same-text").out)["skipped"] == (
        "1   same text"
    )
    assert "agent2" not in tribal("list").out
