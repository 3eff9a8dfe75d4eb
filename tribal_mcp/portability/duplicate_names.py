"""Finds a name that a JSON object gives twice, of which most parsers keep the last value.

Apart from `strict_json`, because the servers check each message with it, and start without numpy.
"""

import json
from typing import Any


def repeated(pairs: list[tuple[str, Any]]) -> str | None:
    """The first name that occurs twice among the members of an object."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None


def given_twice(text: str | bytes) -> str | None:
    """The first name that any object in a JSON text gives twice.

    None if there is none, or if the text is not JSON, which its reader reports.
    """
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            found.append(str(repeated(pairs)))
        return value

    try:
        json.loads(text, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return None
    return found[0] if found else None
