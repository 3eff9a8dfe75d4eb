"""Lists of dated lines: what Claude, ChatGPT, Gemini, Copilot and Grok print when asked."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import ClassVar

from tribal_mcp.errors import BundleError
from tribal_mcp.files.origins import decoded, text_of
from tribal_mcp.interchange.base import (
    LIKELY,
    Evidence,
    Format,
    Item,
    LeftOut,
    Memories,
    Options,
    attempt,
    derived_id,
    memory,
)
from tribal_mcp.interchange.own_block import LOST, NO_TEXT, OTHERS, TIME, VECTOR, lost_without_block
from tribal_mcp.interchange.reading import read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import UNDATED

_ENTRY = re.compile(
    r"\s*(?:[-*•]\s+|\d+[.)]\s+)?(?P<mark>[*`]{0,2})\[(?P<date>unknown|\d{4}[-/]\d{1,2}[-/]\d{1,2}"
    r"(?:[ T]\d[^\]\n]{0,30})?|\d{4}(?:-\d{1,2})?(?=\][*`]{0,2}\s*[-\u2013\u2014]))\](?P=mark)\s*"
    r"[-\u2013\u2014.:]?\s*(?P<text>.*)",
    re.IGNORECASE,
)
_WHOLE_DAY = re.compile(r"unknown|\d{4}[-/]\d{1,2}[-/]\d{1,2}", re.IGNORECASE)
"""What dates are in a list, at least; lines that begin with a time may be a log."""
_FENCE = re.compile(r"\s*(```|~~~)")
_TITLE = re.compile(r"#{1,6}[ \t]+(.*?)[ \t#]*|\*\*([^*]+)\*\*:?[ \t]*")
_SHORT = re.compile(r"-(\d)(?!\d)")
_HEADING = "a heading, a line before the first entry, or a code fence"
_EMPTY = "an entry without text"
_REPEATED = "the same text as an earlier entry"
_FEW = 20
_DASHES = 2


class DatedList(Format):
    """One memory a line: `[2026-01-14] - Prefers TypeScript.`."""

    name: ClassVar = "dated-list"
    title: ClassVar = "a list of dated lines"
    places: ClassVar = "what claude.com/import-memory, ChatGPT, Gemini or Copilot print"
    layout: ClassVar = "lines such as `[2026-01-14] - text` or `[unknown] - text`"
    fields: ClassVar = {
        "text": "content",
        "date": "created_at; unknown if it is a month or a year, which metadata keeps",
        "the heading above it": "context",
    }
    leaves_out: ClassVar = (_HEADING, _EMPTY, _REPEATED)
    writes: ClassVar = "file"
    suffixes: ClassVar = (".txt", ".md")
    written: ClassVar = "a line for each memory; equal texts become one memory when it is read"
    loses: ClassVar = (*dict.fromkeys(LOST.values()), TIME, OTHERS, NO_TEXT, VECTOR)

    def recognise(self, source: Source) -> Evidence | None:
        """A third of the first lines, or more, are entries."""
        if source.only.kind not in {"text", "array"}:
            return None
        rows = [row for row in source.only.text.split("\n") if _counts(row)][:_FEW]
        entries = filter(None, map(_ENTRY.match, rows))
        found = sum(bool(_WHOLE_DAY.fullmatch(entry["date"])) for entry in entries)
        if not found or found < len(rows) / 3:
            return None
        return Evidence(LIKELY, "lines that begin with a date in brackets")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each line that begins with a date, with the lines that continue it."""
        seen: set[str] = set()
        assert source.file is not None  # noqa: S101 - recognised
        try:
            whole = text_of(source.origin, source.file)
        except ValueError as error:
            raise BundleError(f"{source.file!r:.80} {error}.") from None
        heading = None
        for number, date, text in dated_entries(whole, headings=True):
            where = f"line {number:,}"
            if date is None:
                heading = text or heading
                yield LeftOut(where, _HEADING)
            elif not text:
                yield LeftOut(where, _EMPTY)
            elif (memory_id := derived_id(self.name, text)) in seen:
                yield LeftOut(where, _REPEATED)
            else:
                seen.add(memory_id)
                yield attempt(where, _memory, memory_id, date, text, heading)

    def lost(self, entry: MemoryEntry) -> Iterable[str]:
        """All but the text and the day."""
        return lost_without_block(entry, _plain(entry), self.name)

    def write(self, memories: Memories) -> Iterator[bytes]:
        """A line for each memory, or several if its text has several."""
        for entry in memories:
            if text := _written(entry.content):
                yield f"[{_day(entry)}] - {text}\n".encode()


def _plain(entry: MemoryEntry) -> MemoryEntry:
    """What the line of a memory reads as."""
    text = _written(entry.content).replace("\n  ", "\n")
    return _memory(derived_id(DatedList.name, text), _day(entry), text, None)


def _written(text: str) -> str:
    """A text as it is written: lines below the first are indented; in one line, if that fails."""
    whole = text.replace("\n", "\n  ")
    with suppress(ValueError):
        lines = decoded(f"[unknown] - {whole}".encode())
        if [found[1:] for found in dated_entries(lines, headings=True)] == [("unknown", text)]:
            return whole
    return " ".join(text.replace("\0", " ").split())


def _day(entry: MemoryEntry) -> str:
    return "unknown" if UNDATED in entry.extra else entry.created_at.date().isoformat()


def _counts(line: str) -> bool:
    """Whether a line must be an entry in a list; headings, fences and continuations need not."""
    text = line.strip()
    is_other = line[:1].isspace() or _FENCE.match(line) or _TITLE.fullmatch(text)
    return bool(text) and (not is_other or bool(_ENTRY.match(line)))


def _memory(memory_id: str, date: str, text: str, heading: str | None) -> MemoryEntry:
    is_partial = date[0].isdecimal() and date.count("-") < _DASHES
    return memory(
        memory_id,
        text,
        created=None if is_partial else read_time(date),
        context=heading,
        source_instance="list",
        metadata={"date": date} if is_partial else {},
    )


def dated_entries(text: str, *, headings: bool = False) -> Iterator[tuple[int, str | None, str]]:
    """The number of its line, the date and the text of each entry.

    Other lines have no date. With `headings`, these have their text, and end the entry above.
    """
    entry: tuple[int, str, list[str]] | None = None
    indent = 0
    for number, line in enumerate(text.split("\n"), 1):
        match = _ENTRY.match(line)
        title = _TITLE.fullmatch(line) if headings else None
        fence = _FENCE.match(line)
        is_inside = fence and entry and fence.start(1) > indent
        if match or title or (fence and not is_inside):
            if entry:
                yield entry[0], entry[1], "\n".join(entry[2]).strip()
            date = _SHORT.sub(r"-0\1", match["date"].replace("/", "-")) if match else ""
            entry = (number, date, [match["text"]]) if match else None
            indent = len(line) - len(line.lstrip())
            if not match:
                yield number, None, (title[1] or title[2] or "").rstrip(":") if title else ""
        elif entry:
            entry[2].append(line.strip())
        elif line.strip():
            yield number, None, ""
    if entry:
        yield entry[0], entry[1], "\n".join(entry[2]).strip()
