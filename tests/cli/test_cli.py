"""The command line: what it prints, its exit codes and its help."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from filelock import FileLock

from tests.support.command_line import Tribal, plain, rows, write_bundle_with_an_invalid_entry
from tests.support.examples import memories, memory
from tests.support.mcp_client import write_bundle
from tribal_mcp import errors
from tribal_mcp.cli import main as cli
from tribal_mcp.services.jobs import JOBS
from tribal_mcp.services.requests import Request
from tribal_mcp.services.results.bundles import ExportResult, ImportResult
from tribal_mcp.services.results.store import StatsResult

ROOT = Path(__file__).parents[2]
COMMANDS = cli.app.commands


# Commands


def test_memories_move_from_one_store_to_another(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(Path("all.json"), memories(30))  # one an hour
    tribal("import", "all.json")

    dates = ("--from", "2026-01-01T20:00", "--to", "2026-01-01")
    made = tribal("export", "work.jsonl.zst", "--tag", "work", *dates)
    assert made.code == 0
    assert made.out.startswith("Exported 2 memories to work.jsonl.zst\n")
    assert rows(made.out)["model"] == "model-a, 8 dimensions, tests"

    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "other"))
    preview = tribal("import", "work.jsonl.zst", "--dry-run")
    assert preview.code == 0
    assert rows(preview.out) == {
        "new": "2", "overwritten": "0", "skipped": "0", "errors": "0", "vectors": "2 kept",
    }  # fmt: skip
    assert "Nothing was written. To import, run `tribal-mcp import work.jsonl.zst`." in preview.out
    assert tribal("stats").out.startswith("0 memories\n")

    real = tribal("import", "work.jsonl.zst")
    assert rows(real.out) == rows(preview.out) | {"restore point": rows(real.out)["restore point"]}
    stats = tribal("stats")
    assert stats.out.startswith("2 memories\n")
    assert rows(stats.out)["folder"] == str(tmp_path / "other")


def test_import_reports_each_reason_for_skipping_an_entry(tribal: Tribal) -> None:
    write_bundle(Path("here.json"), memories(3))
    write_bundle(Path("changed.json"), [memory(0, content="changed"), memory(1)])
    tribal("import", "here.json")
    kept = rows(tribal("import", "changed.json").out)
    assert kept["skipped"] == "2   1 identical, 1 different"
    merged = rows(tribal("import", "changed.json", "--on-conflict", "merge").out)
    assert merged["skipped"] == "2   1 identical, 1 conflicting"
    replaced = rows(tribal("import", "changed.json", "--on-conflict", "overwrite").out)
    assert (replaced["overwritten"], replaced["skipped"]) == ("1", "1   identical")
    back = rows(tribal("import", "here.json", "--on-conflict", "overwrite").out)
    assert (back["overwritten"], back["skipped"]) == ("1", "2   identical")


def test_import_counts_dropped_vectors_and_explains_the_consequence(tribal: Tribal) -> None:
    write_bundle(Path("all.json"), memories(3))
    dropped = tribal("import", "all.json", "--embeddings", "drop")
    assert rows(dropped.out)["vectors"] == "3 dropped"
    assert "no vector, so only keyword search finds them" in dropped.out
    assert rows(tribal("stats").out)["vectors"] == "3 memories have no vector"


def test_export_overwrites_an_existing_bundle_only_with_overwrite(tribal: Tribal) -> None:
    assert tribal("remember", "A memory.").code == 0
    assert tribal("export", "all.json").code == 0
    refused = tribal("export", "all.json")
    assert (refused.code, refused.out) == (2, "")
    assert "allow overwriting" in refused.err
    assert tribal("export", "all.json", "--overwrite").code == 0


def test_import_names_an_invalid_entry_and_imports_the_others(tribal: Tribal) -> None:
    write_bundle_with_an_invalid_entry(Path("bad.json"))
    done = tribal("import", "bad.json")
    assert done.code == errors.PartialImport.exit_code
    assert rows(done.out)["new"] == "2"
    assert rows(done.out)["errors"] == "1"
    assert "memory-1" in done.out
    assert "content is a number" in done.out


def test_import_lists_a_hundred_errors_and_counts_the_rest(tribal: Tribal) -> None:
    bundle = plain(150)
    for entry in bundle["entries"]:
        del entry["content"]
    Path("bad.json").write_text(json.dumps(bundle))
    done = tribal("import", "bad.json")
    assert done.out.count("content is missing") == 100
    assert "… and 50 more" in done.out


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (["export", "out.json"], ExportResult),
        (["import", "all.json", "--dry-run"], ImportResult),
        (["stats"], StatsResult),
    ],
    ids=["export", "import", "stats"],
)
def test_json_option_prints_the_whole_result_and_nothing_else(
    tribal: Tribal,
    arguments: list[str],
    model: type[ExportResult | ImportResult | StatsResult],
) -> None:
    write_bundle(Path("all.json"), memories(3))
    assert tribal("remember", "A memory.").code == 0
    done = tribal(*arguments, "--json")
    assert done.err == ""
    assert json.loads(done.out).keys() == model.model_fields.keys() - {"next_steps"}
    assert "tribal_" not in model.model_validate_json(done.out).next_step


# Exit codes


ENDS = {
    # arguments, exit code, part of the message
    "success": (["stats"], 0, ""),
    "an unknown command": (["imprt", "x.json"], 2, "import"),
    "an unknown option": (["import", "x.json", "--dryrun"], 2, "--dry-run"),
    "an unknown strategy": (["import", "x.json", "--on-conflict", "replace"], 2, "overwrite"),
    "a missing file": (["import", "gone.json"], 2, "'gone.json' does not exist"),
    "an invalid date": (["export", "a.json", "--from", "soon"], 2, "start date 'soon' is not"),
    "an unknown suffix": (["export", "a.txt"], 2, ".json"),
    "a directory": (["import", "folder.json"], 3, "'folder.json' is not a bundle"),
}


@pytest.mark.parametrize("case", ENDS)
def test_failures_have_an_exit_code_and_a_message(tribal: Tribal, case: str) -> None:
    arguments, code, message = ENDS[case]
    Path("folder.json").mkdir()
    done = tribal(*arguments)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err


def test_import_refuses_a_damaged_bundle(tribal: Tribal) -> None:
    write_bundle(Path("all.json"), memories(3))
    Path("all.json").write_bytes(Path("all.json").read_bytes().replace(b"number 1", b"number 9"))
    done = tribal("import", "all.json")
    assert done.code == errors.BundleError.exit_code
    assert "Nothing was imported" in done.err
    assert tribal("stats").out.startswith("0 memories")


def test_strict_import_refuses_a_bundle_with_one_invalid_entry(tribal: Tribal) -> None:
    write_bundle_with_an_invalid_entry(Path("bad.json"))
    assert tribal("import", "bad.json", "--strict").code == errors.BundleError.exit_code
    assert tribal("stats").out.startswith("0 memories")


def test_export_gives_up_when_the_store_stays_locked(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(Path("all.json"), memories(3))
    tribal("import", "all.json")
    monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "0.1")
    with FileLock(tmp_path / "store" / "tribal-mcp" / "lock"):
        done = tribal("export", "out.json")
    assert done.code == errors.StoreLocked.exit_code
    assert "in use by" in done.err
    assert not Path("out.json").exists()


def test_import_reports_a_full_disk(tribal: Tribal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(NamedTuple):
        free: int = 0

    write_bundle(Path("all.json"), memories(3))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Full())
    done = tribal("import", "all.json")
    assert done.code == errors.NoSpace.exit_code
    assert "Free some space" in done.err


def test_a_bug_keeps_its_traceback(tribal: Tribal, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setitem(JOBS, "stats", (Request, broken))
    with pytest.raises(ZeroDivisionError):
        tribal("stats")


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_options_have_help_and_are_documented(name: str) -> None:
    docs = (ROOT / "docs" / "commands.md").read_text()
    assert COMMANDS[name].help
    assert f"tribal-mcp {name}" in docs
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in docs, parameter.opts[0]


def test_commands_named_in_messages_and_docs_exist() -> None:
    pages = [
        *(ROOT / "tribal_mcp").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
    ]
    named = {
        name for page in pages for name in re.findall("`tribal-mcp ([a-z]+)", page.read_text())
    }
    assert named
    assert named <= COMMANDS.keys()


def test_unprintable_characters_are_escaped(tribal: Tribal) -> None:
    bundle = plain(2)
    bundle["entries"][0] |= {"id": "\x1b[2J\u202ehidden", "tags": "x"}
    bundle["manifest"]["embedding"]["model_name"] = "model\x1b]0;owned\x07"
    Path("evil.json").write_text(json.dumps(bundle))
    printed = tribal("import", "evil.json").out + tribal("stats").out
    assert "model" in printed
    assert re.findall(r"[^\n\w\s.,:;'`()\"/\\\[\]…-]", printed) == []


def test_export_prints_file_names_that_are_not_utf_8(tribal: Tribal) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    assert tribal("remember", "A memory.").code == 0
    assert tribal("export", name).code == 0
    assert Path(name).exists()


@pytest.mark.parametrize("dry_run", [["--dry-run"], []], ids=["dry run", "real"])
def test_an_import_prints_how_many_memories_it_deletes(tribal: Tribal, dry_run: list[str]) -> None:
    tribal("remember", "Likes tea.")
    tribal("export", "backup.json")
    tribal("remember", "Likes cake.")
    ran = tribal("import", "backup.json", "--on-conflict", "mirror", *dry_run)
    assert re.search(r"^  deleted +1 memory$", ran.out, re.MULTILINE), ran
