"""The layouts of a bundle file, each turned into one stream of parts.

`lines`: our own, one entry per line, within `{"manifest": …, "entries": […]}` (.json) or bare
(.jsonl); the entries-only stream that people write by hand is of this kind too. `whole`: any other
layout of that JSON, such as a reformatted file or one long line.
"""

import io
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any, BinaryIO, NamedTuple

import ijson
import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.compression import expanded
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.strict_json import SurrogateGuard, parse_line

HEAD = b'{"manifest":'
ENTRIES = b'"entries": ['
END_OF_ENTRIES = b"],"
TAIL = b'"integrity":'
_BOM = b"\xef\xbb\xbf"
_PARSE_BYTES = 64 * 1024


class Kind(Enum):
    """What a part of a bundle is."""

    MANIFEST = auto()
    ENTRY = auto()
    BAD_ENTRY = auto()
    INTEGRITY = auto()
    OTHER = auto()


class Part(NamedTuple):
    """A part of a bundle, in the order of the file.

    Attributes:
        kind: what it is.
        number: its line, or for `whole` the number of the entry.
        data: its value; of a BAD_ENTRY the reason, of an OTHER its key.
        line: its bytes, where it stands on a line of its own.
    """

    kind: Kind
    number: int
    data: Any
    line: bytes | None = None


class Scanner(NamedTuple):
    """How a file is read: what its numbers count, and the parts from its start."""

    place: str
    parts: Callable[[], Iterator[Part]]


def open_scanner(source: BinaryIO, limits: Limits) -> Scanner:
    """Recognise the layout of a file.

    Raises:
        BundleError: it is no bundle of any layout.
    """
    file = _text(source, limits)
    first = file.readline(limits.line_bytes + 1)
    if not first.strip():
        raise BundleError("The file is empty, so it is not a bundle. Nothing was imported.")
    second = file.readline(limits.line_bytes) if first.endswith(b"\n") else b""
    if first.startswith(HEAD) and first.endswith(b",\n") and second.rstrip() == ENTRIES:
        return Scanner("line", lambda: _our_json(_text(source, limits), limits))
    try:
        value = parse_line(first, limits.nesting) if len(first) <= limits.line_bytes else None
    except EntryError:
        value = None
        # A file of several lines that each are to be an object, and the first is broken.
        if second.lstrip().startswith(b'{"'):
            return Scanner("line", lambda: _json_lines(_text(source, limits), limits))
    if isinstance(value, dict) and "entries" not in value:
        return Scanner("line", lambda: _json_lines(_text(source, limits), limits))
    if not first.lstrip().startswith((b"{", b"[")):
        raise BundleError(
            "The file is not JSON, so it is not a bundle. Nothing was imported. Give a .json or "
            ".jsonl file that tribal_export or TribalMemory wrote."
        )
    return Scanner("entry", lambda: _whole(_text(source, limits), limits))


def _text(source: BinaryIO, limits: Limits) -> io.BufferedReader:
    """The file from its start, without a byte order mark."""
    file = expanded(source, limits)
    head = file.peek(4)[:4]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise BundleError(
            "The file is UTF-16 or UTF-32; a bundle is UTF-8. Nothing was imported. Save it as "
            "UTF-8 and try again."
        )
    if head.startswith(_BOM):
        file.read(len(_BOM))
    return file


def _lines(file: io.BufferedReader, limits: Limits) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(limits.line_bytes + 1):
        number += 1
        if len(line) > limits.line_bytes:
            raise BundleError(
                f"Line {number:,} is longer than {limits.line_bytes:,} bytes "
                "(TRIBAL_LIMIT_LINE_BYTES). Nothing was imported."
            )
        yield number, line


def _cut_off(number: int) -> BundleError:
    return BundleError(
        f"The bundle is cut off at line {number:,}. Nothing was imported. Copy it again from its "
        "source."
    )


def _entry(line: bytes, number: int, limits: Limits) -> Part:
    try:
        return Part(Kind.ENTRY, number, parse_line(line, limits.nesting), line)
    except EntryError as error:
        return Part(Kind.BAD_ENTRY, number, str(error), line)


def _structure(line: bytes, number: int, limits: Limits) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parse_line(line, limits.nesting)
    except EntryError as error:
        raise BundleError(
            f"Line {number:,} can't be read: {error}. Nothing was imported. Copy the bundle again "
            "from its source."
        ) from None


