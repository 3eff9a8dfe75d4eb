"""What to do next, as values that each interface renders in its own terms."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NextStep:
    """One sentence, with the use case it recommends.

    Attributes:
        text: a sentence; `{call}` marks the place of the call.
        action: the use case, by its name in `services.jobs.JOBS`; empty if there is none.
        arguments: its arguments, by the names of its request. A value `...` is for the user to
            fill in.
        elsewhere: it is for another store than the one that was used.
    """

    text: str
    action: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: bool = False


def to_json(steps: Iterable[NextStep]) -> list[list[Any]]:
    """The steps as JSON values; `...` becomes null, which no argument of a use case can be."""
    return [
        [
            step.text,
            step.action,
            {name: None if value is ... else value for name, value in step.arguments.items()},
        ]
        for step in steps
    ]


def from_json(steps: Iterable[list[Any]]) -> list[NextStep]:
    """The steps that `to_json` wrote."""
    return [
        NextStep(
            text,
            action,
            {name: ... if value is None else value for name, value in arguments.items()},
        )
        for text, action, arguments in steps
    ]


def in_words(steps: Iterable[NextStep], as_call: Callable[[str, Mapping[str, Any]], str]) -> str:
    """The steps as one paragraph.

    Args:
        steps: in the order to read them.
        as_call: renders an action and its arguments so that a user can paste it.
    """
    return " ".join(
        step.text.replace("{call}", as_call(step.action, step.arguments))
        if step.action
        else step.text
        for step in steps
    )


def as_command(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as a command, for the servers, which do not offer all of them."""
    words = ["tribal-mcp", action]
    for name, value in arguments.items():
        if name in {"input_path", "output_path", "path"}:
            words.append("FILE" if value is ... else shlex.quote(str(value)))
        elif action == "sync" and name in {"folder", "name", "remove_machine"}:
            words += [f"--{name.replace('_', '-')}"] * (name != "folder")
            words.append(name.upper() if value is ... else shlex.quote(str(value)))
        elif value is True:
            words.append(f"--{name.replace('_', '-')}")
    return f"`{' '.join(words)}` on the command line"
