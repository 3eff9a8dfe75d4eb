"""Every option of every command, misspelled, given twice or in the wrong place: nothing is done."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.command_line import Tribal
from tests.support.wrong_values import misspelled
from tribal_mcp.cli import main as cli

COMMANDS = cli.app.commands
VALID = {"import": ["new.json"], "export": ["new.json"], "rescue": ["new.json"]}
"""Arguments with which a command would do something."""


def options_of(command: click.Command) -> list[click.Option]:
    """The options of a command that are its own."""
    return [p for p in command.params if isinstance(p, click.Option)]


def words_of(command: click.Command) -> list[str]:
    """Values for its arguments, of which there may be none."""
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    return VALID.get(str(command.name), ["x"] * sum(p.required for p in arguments))


def cases_of(command: click.Command) -> Iterator[list[str]]:
    """What the command refuses."""
    name, words = str(command.name), words_of(command)
    options = options_of(command)
    own = {flag for option in options for flag in option.opts}
    for option in options:
        flag = option.opts[-1]
        typo = misspelled(flag)
        if typo not in own:
            yield [name, *words, typo, *([] if option.is_flag else ["x"])]
        yield [name, *words, flag.upper(), *([] if option.is_flag else ["x"])]
        yield [flag, *([] if option.is_flag else ["x"]), name, *words]  # before the command
        if option.is_flag:
            yield [name, *words, f"{flag}=true"]
            yield [name, *words, f"{flag}=false"]
            yield [name, *words, f"--no-{flag[2:]}"]
            if not any(isinstance(p, click.Argument) and p.nargs == -1 for p in command.params):
                full = words if name != "undo" else ["point"]
                yield [name, *full, "--", flag]  # as an argument
        else:
            yield [name, *words, flag]  # without a value
            if not option.multiple:
                value = "1" if option.type.name == "number" else "skip"
                yield [name, *words, flag, value, flag, value]
        if option.type.name in {"number", "value"}:
            wrong = ["x", "1e3", "-1", "0x1", "1_000_000_000_000", "٣", "nan", "inf"]
            yield from ([name, *words, flag, value] for value in wrong)
    foreign = {f for c in COMMANDS.values() for o in options_of(c) for f in o.opts} - own
    yield from ([name, *words, flag] for flag in sorted(foreign))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_wrong_option_is_taken_and_nothing_is_done(
    name: str, tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tribal_mcp.http_api.server.serve_http", lambda *_: None)
    (tmp_path / "new.json").write_text("{}")
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    problems = {}
    cases = list(cases_of(COMMANDS[name]))
    for words in cases:
        ran = tribal(*words)
        if ran.code != 2 or ran.out or not ran.err.startswith("tribal-mcp: "):
            problems[" ".join(words)] = (ran.code, ran.err[:200])
    assert problems == {}, json.dumps(problems, indent=2, ensure_ascii=False)
    assert len(cases) > 20
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
