"""How an export tells what the files of a folder are that holds memories as Markdown.

A file is replaced or deleted only if the store has, or had, all that it holds.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

from tribal_mcp.errors import EntryError
from tribal_mcp.files.origins import decoded
from tribal_mcp.files.published_folders import FolderKind
from tribal_mcp.interchange.base import Stored
from tribal_mcp.interchange.markdown import is_reserved
from tribal_mcp.interchange.okf_files import is_key, key_in, key_of, memory_of
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import digest

ReadNote = Callable[[str, str], MemoryEntry]
"""What an import makes of a note without a block, given its path and its text."""

INDEX_FILE = "index.md"
INDEX_CONTENT = b"""---
okf_version: "0.2"
---

# Memories

Each other Markdown file here is one memory, exported by tribal-mcp. Edit the text, `tags` or
`description` of a file, and import this folder: what was edited is recognised by `hash`, which only
the export changes. A file without frontmatter is imported as a new memory.
"""


def folder_kind(name: str, stored: Callable[[], Stored], read_note: ReadNote) -> FolderKind:
    """How to tell what the files are.

    Args:
        name: of the format.
        stored: returns which memories the store has and had.
        read_note: reads a note without a block.
    """
    keys = cache(lambda: _Keys.of(stored()))

    def owner(path: str, content: bytes) -> str | None:
        if not path.endswith(".md") or is_reserved(path):
            return None
        with suppress(EntryError, ValueError):
            text = decoded(content)
            own = memory_of(text)
            return key_of((own[0] if own else read_note(path, text)).id)
        return None

    def is_known(path: str, here: bytes, new: bytes | None) -> bool:
        if not path.endswith(".md"):
            return True  # vectors
        with suppress(EntryError, ValueError):
            text = decoded(here)
            own = memory_of(text)
            if new is None:
                return own is not None and _is_stored(*own, keys())
            written = memory_of(decoded(new))
            if written and own:
                return _has_all(written[0], *own)
            return written is not None and _says_all(written[0], read_note(path, text))
        return False

    def stays_listed(key: str) -> bool:
        return is_key(key) and key not in keys().here

    return FolderKind(name, key_in, owner, is_known, stays_listed, once=(INDEX_FILE,))


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of the memories that a store has, and of those that it has or had."""

    here: Collection[str]
    known: Collection[str]

    @classmethod
    def of(cls, stored: Stored) -> Self:
        here = {key_of(memory_id) for memory_id in stored.here}
        return cls(here, here.union(map(key_of, stored.deleted)))


def _is_stored(entry: MemoryEntry, written_for: str, keys: _Keys) -> bool:
    """Whether a file has a memory as it was exported, and the store has or had the memory."""
    return digest(entry) == written_for and key_of(entry.id) in keys.known


def _has_all(written: MemoryEntry, here: MemoryEntry, written_for: str) -> bool:
    """Whether a memory is not older than one that was exported, or has all that was edited."""
    if digest(here) == written_for:
        return here.updated_at <= written.updated_at
    return replace(here, updated_at=written.updated_at).same_but_for_vector(written)


def _says_all(entry: MemoryEntry, note: MemoryEntry) -> bool:
    """Whether a memory has all that is in a note without a block."""
    return (entry.id, entry.content, entry.context, entry.tags, entry.metadata) == (
        note.id, note.content, note.context, note.tags, note.metadata,
    )  # fmt: skip
