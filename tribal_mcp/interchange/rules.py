"""Files of rules for coding agents: CLAUDE.md, AGENTS.md, Cursor, Windsurf, Copilot and others."""

import re
from collections.abc import Iterator
from typing import ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    POSSIBLE,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
)
from tribal_mcp.interchange.markdown import NO_TEXT, is_single, read_note
from tribal_mcp.interchange.markdown_items import GENERATED, Piece, piece_items
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry

_RULES = re.compile(
    r"(?:.*/)?(?:"
    r"(?:CLAUDE(?:\.local)?|AGENTS?|AGENTS\.override|GEMINI|copilot-instructions|global_rules)\.md"
    r"|[^/]+\.(?:mdc|instructions\.md)|\.(?:cursor|windsurf|cline)rules"
    r"|\.(?:(?:cursor|windsurf|claude)/rules|clinerules)/.+\.md)",
    re.IGNORECASE | re.DOTALL,
)
_NO_PROJECT = {"", "rules", "memories", "claude", "codex", "gemini", "cursor", "windsurf", "github"}
_REFERENCE = "a reference to another file, such as `@docs/rules.md`"
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


def _leave(piece: Piece) -> str | None:
    return _REFERENCE if _REFERENCES.fullmatch(piece.text) else None


def rule_files(source: Source) -> list[str]:
    """The files of rules, by their names and those of the folders that they are in."""
    above = f"{source.parent}/{source.name}/"
    return [path for path in source.paths() if _RULES.fullmatch(above + path)]
