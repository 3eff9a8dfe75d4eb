"""An OpenClaw workspace: MEMORY.md, what is known of the user and the agent, and daily notes."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
)
from tribal_mcp.interchange.markdown import NO_TEXT, is_single, notes, read_note
from tribal_mcp.interchange.markdown_items import Piece, piece_items
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry

_DAILY = re.compile(
    r"(?P<above>(?:.*/)?)memory/(?P<date>\d{4}-\d\d-\d\d)(?:[-_.].*)?\.md", re.DOTALL
)
_PLACE = re.compile(r"(?:.*?/)?workspace(?:-(?P<agent>[^/]+))?/(?P<rest>.+)", re.DOTALL)
_MEMORY = re.compile(
    r"(?:.*/)?(?:MEMORY\.md|USER\.md|IDENTITY\.md|memory/.+\.md)", re.DOTALL | re.IGNORECASE
)
_OWN = {"MEMORY.md", "USER.md", "IDENTITY.md", "SOUL.md", "HEARTBEAT.md"}
_ENOUGH = 3
_INSTRUCTIONS = "a file that is no memory, such as AGENTS.md, SOUL.md or a skill"
_SESSION = "a line that names the session"
_SESSION_LINE = re.compile(r"\*\*(?:Session Key|Session ID|Source)\*\*:")
_EMPTY = "a field that is not filled in"
_EMPTY_FIELD = re.compile(r"\*\*[^*\n]+:\*\*\s*(?:[*_]\([^\n]*\)[*_])?|[*_]\([^\n]*\)[*_]")


class OpenClaw(Format):
    """One memory for each list item and each paragraph."""

    name: ClassVar = "openclaw"
    title: ClassVar = "a workspace of OpenClaw"
    places: ClassVar = "~/.openclaw/workspace, or workspace-AGENT"
    layout: ClassVar = "`memory/YYYY-MM-DD.md` beside MEMORY.md, USER.md or IDENTITY.md"
    fields: ClassVar = {
        "a list item or a paragraph": "content",
        "the headings above it, and the paragraph that introduces a list": "context",
        "the date in the file's name": "created_at; unknown if there is no such day",
        "AGENT, in a folder `workspace-AGENT`": "source_instance",
        "the file's path, and the values of its frontmatter": "metadata",
    }
    leaves_out: ClassVar = (_INSTRUCTIONS, _SESSION, _EMPTY, NO_TEXT)

    def recognise(self, source: Source) -> Evidence | None:
        """Daily notes, or several of the files that each workspace has."""
        found = set(notes(source))
        above = {match["above"] for path in found if (match := _DAILY.fullmatch(path))}
        if any(folder + name in found for folder in above for name in _OWN):
            return Evidence(CERTAIN, "daily notes `memory/YYYY-MM-DD.md` in a workspace")
        memories = sum(bool(_MEMORY.fullmatch(path)) for path in found)
        if above and memories >= len(found) / 2:  # else a vault with a folder of that name
            return Evidence(LIKELY, "daily notes `memory/YYYY-MM-DD.md`")
        if len(_OWN & found) >= _ENOUGH:
            return Evidence(LIKELY, f"the files {', '.join(sorted(_OWN & found))}")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each list item and paragraph of each file of memories."""
        for path in notes(source):
            if not _MEMORY.fullmatch(path):
                yield LeftOut(path, _INSTRUCTIONS)
                continue
            try:
                note = read_note(source, path)
            except EntryError as error:
                yield RejectedEntry(path, str(error))
                continue
            if not note.body:
                yield LeftOut(path, NO_TEXT)
            agent, rest = _place(source, path)
            yield from piece_items(
                note,
                (self.name, agent, rest) if agent else (self.name, rest),
                _leave,
                created=_day(path),
                source_instance=f"openclaw:{agent}" if agent else "openclaw",
                metadata={"file": rest, **note.values},
            )


def _place(source: Source, path: str) -> tuple[str, str]:
    """The agent whose workspace a file is in, empty for the default one, and its path there."""
    folder = source.name.removesuffix(".zip")
    match = None if is_single(source) else _PLACE.fullmatch(f"{folder}/{path}")
    return (match["agent"] or "", match["rest"]) if match else ("", path)


def _day(path: str) -> datetime | None:
    match = _DAILY.fullmatch(path)
    with suppress(ValueError):
        return datetime.fromisoformat(match["date"]).replace(tzinfo=UTC) if match else None
    return None


def _leave(piece: Piece) -> str | None:
    if _SESSION_LINE.match(piece.text):
        return _SESSION
    return _EMPTY if _EMPTY_FIELD.fullmatch(piece.text) else None
