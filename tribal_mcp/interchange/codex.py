"""Codex's memory folder: the handbook MEMORY.md in both of its schemas, summaries and notes."""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.frontmatter import FRONTMATTER
from tribal_mcp.interchange.markdown import (
    NO_TEXT,
    NOT_MARKDOWN,
    Note,
    note_items,
    notes,
    read_text,
    take_text,
    visible,
)
from tribal_mcp.interchange.markdown_items import Piece, piece_items
from tribal_mcp.interchange.reading import read_time, texts
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry

_RAW = "raw_memories.md: what MEMORY.md was made from"
_CONTENTS = "the table of contents in memory_summary.md"
_SKILL = "a skill, or another working file of Codex"
_SIGNATURE = re.compile(r"^(?:# Task Group: |rollout_summary_files:)", re.MULTILINE)
_TASK_GROUP = re.compile(r"^(?=# Task Group: )", re.MULTILINE)
_BLOCK = re.compile(
    r"^(?=---[ \t]*\n(?:rollout_summary_files|description|keywords):)", re.MULTILINE
)
_REFERENCE = re.compile(r"rollout_summaries/\S|\S+\.md \(")
_ANNOTATIONS = ("cwd=", "updated_at=", "thread_id=")
_UPDATED = re.compile(r"\bupdated_at=([^\s,)]+)")
_FOLDER = re.compile(r"\bcwd=([^,;)\n]+)")
_FIELD = re.compile(r"^(description|keywords|scope|applies_to):[ \t]*(.*)$", re.MULTILINE)
_KEYWORDS = re.compile(r"^#+ keywords[ \t]*\n(?:[ \t]*\n)?- (.*)$", re.MULTILINE)
_HEADER_LINE = re.compile(r"(?:rollout_summary_files|keywords|description|scope|applies_to):|v\d+$")
_HEADER = re.compile(r"(?:[a-z_]+:[^\n]*(?:\n|\Z))+")
_AD_HOC = "extensions/ad_hoc/notes/"
_SUMMARIES = "rollout_summaries/"


