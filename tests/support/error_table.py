"""The list of errors in docs/errors.md, generated from the classes.

`python -m tests.support.error_table` writes it into the page.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

from tribal_mcp import errors
from tribal_mcp.errors import TribalError
from tribal_mcp.http_api.problems import response_of

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
_BEGIN, _END = "<!-- generated: errors -->\n", "<!-- end -->\n"


def documented(kind: type[TribalError] = TribalError) -> Iterator[type[TribalError]]:
    """The errors of `tribal_mcp.errors` below one of them, in their order there."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from documented(child)


def meaning(kind: type[TribalError]) -> str:
    """What the error says, in one sentence."""
    return inspect.getdoc(kind).partition("\n")[0]  # type: ignore[union-attr]


def tree(kind: type[TribalError] = TribalError, indent: str = "") -> Iterator[str]:
    """The lines of the tree in the docstring of `tribal_mcp.errors`."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    for child in children:
        last = child is children[-1]
        name = f"{indent}{'└── ' if last else '├── '}{child.__name__}"
        yield f"{name:24}{child.exit_code:4}{child.http_status:6}   {meaning(child)}"
        yield from tree(child, indent + ("    " if last else "│   "))


def table() -> str:
    """The Markdown table: one error a row, as the interfaces show it."""
    rows = ["| error | exit code | HTTP status | HTTP `code` | meaning |", "|---|---|---|---|---|"]
    for kind in documented():
        parent = kind.__base__
        name = f"`{kind.__name__}`"
        if parent is not TribalError and parent is not None:
            name += f", a `{parent.__name__}`"
        answer = response_of(kind("Something is wrong."))
        code = bytes(answer.body).decode().partition('"code":"')[2].partition('"')[0]
        status = answer.status_code
        rows.append(f"| {name} | {kind.exit_code} | {status} | `{code}` | {meaning(kind)} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with the table between its marks replaced."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
