"""Next steps in tests: as text, with calls that look like Python."""

from collections.abc import Mapping

from tribal_mcp.errors import TribalError
from tribal_mcp.next_steps import in_words
from tribal_mcp.services.results import Result


def next_steps(given: Result | TribalError) -> str:
    """What it recommends, with each call as `action(name=value)`."""
    return in_words(given.next_steps, _call)


def _call(action: str, arguments: Mapping[str, object]) -> str:
    return f"{action}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
