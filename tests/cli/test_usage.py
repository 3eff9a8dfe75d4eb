"""Help pages, usage errors, and next steps as commands."""

import re
import shlex
from typing import Any

import pytest

from tests.support.command_line import Tribal
from tribal_mcp.cli.main import app
from tribal_mcp.cli.next_steps import command_line, in_commands
from tribal_mcp.cli.usage import Choice
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import ConflictResolution, MemorySource, ReembeddingStrategy

COMMANDS = app.commands


def test_help_lists_commands_in_the_order_of_use(tribal: Tribal) -> None:
    out = tribal("-h").out
    listed = re.findall(r"^  ([a-z]+) +\S.*\.$", out, re.MULTILINE)
    assert listed == [
        "remember", "recall", "list", "show", "forget", "export", "import", "backup", "restore",
        "undo", "history", "discover", "stats", "where", "copy", "sync", "setup", "keygen",
        "reembed", "check", "rescue", "serve",
    ]  # fmt: skip
    assert "`tribal-mcp where`" in out


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_complete_and_readable(
    tribal: Tribal, monkeypatch: pytest.MonkeyPatch, name: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    short, long = (tribal(*name.split(), option) for option in ("-h", "--help"))
    assert (short.code, short.err) == (0, "")
    assert short.out == long.out
    assert max(map(len, short.out.splitlines())) <= int(columns)
    assert not re.findall(r"[{}<>]|\.\.\.(?=\n  )", short.out)
    assert "…" not in short.out


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("import", "conflict_resolution", set(ConflictResolution)),
        ("import", "embedding_strategy", set(ReembeddingStrategy)),
        (
            "remember",
            "source_type",
            set(MemorySource) - {MemorySource.LEGACY, MemorySource.UNKNOWN},
        ),
    ],
)
def test_options_offer_every_choice(command: str, option: str, values: set[str]) -> None:
    [found] = [p.type for p in COMMANDS[command].params if p.name == option]
    assert isinstance(found, Choice)
    assert found.meanings.keys() == values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("imprt x.json", "There is no command 'imprt'. Did you mean import?"),
        ("import x.json --dryrun", "There is no option --dryrun. Did you mean --dry-run?"),
        ("import x.json --xyz", "There is no option --xyz."),
        ("--verson", "There is no option --verson. Did you mean --version?"),
        ("import", "Missing argument: PATH."),
        ("forget", "Missing argument: ID."),
        ("import x.json y.json", "Unexpected argument: 'y.json'."),
        ("stats all", "Unexpected argument: 'all'."),
        ("export x.json --tag", "--tag needs a value."),
        ("import x.json --strict=yes", "--strict takes no value."),
        ("recall x --count 99", "--count: '99' is not a whole number from 1 to 20."),
        ("recall x --count many", "--count: 'many' is not a whole number from 1 to 20."),
        ("remember x --confidence nan", "--confidence: 'nan' is not a number from 0 to 1."),
        (
            "import x.json --on-conflict newest",
            (
                "--on-conflict: 'newest' is not one of skip, overwrite, merge, keep_both, "
                "fail, mirror."
            ),
        ),
    ],
)
def test_usage_errors_say_what_is_wrong_and_where_to_read_more(
    tribal: Tribal, arguments: str, message: str
) -> None:
    words = arguments.split()
    done = tribal(*words)
    page = f"tribal-mcp {words[0]} -h" if words[0] in COMMANDS else "tribal-mcp -h"
    assert (done.code, done.out) == (2, "")
    assert done.err == f"tribal-mcp: {message} For help, run `{page}`.\n"


@pytest.mark.parametrize(
    ("action", "given", "line"),
    [
        ("undo", {"point": "20261125-1"}, "tribal-mcp undo 20261125-1"),
        ("undo", {}, "tribal-mcp undo"),
        ("import", {"input_path": "my x.json", "dry_run": False}, "tribal-mcp import 'my x.json'"),
        (
            "import",
            {"input_path": "x.json", "conflict_resolution": "merge", "dry_run": True},
            "tribal-mcp import x.json --on-conflict merge --dry-run",
        ),
        (
            "import",
            {"input_path": "x.json", "embedding_strategy": "auto"},
            "tribal-mcp import x.json",
        ),
        (
            "export",
            {"output_path": ..., "tags": ["a", "b"]},
            "tribal-mcp export PATH --tag a --tag b",
        ),
        ("remember", {"supersedes": "7"}, "tribal-mcp remember TEXT --supersedes 7"),
        ("remember", {"content": "- x"}, "tribal-mcp remember -- '- x'"),
        ("recall", {"query": "which tea?", "count": 1}, "tribal-mcp recall 'which tea?' --count 1"),
        ("forget", {"ids": ["a", "b"]}, "tribal-mcp forget a b"),
        ("reembed", {"all": True}, "tribal-mcp reembed --all"),
        ("check", {"repair": True}, "tribal-mcp check --repair"),
        ("copy", {"target": "cloud"}, "tribal-mcp copy --to cloud"),
    ],
)
def test_next_steps_are_commands_that_can_be_pasted(
    action: str, given: dict[str, Any], line: str
) -> None:
    assert command_line(COMMANDS[action], given) == line
    program, name, *words = shlex.split(line)
    assert program == "tribal-mcp"
    COMMANDS[name].make_context(name, words)


def test_next_steps_without_an_action_are_plain_sentences() -> None:
    steps = [NextStep("Check the disk."), NextStep("Then run {call}.", "check")]
    assert in_commands(steps, COMMANDS) == ["Check the disk.", "Then run `tribal-mcp check`."]
