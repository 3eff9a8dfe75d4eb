"""Claude Code's memory folders, of one project or of all."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from heapq import nlargest
from typing import Any, ClassVar

from tribal_mcp.interchange import own_block
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    POSSIBLE,
    Evidence,
    Found,
    Item,
    LeftOut,
    Memories,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    INDEX,
    NO_TEXT,
    NOT_MARKDOWN,
    Head,
    Links,
    Note,
    beginning,
    has_text,
    head,
    heads,
    is_index,
    note_items,
    notes,
    stem,
    take_text,
    visible,
)
from tribal_mcp.interchange.own_notes import (
    index_line,
    is_theirs,
    note_file,
    note_text,
    summary_of,
    with_paths,
)
from tribal_mcp.interchange.reading import read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import UNDATED

_PROJECT = re.compile(r"-|[A-Za-z]--")
"""How the name of a project's folder begins: its path, with `-` for `/`, `.` and `:`."""
_PROJECTS = re.compile(rf"(?:.*/)?(?:{_PROJECT.pattern})[^/]*/memory/[^/]", re.DOTALL)
_IN_MEMORY = re.compile(r"(?:(?:.*/)?(?P<project>[^/]+)/)?memory/(?P<rest>.+)", re.DOTALL)
_SIGNATURE = re.compile(r"^\s*(?:originSessionId:|node_type: *memory *$)", re.MULTILINE)
_TYPES = {"user", "feedback", "project", "reference"}
_MEMORY_MD = "memory.md"
_INDEXED = 190
_SHARE = 3
"""One of three notes, or more, must look like that."""


