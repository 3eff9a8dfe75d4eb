"""Notes of basic-memory: a folder, or a single note."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.interchange import own_block
from tribal_mcp.interchange.base import (
    LIKELY,
    Evidence,
    Item,
    Memories,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    NO_TEXT,
    NOT_MARKDOWN,
    Head,
    Links,
    Note,
    beginning,
    has_text,
    hashtags,
    head,
    heads,
    names_of,
    not_markdown,
    note_items,
    notes,
    stem,
    take_tags,
    take_text,
    take_time,
)
from tribal_mcp.interchange.own_notes import (
    is_theirs,
    note_file,
    note_text,
    title_of,
    with_paths,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import UNDATED

_KEYS = {"title", "type", "permalink"}
_OBSERVATION = re.compile(r"^\[[^\[\]\n]+\] ", re.MULTILINE)


class BasicMemory(own_block.WithBlock):
    """One note a memory, with its headings, observations and relations as they are."""

    name: ClassVar = "basic-memory"
    title: ClassVar = "notes of basic-memory"
    places: ClassVar = "~/basic-memory, or the folder of another project"
    layout: ClassVar = "Markdown files with `title`, `type` and `permalink`"
    fields: ClassVar = {
        "the text, with observations and relations": "content",
        "title": "context",
        "tags, and #tags of observations": "tags",
        "[[title]], [[permalink]], Markdown links": "related_to",
        "created, modified": "created_at, updated_at",
        "type, permalink, other values, the file": "metadata",
    }
    leaves_out: ClassVar = (NO_TEXT, NOT_MARKDOWN)
    writes: ClassVar = "folder"
    written: ClassVar = "a note for each memory"

    def recognise(self, source: Source) -> Evidence | None:
        """Half of the notes, or more, have the three values."""
        looked = heads(source, notes(source))
        found = sum(map(_is_ours, looked))
        if found and found >= len(looked) / 2:
            return Evidence(LIKELY, "frontmatter with `title`, `type` and `permalink`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each note, then the other files."""
        found = notes(source)
        links = Links()
        for path in found:
            seen = beginning(source, path)
            _add(links, path, seen, seen.own_id or _id(path, seen.values.get("permalink")))
        yield from note_items(source, found, partial(_memory, links=links))
        yield from not_markdown(source, set(found))

    def write_folder(self, memories: Memories) -> Iterator[tuple[str, bytes]]:
        """One note for each memory."""
        memories = memories.with_text()
        links = Links()
        for path, entry in with_paths(memories, self.name):
            text = note_text(_values(path, entry), entry.content)
            _add(links, path, head(path, text), entry.id)
        read = partial(_plain, links=links)
        for path, entry in with_paths(memories, self.name):
            yield path, note_file(path, _values(path, entry), entry, read, self.name)


def _add(links: Links, path: str, seen: Head, memory_id: str) -> None:
    """Let links lead to a memory."""
    if has_text(seen):
        links.add(path, memory_id, names_of(seen, "title", "permalink", "aliases"))


def _values(path: str, entry: MemoryEntry) -> dict[str, Any]:
    """The frontmatter of a memory: as it was, if it came from there."""
    theirs = entry.metadata if is_theirs(entry, BasicMemory.name) else {}
    dates = {} if UNDATED in entry.extra else {"created": entry.created_at.isoformat()}
    if entry.updated_at != entry.created_at:
        dates["modified"] = entry.updated_at.isoformat()
    if "file" in theirs:
        title = {} if entry.context is None else {"title": entry.context}
        tags = {"tags": entry.tags} if entry.tags else {}
        return {**title, **without(theirs, "file"), **tags, **dates}
    named = {"title": title_of(entry), "type": "note", "permalink": stem(path)}
    return {**named, "tags": entry.tags, **dates}


def _is_ours(seen: Head) -> bool:
    permalink = seen.values.get("permalink", "/")
    return seen.values.keys() >= _KEYS and not permalink.startswith(("/", "http"))


def _id(path: str, permalink: object) -> str:
    """Made from the permalink, which stays when the file is moved; from the path without one."""
    own = permalink if isinstance(permalink, str) else ""
    return derived_id(BasicMemory.name, own or stem(path))


def _memory(note: Note, links: Links) -> MemoryEntry:
    return own_block.restored(
        _plain(note, links), note.values.get(own_block.OWN_BLOCK), BasicMemory.name
    )


def _plain(note: Note, links: Links) -> MemoryEntry:
    """The memory of a note without our block."""
    values = without(note.values, own_block.OWN_BLOCK)
    permalink = values.get("permalink")
    memory_id = _id(note.path, permalink)
    tags = take_tags(values, "tags")
    if "#" in note.body:
        lines = note.prose[0].split("\n")
        tags += [tag for line in lines if _OBSERVATION.match(line) for tag in hashtags(line)]
    return memory(
        memory_id,
        note.body,
        context=take_text(values, "title"),
        created=take_time(values, "created", "created_at"),
        updated=take_time(values, "modified", "updated_at"),
        tags=list(dict.fromkeys(tags)),
        related_to=links.of(note, memory_id),
        source_instance="basic-memory",
        metadata={"file": note.path, **values},
    )
