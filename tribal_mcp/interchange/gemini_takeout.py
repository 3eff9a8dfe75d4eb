"""Google Takeout of Gemini: the activity as JSON or as localised HTML, a memory for each prompt."""

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import ClassVar

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.reading import object_of, read_time
from tribal_mcp.interchange.records import (
    Record,
    ids_in,
    list_in,
    read_records,
    record_item,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.limits import MIB
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "gemini-takeout"
_PRODUCT = re.compile(r"\b(?:gemini|bard)\b", re.IGNORECASE)
_ACTIVITY = re.compile(
    r"(?:.*/)?(?:[^/]*gemini[^/]*/[^/]+|myactivity)\.(?:json|html)", re.IGNORECASE
)
_PROMPTED = re.compile(r"^Prompted[ \xa0]")
_OUTER, _CELL = "outer-cell", "content-cell"
_VERB = re.compile(r"^[^\xa0\n]{1,40}\xa0")
"""What the user did, before the text: "Prompted" in the user's language."""
_DATED = re.compile(r"\d{4}.*\d{1,2}[:.]\d\d|\d{1,2}[:.]\d\d.*\d{4}")
_BLOCK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]+")
_BLOCKS = {"br", "p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "ul", "ol"}
_ZONE = r" (?P<zone>[A-Z]{2,4}|GMT[+-]\d{1,2}(?::\d\d)?)"
_TIMES = {
    re.compile(r"(?P<time>[A-Z][a-z]{2} \d{1,2}, \d{4}, \d{1,2}:\d\d:\d\d [AP]M)" + _ZONE): (
        "%b %d, %Y, %I:%M:%S %p"
    ),
    re.compile(r"(?P<time>\d{1,2}\.\d{1,2}\.\d{4}, \d{1,2}:\d\d:\d\d)" + _ZONE): (
        "%d.%m.%Y, %H:%M:%S"
    ),
}
"""Times in English and in German, each with its layout."""
_HOURS = {
    "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3,
    "WEZ": 0, "WESZ": 1, "MEZ": 1, "MESZ": 2, "OEZ": 2, "OESZ": 3,
    "EDT": -4, "EST": -5, "CDT": -5, "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8,
}  # fmt: skip
"""Zones of the United States as in RFC 822, and of the European Union, also in German."""
_LOOKED_AT = 10
_ACTIVITY_CHARS = 4 * MIB
_UNCLOSED_CHARS = MIB
"""The parser reads an unclosed tag again with each block."""

_OTHER = "activity of another product"
_EMPTY = "activity without a prompt"


class GeminiTakeout(Format):
    """`My Activity/Gemini Apps/MyActivity.json` or `.html`."""

    name: ClassVar = _NAME
    title: ClassVar = "Gemini activity of Google Takeout"
    places: ClassVar = "takeout.google.com: My Activity, Gemini Apps"
    layout: ClassVar = "a list of activity of the product Gemini, in JSON or HTML"
    fields: ClassVar = {
        "details Request, or title": "content",
        "details Response, safeHtmlItem": "metadata (response), as text",
        "time": "created_at; in HTML, a time that is neither English nor German stays in metadata",
        "titleUrl, header, products, others": "metadata",
    }
    leaves_out: ClassVar = (_OTHER, _EMPTY)

    def recognise(self, source: Source) -> Evidence | None:
        """Activity of the product Gemini."""
        for path in _files(source)[:_LOOKED_AT]:
            peek = source.peek(path)
            first = peek.first
            if (
                peek.kind == "array"
                and {"header", "title", "time"} <= peek.keys
                and _is_gemini(first)
            ):
                return Evidence(CERTAIN, "a list of activity of the product Gemini")
            if peek.kind == "text" and _CELL in peek.text and _PRODUCT.search(peek.text):
                return Evidence(CERTAIN, "HTML with the activity of the product Gemini")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each activity."""
        for path in _files(source):
            if source.peek(path).kind == "text":
                yield from _html_items(source, path)
            else:
                yield from read_records(source, path, "item", _activity)


def _files(source: Source) -> list[str]:
    return [source.file] if source.file else list(filter(_ACTIVITY.fullmatch, source.paths()))


def _is_gemini(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    return any(
        _PRODUCT.search(t) for t in (str(record.get("header")), *ids_in(record.get("products")))
    )


def _activity(where: str, record: Record) -> Item | MemoryEntry:
    if not _is_gemini(record):
        return LeftOut(where, _OTHER)
    details = [object_of(one, "a detail") for one in list_in(record, "details")]
    said = {text_in(one, "name").casefold(): text_in(one, "value") for one in details}
    html = [object_of(one, "a safeHtmlItem") for one in list_in(record, "safeHtmlItem")]
    prompt = said.pop("request", "") or _PROMPTED.sub("", text_in(record, "title"), count=1)
    response = said.pop("response", "") or "\n".join(_plain(text_in(h, "html")) for h in html)
    known = ("title", "time", "details", "safeHtmlItem")
    metadata = {key: value for key, value in record.items() if key not in known} | said
    return _memory(where, prompt, response, text_in(record, "time"), metadata)


def _memory(
    where: str, prompt: str, response: str, time: str, metadata: Record
) -> Item | MemoryEntry:
    """A memory; a time that can't be read is in its metadata."""
    if not prompt.strip():
        return LeftOut(where, _EMPTY)
    return memory(
        derived_id(_NAME, time, prompt),
        prompt,
        created=None if "time" in metadata else _time(time),
        metadata={**metadata, "response": response},
        source_instance="gemini",
    )


def _html_items(source: Source, path: str) -> Iterator[Item]:
    for number, cells in enumerate(_outer_cells(source, path), 1):
        yield record_item(f"{path}, activity {number:,}", cells, _cell_activity)


def _cell_activity(where: str, cells: Record) -> Item | MemoryEntry:
    if not _PRODUCT.search(cells["other"]):
        return LeftOut(where, _OTHER)
    rows = cells["content"].strip().split("\n")
    at = next((i for i, row in enumerate(rows) if i and _DATED.search(row)), len(rows))
    prompt = _VERB.sub("", "\n".join(rows[:at]), count=1).strip()
    response = "\n".join(rows[at + 1 :]).strip()
    time = rows[at].strip() if at < len(rows) else ""
    try:
        _time(time)
        metadata = {}
    except EntryError:
        metadata = {"time": time}
    return _memory(where, prompt, response, time, metadata)


def _time(text: str) -> datetime | None:
    """A time in ISO 8601, in English or in German.

    Raises:
        EntryError: it is in another language, or in an unknown zone.
    """
    plain = text.replace("\u202f", " ").replace("\xa0", " ")
    found = ((layout, m) for time, layout in _TIMES.items() if (m := time.fullmatch(plain)))
    layout, match = next(found, ("", None))
    if not match:
        return read_time(text)
    zone = match["zone"]
    hours, _, minutes = zone.removeprefix("GMT").partition(":")
    offset = _HOURS.get(zone)
    with suppress(ValueError, OverflowError):
        moment = datetime.strptime(match["time"], layout).replace(tzinfo=UTC)
        if offset is None:
            sign = -1 if hours.startswith("-") else 1
            delta = timedelta(hours=int(hours), minutes=sign * int(minutes or 0))
        else:
            delta = timedelta(hours=offset)
        return moment.replace(tzinfo=timezone(delta))
    raise EntryError(f"{text!r:.60} is not a date")


def _outer_cells(source: Source, path: str) -> Iterator[dict[str, str]]:
    """The texts of each activity in an HTML file, which is read in blocks."""
    parser = _Activities()
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    with source.open(path) as file:
        while block := file.read(_BLOCK):
            try:
                parser.feed(decoder.decode(block))
            except (AssertionError, ValueError):
                raise BundleError(f"{path!r:.80} is not valid HTML.") from None
            if len(parser.rawdata) > _UNCLOSED_CHARS:
                raise BundleError(f"{path!r:.80} is not valid HTML: a tag is not closed.")
            if parser.size > _ACTIVITY_CHARS:
                raise BundleError(f"{path!r:.80} has an activity of more than 4 MiB.")
            yield from parser.found
            parser.found.clear()


class _Activities(HTMLParser):
    """Collects the texts of each `outer-cell`: of its first `content-cell`, and all others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []
        self.size = 0
        self._divs: list[str] = []
        self._texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            kind = next((v or "" for name, v in attrs if name == "class"), "")
            if _OUTER in kind.split():
                self._divs = []
                self._texts = {"content": [], "other": []}
                self.size = 0
            is_first = _CELL in kind.split() and not self._texts.get("content")
            self._divs.append("content" if is_first else "")
        self._add("\n" if tag in _BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        self._add("\n" if tag in _BLOCKS - {"br"} else "")
        if tag != "div" or not self._divs:
            return
        self._divs.pop()
        if not self._divs and self._texts:
            self.found.append({key: _tidy("".join(t)) for key, t in self._texts.items()})
            self._texts = {}
            self.size = 0

    def handle_data(self, data: str) -> None:
        self._add(_SPACE.sub(" ", data))

    def _add(self, text: str) -> None:
        if text and self._texts:
            self.size += len(text)
            self._texts["content" if "content" in self._divs else "other"].append(text)


def _plain(html: str) -> str:
    """The text of HTML."""
    parser = _Activities()
    with suppress(AssertionError, ValueError):
        parser.feed(f'<div class="{_OUTER}"><div class="{_CELL}">')
        parser.feed(html)
        parser.close()
        parser.feed("</div></div>")
    return parser.found[0]["content"] if parser.found else ""


def _tidy(text: str) -> str:
    """The lines of a text, without empty ones."""
    return "\n".join(row for line in text.split("\n") if (row := line.strip(" ")))