def _our_json(file: io.BufferedReader, limits: Limits) -> Iterator[Part]:
    lines = _lines(file, limits)
    number, line = next(lines)
    head = _structure(line.rstrip()[:-1] + b"}", number, limits)
    yield Part(Kind.MANIFEST, number, head["manifest"])
    next(lines)
    separated = True
    for number, line in lines:  # noqa: B007, PLW2901 - the last number is used
        text = line.removesuffix(b"\n")
        if text in (END_OF_ENTRIES, b"]}"):
            break
        if not separated:
            raise BundleError(
                f"Line {number:,} follows an entry without a comma. Nothing was imported. Copy "
                "the bundle again from its source."
            )
        separated = text.endswith(b",")
        yield _entry(text.removesuffix(b","), number, limits)
    else:
        raise _cut_off(number)
    if text == END_OF_ENTRIES:
        number, line = next(lines, (number + 1, b""))
        if not line.startswith(TAIL) or not line.rstrip().endswith(b"}}"):
            raise _cut_off(number)
        tail = _structure(b"{" + line, number, limits)
        yield Part(Kind.INTEGRITY, number, tail["integrity"])
    for number, line in lines:
        if line.strip():
            raise BundleError(
                f"Line {number:,} stands after the end of the bundle. Nothing was imported."
            )


def _json_lines(file: io.BufferedReader, limits: Limits) -> Iterator[Part]:
    manifest_seen = False
    ended = False
    number, line = 0, b""
    for number, line in _lines(file, limits):  # noqa: B007
        text = line.rstrip(b"\r\n")
        if not text.strip():
            continue
        if ended:
            raise BundleError(
                f"Line {number:,} stands after the end of the bundle. Nothing was imported."
            )
        if number == 1 and text.startswith(b'{"manifest"'):
            manifest_seen = True
            yield Part(Kind.MANIFEST, number, _structure(text, number, limits).get("manifest"))
        elif text.startswith(b'{"integrity"'):
            ended = True
            yield Part(Kind.INTEGRITY, number, _structure(text, number, limits).get("integrity"))
        else:
            part = _entry(text, number, limits)
            if part.kind is Kind.BAD_ENTRY and not line.endswith(b"\n"):
                raise _cut_off(number)
            yield part
    if manifest_seen and not ended and not line.endswith(b"\n"):
        raise _cut_off(number)


def _whole(file: io.BufferedReader, limits: Limits) -> Iterator[Part]:
    events = ijson.basic_parse(SurrogateGuard(file), buf_size=_PARSE_BYTES, use_float=True)
    try:
        yield from _Walk(events, limits).parts()
    except ijson.JSONError as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise BundleError(
            f"The bundle can't be read: {reason}. It is cut off or damaged. Nothing was imported. "
            "Copy it again from its source."
        ) from None
    except (EntryError, UnicodeDecodeError) as error:
        raise BundleError(f"The bundle can't be read: {error}. Nothing was imported.") from None


class _Walk:
    """Builds the parts of a whole document from the parser's events."""

    def __init__(self, events: Iterator[tuple[str, Any]], limits: Limits) -> None:
        self._events = events
        self._limits = limits

    def parts(self) -> Iterator[Part]:
        event, _ = next(self._events)
        if event != "start_map":
            raise EntryError("the outermost value is not an object")
        seen: set[str] = set()
        for event, key in self._events:
            if event == "end_map":
                break
            if key in seen:
                raise EntryError(f"the key {key!r:.60} stands twice")
            seen.add(key)
            if key == "entries":
                yield from self._entries()
                continue
            event, value = next(self._events)  # noqa: PLW2901
            kind = {"manifest": Kind.MANIFEST, "integrity": Kind.INTEGRITY}.get(key, Kind.OTHER)
            data = self._value(event, value, self._limits.nesting)
            yield Part(kind, 0, data if kind is not Kind.OTHER else key)
        for _ in self._events:
            pass
        if "entries" not in seen:
            raise EntryError("it has no entries")

    def _entries(self) -> Iterator[Part]:
        event, _ = next(self._events)
        if event != "start_array":
            raise EntryError("entries is not a list")
        number = 0
        for event, value in self._events:
            if event == "end_array":
                return
            number += 1
            self._twice = ""
            data = self._value(event, value, self._limits.nesting)
            if self._twice:
                yield Part(Kind.BAD_ENTRY, number, self._twice, orjson.dumps(data))
            else:
                yield Part(Kind.ENTRY, number, data)

    _twice = ""

    def _value(self, event: str, value: Any, levels: int) -> Any:  # noqa: ANN401
        if not levels:
            raise EntryError("nested too deep (TRIBAL_LIMIT_NESTING)")
        if event == "start_array":
            items: list[Any] = []
            for child, data in self._events:
                if child == "end_array":
                    return items
                if child in ("start_array", "start_map"):
                    data = self._value(child, data, levels - 1)  # noqa: PLW2901
                items.append(data)
                if len(items) > self._limits.line_bytes // 2:
                    raise EntryError("a list is too long (TRIBAL_LIMIT_LINE_BYTES)")
        elif event == "start_map":
            pairs: dict[str, Any] = {}
            for child, key in self._events:
                if child == "end_map":
                    return pairs
                if key in pairs:
                    self._twice = f"the key {key!r:.60} stands twice"
                kind, data = next(self._events)
                pairs[key] = self._value(kind, data, levels - 1)
        return value
