"""Wrong values for any argument, made from its JSON schema, for the matrix tests of interfaces."""

from collections.abc import Iterator
from typing import Any

LARGE = "x" * 200_000
FOREIGN = ("dryrun", "dry-run", "DRY_RUN", "dryRun", "__class__", "self", "ctx", "spool_file", "")
"""Names that are an argument of nothing, though some resemble one."""

_ANYTHING: dict[str, Any] = {
    "null in a list": [None],
    "a number": 5,
    "a fraction": 1.5,
    "true": True,
    "text": "true",
    "a number as text": "5",
    "a list": ["x"],
    "a list of numbers": [5],
    "an object": {"a": 1},
}
_RIGHT = {
    "string": {"text", "a number as text"},
    "boolean": {"true"},
    "integer": {"a number"},
    "number": {"a number", "a fraction"},
    "array": {"a list"},
}
_OVERSIZED: dict[str, Any] = {
    "string": LARGE,
    "integer": 10**30,
    "number": 1e300,
    "array": [f"x{n}" for n in range(20_000)],
}


def wrong_values(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each kind of value that a schema does not allow, with its name."""
    kind = schema["type"]
    for name, value in _ANYTHING.items():
        if name not in _RIGHT[kind] or "enum" in schema:
            yield name, value
    if "enum" in schema:
        yield "another choice", f"{schema['enum'][0]}x"


def oversized(schema: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    """A value of the right type that is far too large; True if the type has none."""
    return _OVERSIZED.get(schema["type"], True)


def misspelled(name: str) -> str:
    """A name without its last character, as when it was typed in haste."""
    return name[:-1]
