"""Files of rules for coding agents: CLAUDE.md, AGENTS.md, Cursor, Windsurf, Copilot and others.

An export writes a digest of the memories between two marks, which an import leaves out.
"""

import re
from collections.abc import Iterator
from heapq import nlargest
from typing import ClassVar

from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.interchange.base import (
    POSSIBLE,
    Evidence,
    Format,
    Item,
    LeftOut,
    Memories,
    Options,
)
from tribal_mcp.interchange.markdown import NO_TEXT, is_single, read_note
from tribal_mcp.interchange.markdown_items import BEGIN, END, GENERATED, Piece, piece_items
from tribal_mcp.interchange.own_notes import summary_of
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import EPOCH, MemoryEntry

_RULES = re.compile(
    r"(?:.*/)?(?:"
    r"(?:CLAUDE(?:\.local)?|AGENTS?|AGENTS\.override|GEMINI|copilot-instructions|global_rules)\.md"
    r"|[^/]+\.(?:mdc|instructions\.md)|\.(?:cursor|windsurf|cline)rules"
    r"|\.(?:(?:cursor|windsurf|claude)/rules|clinerules)/.+\.md)",
    re.IGNORECASE | re.DOTALL,
)
_NO_PROJECT = {"", "rules", "memories", "claude", "codex", "gemini", "cursor", "windsurf", "github"}
_REFERENCE = "a reference to another file, such as `@docs/rules.md`"
_ALL_BUT_TEXT = "all but its text, of which the first 300 characters are kept"
_NO_ROOM = "its place in the digest, which is full"
_CORRECTED = "its place in the digest, because a newer memory corrects it"
_DIGEST_CHARS, _ITEM_CHARS = 6_000, 300
_CANDIDATES = 2_000
"""More than have room."""
_HEAD = f"{BEGIN}. Do not edit: the next export replaces what is between the marks. -->\n"
_TAIL = f"{END} -->\n"
_PART = re.compile(rf"^{BEGIN}[^\n]*\n.*?^{END}[^\n]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_PAIR = BEGIN, END
_MARKS = re.compile(f"^(?:{'|'.join(_PAIR)})", re.MULTILINE)
_REFERENCES = re.compile(r"@\S+(?:\s+@\S+)*")


class Rules(Format):
    """One memory for each list item and each paragraph."""

    name: ClassVar = "rules"
    title: ClassVar = "rules for coding agents"
    places: ClassVar = (
        "CLAUDE.md, AGENTS.md, GEMINI.md, .cursor/rules, .windsurf/rules, .claude/rules or "
        ".github/copilot-instructions.md of a project, or the project's folder"
    )
    layout: ClassVar = "Markdown files with these names"
    fields: ClassVar = {
        "a list item or a paragraph": "content",
        "the headings above it, and the paragraph that introduces a list": "context",
        "the project's folder": "source_instance",
        "the file's path, and the values of its frontmatter (globs, alwaysApply …)": "metadata",
    }
    leaves_out: ClassVar = (GENERATED, NO_TEXT, _REFERENCE)
    writes: ClassVar = "file"
    suffixes: ClassVar = (".md", ".mdc")
    written: ClassVar = (
        f"a digest of at most {_DIGEST_CHARS:,} characters, the most certain and newest memories "
        "first, between two marks. In an existing file, `--overwrite` replaces what is between the "
        "marks, or adds them at the end. An import leaves the digest out"
    )
    loses: ClassVar = (_ALL_BUT_TEXT, _NO_ROOM, _CORRECTED)
    fills_part: ClassVar = True

    def recognise(self, source: Source) -> Evidence | None:
        """Files that are named like that, and are text."""
        for path in rule_files(source):
            if source.opening(path).strip():
                return Evidence(POSSIBLE, f"a file of rules, {path!r:.80}")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each list item and paragraph of each file."""
        project = "" if is_single(source) else source.name.removesuffix(".zip")
        project = "" if project.lstrip(".").casefold() in _NO_PROJECT else project
        for path in rule_files(source) or source.paths():
            try:
                note = read_note(source, path)
            except EntryError as error:
                yield RejectedEntry(path, str(error))
                continue
            if not note.body:
                yield LeftOut(path, NO_TEXT)
            yield from piece_items(
                note,
                (self.name, project, path),
                _leave,
                source_instance=f"rules:{project}" if project else "rules",
                metadata={"file": path, **note.values},
            )

    def losses(self, memories: Memories) -> Iterator[tuple[str, str]]:
        """All but the texts that have room."""
        corrected = _corrected(memories)
        shown = {entry.id for entry, _ in _chosen(memories, corrected)}
        for entry in memories:
            missing = _CORRECTED if entry.id in corrected else _NO_ROOM
            yield entry.id, _ALL_BUT_TEXT if entry.id in shown else missing

    def write(self, memories: Memories) -> Iterator[bytes]:
        """The digest, with its marks."""
        lines = [line for _, line in _chosen(memories, _corrected(memories))]
        yield "".join([_HEAD, *lines, _TAIL]).encode()

    def within(self, text: str, part: str) -> str:
        """The file with the new digest, in the place of the old one or at the end."""
        newline = "\r\n" if "\r\n" in text else "\n"
        part = part.replace("\n", newline)
        count, found = len(_MARKS.findall(text)), list(_PART.finditer(text))
        if not count:
            missing = "" if not text or text.endswith("\n") else newline
            return text + missing + newline * bool(text) + part
        if count != len(_PAIR) or len(found) != 1:
            raise UsageError(
                f"The file has {count:,} of the marks that begin with {BEGIN!r} and {END!r}, and "
                "must have one of each, or none. Nothing was written. Correct or remove them."
            )
        return text[: found[0].start()] + part + text[found[0].end() :]


def _corrected(memories: Memories) -> set[str]:
    return {entry.supersedes for entry in memories if entry.supersedes}


def _chosen(memories: Memories, corrected: set[str]) -> Iterator[tuple[MemoryEntry, str]]:
    """The memories that have room, the most certain and newest first, and their lines."""
    candidates = (e for e in memories.with_text() if e.id not in corrected)
    left = _DIGEST_CHARS - len(_HEAD) - len(_TAIL)
    for entry in nlargest(_CANDIDATES, candidates, key=_rank):
        line = f"- {summary_of(entry.content, _ITEM_CHARS).replace('<!--', '<! --')}\n"
        if len(line) <= left:
            left -= len(line)
            yield entry, line


def _rank(entry: MemoryEntry) -> tuple[float, float, str]:
    return entry.confidence, (entry.updated_at - EPOCH).total_seconds(), entry.id


def _leave(piece: Piece) -> str | None:
    return _REFERENCE if _REFERENCES.fullmatch(piece.text) else None


def rule_files(source: Source) -> list[str]:
    """The files of rules, by their names and those of the folders that they are in."""
    above = f"{source.parent}/{source.name}/"
    return [path for path in source.paths() if _RULES.fullmatch(above + path)]
