"""Claude Code's memory folders, of one project or of all."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar

from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    POSSIBLE,
    Evidence,
    Format,
    Found,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    INDEX,
    NO_TEXT,
    NOT_MARKDOWN,
    Links,
    Note,
    beginning,
    has_text,
    heads,
    is_index,
    note_items,
    notes,
    take_text,
    visible,
)
from tribal_mcp.interchange.reading import read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_PROJECT = re.compile(r"-|[A-Za-z]--")
"""How the name of a project's folder begins: its path, with `-` for `/`, `.` and `:`."""
_PROJECTS = re.compile(rf"(?:.*/)?(?:{_PROJECT.pattern})[^/]*/memory/[^/]", re.DOTALL)
_IN_MEMORY = re.compile(r"(?:(?:.*/)?(?P<project>[^/]+)/)?memory/(?P<rest>.+)", re.DOTALL)
_SIGNATURE = re.compile(r"^\s*(?:originSessionId:|node_type: *memory *$)", re.MULTILINE)
_TYPES = {"user", "feedback", "project", "reference"}
_MEMORY_MD = "memory.md"
_SHARE = 3
"""One of three notes, or more, must look like that."""


class ClaudeCode(Format):
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
            name = seen.values.get("name")
            known = links.setdefault(project, Links(loose=True))
            if not has_text(seen, "description") or _is_index(rest, seen.body.strip("\n")):
                continue
            known.add(rest, derived_id(self.name, project, rest), [name] if name else [])
        for item in note_items(source, memories, partial(_memory, places=places, links=links)):
            if isinstance(item, Found) and _is_index(places[item.where][1], item.entry.content):
                yield LeftOut(item.where, INDEX)
            else:
                yield item
        for path in sorted(places.keys() - set(memories)):
            yield LeftOut(path, NOT_MARKDOWN)


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
    project, rest = places[note.path]
    memory_id = derived_id(ClaudeCode.name, project, rest)
    values = dict(note.values)
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
