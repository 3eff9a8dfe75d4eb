"""Memories as notes in other systems' Markdown folders, with our block in the frontmatter."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from tribal_mcp.files.origins import decoded
from tribal_mcp.interchange.base import Memories
from tribal_mcp.interchange.markdown import Note, is_reserved, note_in, visible
from tribal_mcp.interchange.okf_files import json_line, name_of
from tribal_mcp.interchange.own_block import OWN_BLOCK, own_block
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import IMPORTED_FROM

_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[a-z][a-z0-9_-]*", re.IGNORECASE)
"""A text that YAML reads as it is."""
_PATH = re.compile(r"(?:[\w][\w .()&+@,'-]{0,100}/){0,8}[\w][\w .()&+@,'-]{0,100}\.md")
_NO_LINKS = str.maketrans("[]()", "    ")
_TITLE_CHARS, _SUMMARY_CHARS = 80, 200


def is_theirs(entry: MemoryEntry, name: str) -> bool:
    """Whether a memory was imported from the format of this name."""
    return entry.extra.get(IMPORTED_FROM) == name


def with_paths(memories: Memories, name: str) -> Iterator[tuple[str, MemoryEntry]]:
    """Each memory with the path of its file: the one it was imported from, if it was and is free.

    Args:
        memories: those that are written.
        name: of the format.
    """
    taken: set[str] = set()
    for entry in memories:
        path = entry.metadata.get("file") if is_theirs(entry, name) else None
        if isinstance(path, str) and _is_usable(path) and path.casefold() not in taken:
            taken.add(path.casefold())
            yield path, entry
        else:
            yield name_of(entry), entry


def _is_usable(path: str) -> bool:
    name = path.casefold().rpartition("/")[2]
    return (
        bool(_PATH.fullmatch(path))
        and path.isascii()
        and visible(path)
        and not is_reserved(path)
        and name != "memory.md"
    )


def title_of(entry: MemoryEntry) -> str:
    """The title that a memory has, or else the first line of its text; cut after 80 characters."""
    for key in ("title", "name"):
        title = entry.metadata.get(key)
        if isinstance(title, str) and title.strip():
            return summary_of(title, _TITLE_CHARS)
    first = entry.content.strip().split("\n", 1)[0].lstrip("#*->• \t")
    return summary_of(first, _TITLE_CHARS) or entry.id[:20]


def summary_of(text: str, chars: int = _SUMMARY_CHARS) -> str:
    """A text in one line, cut after this number of characters."""
    text = " ".join(text[: 10 * chars].replace("\0", " ").split())
    if len(text) <= chars:
        return text
    return (text[:chars].rpartition(" ")[0] or text[:chars]) + "…"


def index_line(path: str, entry: MemoryEntry) -> str:
    """The line of a memory in an index of links."""
    title = title_of(entry).translate(_NO_LINKS)
    hook = summary_of(entry.context or entry.content).translate(_NO_LINKS)
    return f"- [{title}]({quote(path)})" + (f" — {hook}" if hook != title else "")


def note_text(values: Mapping[str, Any], content: str, block: Mapping[str, Any] = {}) -> str:
    """The text of a note: values, our block in one line, and the text of the memory.

    What no text file may hold is replaced.
    """
    lines = list(_lines(values))
    if block:
        lines.append(f"{OWN_BLOCK}: {orjson.dumps(block).decode()}")
    body = content.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    if lines or body.startswith(("---", "\ufeff")):
        return "\n".join(["---", *lines, "---", "", body, ""])
    return body + "\n"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield f"{key}:"
            yield from (f"  {line}" for line in _lines(value))
        elif isinstance(value, str) and _PLAIN.fullmatch(value):
            yield f"{key}: {value}"
        else:
            yield f"{key}: {json_line(value)}"


def note_file(
    path: str,
    values: Mapping[str, Any],
    entry: MemoryEntry,
    read: Callable[[Note], MemoryEntry],
    name: str,
) -> bytes:
    """The file of a memory.

    Args:
        path: of the file.
        values: its frontmatter.
        entry: the memory.
        read: what the format makes of a note.
        name: of the format.
    """
    text = note_text(values, entry.content)
    plain = read(note_in(path, decoded(text.encode())))
    return note_text(values, entry.content, own_block(entry, plain, name)).encode()