class Codex(Format):
    """The items of MEMORY.md and memory_summary.md, each rollout summary and each ad hoc note."""

    name: ClassVar = "codex"
    title: ClassVar = "a memory folder of Codex"
    places: ClassVar = "~/.codex/memories"
    layout: ClassVar = "MEMORY.md with `# Task Group:` or `rollout_summary_files:`"
    fields: ClassVar = {
        "a list item or a paragraph; a rollout summary or ad hoc note as a whole": "content",
        "the headings above it": "context",
        "keywords": "tags",
        "cwd": "source_instance",
        "updated_at, the latest of the rollouts": "updated_at",
        "description, scope, applies_to, thread_id, other values, the file": "metadata",
    }
    leaves_out: ClassVar = (_RAW, _CONTENTS, _SKILL, NO_TEXT, NOT_MARKDOWN)

    def recognise(self, source: Source) -> Evidence | None:
        """The names of the files, or a handbook."""
        root = _root(source)
        found = [path.removeprefix(root) for path in notes(source) if path.startswith(root)]
        own = {"memory_summary.md", "raw_memories.md"}.intersection(found)
        if own and any(path == "MEMORY.md" or path.startswith(_SUMMARIES) for path in found):
            return Evidence(CERTAIN, f"MEMORY.md or {_SUMMARIES} beside {min(own)}")
        handbook = f"{root}MEMORY.md" if "MEMORY.md" in found else source.file
        if handbook in notes(source) and _SIGNATURE.search(source.opening(handbook)):
            return Evidence(LIKELY, "a handbook with `# Task Group:` or `rollout_summary_files:`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each item of the two Markdown files, then each other file."""
        root = _root(source)
        for path in filter(visible, source.paths()):
            name = path.removeprefix(root)
            if not path.startswith(root):
                continue
            if name == "raw_memories.md":
                yield LeftOut(path, _RAW)
            elif not path.endswith(".md") and path != source.file:
                yield LeftOut(path, NOT_MARKDOWN)
            elif name.startswith((_SUMMARIES, _AD_HOC)):
                yield from note_items(source, [path], partial(_whole, name=name))
            elif name in ("MEMORY.md", "memory_summary.md", source.file):
                yield from _pieces(source, path, name)
            else:
                yield LeftOut(path, _SKILL)


def _root(source: Source) -> str:
    """The folder of memories in a source, which may be that of Codex itself."""
    inside = {"memories/MEMORY.md", "memories/memory_summary.md"}
    return "memories/" if inside.intersection(source.paths()) else ""


def _pieces(source: Source, path: str, name: str) -> Iterator[Item]:
    """The items of MEMORY.md or memory_summary.md."""
    try:
        text = read_text(source, path)
    except EntryError as error:
        yield RejectedEntry(path, str(error))
        return
    if not text.strip():
        yield LeftOut(path, NO_TEXT)
    line = 1
    for group in (_TASK_GROUP if _TASK_GROUP.search(text) else _BLOCK).split(text):
        match = FRONTMATTER.match(group)
        body = group[match.end() :] if match else group
        start = line + group.count("\n", 0, len(group) - len(body))
        yield from piece_items(
            Note(path, {}, body, start),
            (Codex.name, name),
            partial(_leave, group),
            **_fields_of(name, group),
        )
        line += group.count("\n")


def _fields_of(path: str, group: str) -> dict[str, Any]:
    """What the header and the references of a group say of its items."""
    values: dict[str, list[str]] = {}
    for key, value in _FIELD.findall(group):
        values.setdefault(key, []).append(value)
    keywords = values.pop("keywords", []) + _KEYWORDS.findall(group)
    rows = [row.strip() for row in group.split("\n")]
    files = [row[2:] for row in rows if row.startswith("- ") and _is_reference(row[2:])]
    listed = "\n".join(files)
    folders = set(_FOLDER.findall(listed or "\n".join(values.get("applies_to", []))))
    dates = []
    for text in _UPDATED.findall(listed):
        with suppress(EntryError):  # it stays in the metadata
            dates.append(read_time(text))
    return {
        "updated": max(filter(None, dates), default=None),
        "tags": texts(",".join(keywords)),
        "source_instance": f"codex:{folders.pop()}" if len(folders) == 1 else "codex",
        "source_type": MemorySource.AUTO_CAPTURE,
        "metadata": {
            "file": path,
            **{key: found[0] if len(found) == 1 else found for key, found in values.items()},
            "rollout_summary_files": files,
        },
    }


def _is_reference(text: str) -> bool:
    """Whether a list item names a rollout summary, and is no memory."""
    match = _REFERENCE.match(text)
    return bool(match) and (text.startswith(_SUMMARIES) or any(a in text for a in _ANNOTATIONS))


def _leave(group: str, piece: Piece) -> str | None:
    above = [heading.casefold().replace("\u2019", "'") for heading in piece.headings]
    if "what's in memory" in above:
        return _CONTENTS
    under = above[-1] if above else ""
    is_header = under in ("keywords", "rollout_summary_files") or _is_reference(piece.text)
    if _HEADER_LINE.match(piece.text):  # not in a list item
        is_header = is_header or f"\n{piece.text}" in f"\n{group}"
    return "" if is_header else None


def _whole(note: Note, name: str) -> MemoryEntry:
    """A rollout summary, which begins with `key: value` lines, or an ad hoc note."""
    values, body = dict(note.values), note.body
    if name.startswith(_SUMMARIES) and (match := _HEADER.match(body)):
        lines = [line.partition(":") for line in match[0].strip().split("\n")]
        values |= {key: value.strip() for key, _, value in lines}
        body = body[match.end() :].strip("\n")
    folder = take_text(values, "cwd")
    thread = values.get("thread_id")
    is_summary = name.startswith(_SUMMARIES)
    return memory(
        derived_id(Codex.name, _SUMMARIES, thread)
        if isinstance(thread, str) and thread
        else derived_id(Codex.name, name),
        body,
        updated=read_time(values.pop("updated_at", None)),
        source_instance=f"codex:{folder}" if folder else "codex",
        source_type=MemorySource.AUTO_CAPTURE if is_summary else MemorySource.UNKNOWN,
        metadata={"file": name, **values},
    )
