"""What to do next, as command lines that can be pasted."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import click

from tribal_mcp.next_steps import NextStep, in_words

Commands = Mapping[str, click.Command]


def in_store(steps: Iterable[NextStep], store: Mapping[str, str]) -> list[NextStep]:
    """The steps for the store whose options the running command was given: they repeat them."""
    return [
        step if step.elsewhere else replace(step, arguments={**step.arguments, **store})
        for step in steps
    ]


def in_commands(steps: Iterable[NextStep], commands: Commands) -> list[str]:
    """Each step as a sentence, with its command line in backticks."""
    return [
        in_words([step], lambda action, given: f"`{command_line(commands[action], given)}`")
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