class ClaudeCode(own_block.WithBlock):
    """One file a memory, with three generations of frontmatter."""

    name: ClassVar = "claude-code"
    title: ClassVar = "a memory folder of Claude Code"
    places: ClassVar = "~/.claude/projects/<project>/memory, or all of ~/.claude/projects"
    layout: ClassVar = (
        "Markdown files with `name`, `description` and `type` or `originSessionId`, or folders of "
        "projects with `memory/*.md`"
    )
    fields: ClassVar = {
        "the text": "content",
        "description": "context",
        "type": "tags, and metadata",
        "modified": "updated_at",
        "the project's folder": "source_instance",
        "[[name]] and Markdown links": "related_to",
        "the file's name": "metadata (file)",
        "name, originSessionId, other values": "metadata",
    }
    leaves_out: ClassVar = (INDEX, NO_TEXT, NOT_MARKDOWN)
    writes: ClassVar = "folder"
    written: ClassVar = (
        f"a file for each memory, and the index MEMORY.md with the {_INDEXED} newest, because "
        "Claude Code loads only its beginning"
    )

    def recognise(self, source: Source) -> Evidence | None:
        """Folders of projects, or the values that only Claude Code writes."""
        found = notes(source)
        if any(_PROJECTS.match(path) for path in found):
            return Evidence(CERTAIN, "folders of projects with `memory/*.md`")
        if source.name == "memory" and _PROJECT.match(source.parent) and found:
            return Evidence(CERTAIN, "the folder `memory` of a project")
        looked = heads(source, found)
        if any(_SIGNATURE.search(seen.front) for seen in looked):
            return Evidence(CERTAIN, "frontmatter with `originSessionId` or `node_type: memory`")
        ours = [
            seen
            for seen in looked
            if {"name", "description"} <= seen.values.keys() and seen.values.get("type") in _TYPES
        ]
        if ours and len(ours) >= len(looked) / _SHARE:
            return Evidence(LIKELY, "frontmatter with `name`, `description` and `type`")
        top = [path for path in found if "/" not in path]
        if any(path.casefold() == _MEMORY_MD for path in top) and len(top) == len(found):
            return Evidence(POSSIBLE, "a file MEMORY.md")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each file in the memory folders; others, such as transcripts, are no part."""
        places = _places(source)
        memories = [path for path in notes(source) if path in places]
        links: dict[str, Links] = {}
        for path in memories:
            project, rest = places[path]
            seen = beginning(source, path)
            known = links.setdefault(project, Links(loose=True))
            _add(known, rest, seen, seen.own_id or derived_id(self.name, project, rest))
        for item in note_items(source, memories, partial(_memory, places=places, links=links)):
            if isinstance(item, Found) and _is_index(places[item.where][1], item.entry.content):
                yield LeftOut(item.where, INDEX)
            else:
                yield item
        for path in sorted(places.keys() - set(memories)):
            yield LeftOut(path, NOT_MARKDOWN)

    def write_folder(self, memories: Memories) -> Iterator[tuple[str, bytes]]:
        """One file for each memory, then the index."""
        memories = memories.with_text()
        links = Links(loose=True)
        for path, entry in with_paths(memories, self.name):
            text = note_text(_values(path, entry), entry.content)
            _add(links, path, head(path, text), entry.id)
        count = 0
        for path, entry in with_paths(memories, self.name):
            count += 1
            read = partial(_plain, places={path: ("", path)}, links={"": links})
            yield path, note_file(path, _values(path, entry), entry, read, self.name)
        listed = (
            (entry.updated_at, path, index_line(path, entry))
            for path, entry in with_paths(memories, self.name)
        )
        index = [line for _, _, line in nlargest(_INDEXED, listed)]
        if count > _INDEXED:
            index.append(f"# {count - _INDEXED:,} older ones are in this folder")
        if count:
            yield "MEMORY.md", "".join(f"{line}\n" for line in index).encode()


def _add(links: Links, path: str, seen: Head, memory_id: str) -> None:
    """Let links lead to a memory."""
    if has_text(seen, "description") and not _is_index(path, seen.body.strip("\n")):
        name = seen.values.get("name")
        links.add(path, memory_id, [name] if name else [])


def _values(path: str, entry: MemoryEntry) -> dict[str, Any]:
    """The frontmatter of a memory: as it was, if it came from there."""
    theirs = entry.metadata if is_theirs(entry, ClaudeCode.name) else {}
    known = UNDATED not in entry.extra or entry.updated_at != entry.created_at
    modified = {"modified": entry.updated_at.isoformat()} if known else {}
    if "file" in theirs:
        named = {k: theirs[k] for k in ("name",) if k in theirs}
        context = {} if entry.context is None else {"description": entry.context}
        rest = {k: v for k, v in theirs.items() if k not in {"file", "name"}} | modified
        if "node_type" not in theirs:
            return {**named, **context, **rest}
        return {**named, **context, "metadata": rest}
    kind = next((tag for tag in entry.tags if tag in _TYPES), "project")
    return {
        "name": stem(path),
        "description": summary_of(entry.context or entry.content),
        "metadata": {"node_type": "memory", "type": kind, **modified},
    }


def _is_index(path: str, text: str) -> bool:
    return path.casefold().rpartition("/")[2] == _MEMORY_MD and is_index(text)


def _places(source: Source) -> dict[str, tuple[str, str]]:
    """The project of each file in a memory folder, and its path there."""
    paths = list(filter(visible, source.paths()))
    below = {path: match for path in paths if (match := _IN_MEMORY.fullmatch(path))}
    own = _project(source)
    named = {path: match for path, match in below.items() if _PROJECTS.match(path)}
    below = named or below
    if below:
        return {path: (match["project"] or own, match["rest"]) for path, match in below.items()}
    return {path: (own, path) for path in paths}


def _project(source: Source) -> str:
    """The project that a source belongs to; empty if its name doesn't say."""
    name = source.parent if source.name == "memory" else source.name
    return name if _PROJECT.match(name) else ""


def _memory(note: Note, places: dict[str, tuple[str, str]], links: dict[str, Links]) -> MemoryEntry:
    return own_block.restored(
        _plain(note, places, links), note.values.get(own_block.OWN_BLOCK), ClaudeCode.name
    )


def _plain(note: Note, places: dict[str, tuple[str, str]], links: dict[str, Links]) -> MemoryEntry:
    """The memory of a note without our block."""
    project, rest = places[note.path]
    memory_id = derived_id(ClaudeCode.name, project, rest)
    values = without(note.values, own_block.OWN_BLOCK)
    inner = values.pop("metadata", None)
    if isinstance(inner, dict):
        values |= inner
    elif inner:
        values["metadata"] = inner
    description = take_text(values, "description")
    kind = values.get("type")
    return memory(
        memory_id,
        note.body or description or "",
        updated=read_time(values.pop("modified", None)),
        context=description,
        tags=[kind] if isinstance(kind, str) and kind else [],
        related_to=links[project].of(replace(note, path=rest), memory_id),
        source_instance=f"claude-code:{project}" if project else "claude-code",
        metadata={"file": rest, **values},
    )
