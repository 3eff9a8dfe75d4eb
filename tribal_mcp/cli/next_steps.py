"""What to do next, as command lines that can be pasted."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import click

from tribal_mcp.next_steps import NextStep, in_words

Commands = Mapping[str, click.Command]


def in_commands(
    steps: Iterable[NextStep], commands: Commands, store: Mapping[str, str] | None = None
) -> list[str]:
    """Each step as a sentence, with its command line in backticks.

    Args:
        steps: what to do next.
        commands: by name.
        store: the options for the store that the running command was given, to repeat them.
    """
    return [
        in_words(
            [step],
            lambda action, given: f"`{command_line(commands[action], {**given, **(store or {})})}`",
        )
        for step in steps
    ]


def command_line(command: click.Command, given: Mapping[str, Any]) -> str:
    """The command line that passes these arguments.

    Args:
        command: of the action.
        given: by the names of the parameters, which are those of the request; `...` is rendered as
            the name of a value to fill in. Defaults are left out.
    """
    operands: list[str] = []
    options: list[str] = []
    for parameter in command.params:
        value = given.get(parameter.name or "", ... if parameter.required else None)
        if value is None or value is False or value in ("", [], (), parameter.default):
            continue
        if isinstance(parameter, click.Argument):
            operands += _words(parameter, value)
        elif value is True:
            options.append(parameter.opts[0])
        else:
            for word in _words(parameter, value):
                options += [parameter.opts[0], word]
    if any(operand.startswith("-") for operand in operands):
        options, operands = [], [*options, "--", *operands]
    return shlex.join(["tribal-mcp", str(command.name), *operands, *options])


def _words(parameter: click.Parameter, value: object) -> list[str]:
    if value is ...:
        return [parameter.metavar or "VALUE"]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [str(one) for one in values]
