"""The parts of a bundle's text, whatever its layout: the head, the items, what stands beside.

Layouts: "json", one object with `manifest`, `entries`, `deleted` and `integrity`, laid out in any
way; and "jsonl", lines of `{"manifest": …}`, entries, `{"deleted": …}`, `{"integrity": …}`, or of
entries only, as people write them by hand. A file that looks exactly as our writer lays it out is
held to that to the byte.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import orjson

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.json_cursor import Cursor, Loads
from tribal_mcp.portability.strict_json import NotJSON, parse_line

Layout = Literal["json", "jsonl"]

HEAD = b'{"manifest": '
"""How our writer begins a bundle; behind the manifest it goes on with ENTRIES, or `}` in lines."""
ENTRIES = b',\n"entries": ['


class Deleted(NamedTuple):
    """The value of a tombstone, or the EntryError that it is instead."""

    value: Any


Items = Iterator[tuple[int, bytes, Any]]
"""Of each entry: its number, its text, and its value or the EntryError that it is instead; of each
tombstone its number, its text and a `Deleted`."""

PARTS = {"manifest", "entries", "deleted", "integrity"}
"""What a bundle consists of."""

_LISTS = {"entries", "deleted"}
_LINE_PARTS = PARTS - {"entries"}
_DELETED_LINE = b'{"deleted":'
_PARTS = 1_000
_PART_NAME = 1_000
_BLANK_LINES = 1_000
_NO_BUNDLE = "so it is not a bundle. Nothing was imported."
_OTHER_BEGINNINGS = {
    b"": f"The file is empty, {_NO_BUNDLE}",
    b"<": f"The file is HTML or XML, {_NO_BUNDLE} Give the file that tribal_export wrote.",
    b"[": f"The file is a JSON list, {_NO_BUNDLE} A bundle is an object with manifest and entries.",
    b'"': f"The file is one JSON text, {_NO_BUNDLE} If the text is a bundle, decode it once.",
}


def layout_of(name: str) -> tuple[Layout, Compression]:
    """The layout and compression that a file name asks for.

    Raises:
        UsageError: it ends in none of .json, .jsonl, and those with .gz or .zst behind.
    """
    stem = name.lower()
    compression: Compression = "none"
    if stem.endswith(".gz"):
        stem, compression = stem.removesuffix(".gz"), "gzip"
    elif stem.endswith(".zst"):
        stem, compression = stem.removesuffix(".zst"), "zstd"
    if stem.endswith(".jsonl"):
        return "jsonl", compression
    if stem.endswith(".json"):
        return "json", compression
    raise UsageError(
        "A bundle's name ends in .json or .jsonl, with .gz or .zst behind it if it is to be "
        "compressed. Change the name."
    )


@dataclass(frozen=True, slots=True)
class Head:
    """What is known before the first entry.

    Attributes:
        manifest: its value; None where there is none.
        is_ours: the file is laid out as our writer does it, so its every byte is known.
    """

    layout: Layout
    manifest: Any = None
    is_ours: bool = False

    @property
    def place(self) -> str:
        """What the numbers of its entries count."""
        return "line" if self.is_ours or self.layout == "jsonl" else "entry"

    @property
    def place_of_deleted(self) -> str:
        """What the numbers of its tombstones count."""
        return "line" if self.place == "line" else "tombstone"


def read_head(new_cursor: Callable[[], Cursor], nesting: int) -> Head:
    """Recognise the layout and find the manifest, wherever it stands.

    Raises:
        BundleError: it is no bundle of any layout.
    """
    try:
        return _head(new_cursor(), nesting)
    except BundleError:
        with suppress(BundleError):
            if _is_lines(new_cursor()):  # whose first one is broken, which concerns that entry
                return Head("jsonl")
        raise


def _head(cursor: Cursor, nesting: int) -> Head:
    first = cursor.peek()
    if first != b"{":
        raise BundleError(
            _OTHER_BEGINNINGS.get(first)
            or f"The file is not JSON, {_NO_BUNDLE} Give a .json or .jsonl file that "
            "tribal_export or TribalMemory wrote."
        )
    is_ours = cursor.follows(HEAD)
    line = cursor.line
    keys: set[str] = set()
    for key in _keys(cursor, nesting):
        if key == "manifest":
            at, text = cursor.value()
            value = structure(text, at, nesting)
            layout: Layout = "json" if keys or cursor.peek() != b"}" else "jsonl"
            is_ours = (
                is_ours
                and not keys
                and cursor.follows(ENTRIES if layout == "json" else b"}\n")
                and orjson.dumps(value) == text
            )
            return Head(layout, value, is_ours)
        is_list = key in _LISTS and cursor.peek() == b"["
        if is_list:
            for _ in cursor.items(lambda text: parse_line(text, nesting)):
                pass
        else:
            cursor.value()
        keys.add(f"{key} list" if is_list else key)
    if cursor.line == line and "entries list" not in keys and keys & {"id", "content", "deleted"}:
        return Head("jsonl")
    raise BundleError(f"The file has no manifest, {_NO_BUNDLE}")


def _is_lines(cursor: Cursor) -> bool:
    lines = islice(cursor.lines(), _BLANK_LINES)
    texts = (text.strip() for _, text, _ in lines if text.strip())
    first, second = next(texts, b""), next(texts, b"")
    return (
        first.startswith(b"{")
        and not first.startswith(HEAD.rstrip())
        and first.endswith(b"}")
        and second.startswith(b"{")
    )


def structure(text: bytes, line: int, nesting: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a part that is not an entry.

    Raises:
        BundleError: it is not strict JSON.
    """
    try:
        return parse_line(text, nesting)
    except EntryError as error:
        line += error.line - 1 if isinstance(error, NotJSON) else 0
        raise BundleError(
            f"The bundle can't be read at line {line:,}: {error}. Nothing was imported. "
            "Copy it again from its source."
        ) from None


def _keys(cursor: Cursor, nesting: int) -> Iterator[str]:
    """The keys of an object; whoever takes one goes past its value before the next."""
    cursor.take(b"{")
    seen: set[str] = set()
    if cursor.peek() == b"}":
        cursor.take(b"}")
        return
    while True:
        line, text = cursor.value()
        key = structure(text, line, nesting)
        if type(key) is not str or key in seen:
            problem = "stands twice" if type(key) is str else "is no key"
            raise BundleError(
                f"The bundle is damaged at line {line:,}: {key!r:.60} {problem}. "
                "Nothing was imported."
            )
        seen.add(key)
        if len(seen) > _PARTS or len(key) > _PART_NAME:
            raise BundleError(
                f"The file has more than {_PARTS} parts, or one whose name is longer than "
                f"{_PART_NAME} characters, {_NO_BUNDLE}"
            )
        cursor.take(b":")
        yield key
        if cursor.take(b",", b"}") == b"}":
            return


def read_items(
    cursor: Cursor, head: Head, loads: Loads, nesting: int, beside: dict[str, Any]
) -> Items:
    """Entries and tombstones in order; all that stands beside them is in `beside` at the end.

    Raises:
        BundleError: the file is cut off or damaged.
    """
    if head.layout == "jsonl":
        return _lines(cursor, head, loads, nesting, beside)
    return _document(cursor, head, loads, nesting, beside)


def _document(
    cursor: Cursor, head: Head, loads: Loads, nesting: int, beside: dict[str, Any]
) -> Items:
    has_entries = False
    for key in _keys(cursor, nesting):
        if key in _LISTS:
            is_deleted = key == "deleted"
            has_entries = has_entries or not is_deleted
            for number, (line, text, value) in enumerate(cursor.items(loads), start=1):
                item = Deleted(value) if is_deleted else value
                yield line if head.is_ours else number, text, item
        else:
            line, text = cursor.value()
            value = structure(text, line, nesting)
            beside[key] = value if key in PARTS else None  # the rest would only take memory
    if cursor.peek():
        raise BundleError(
            f"Line {cursor.line:,} stands after the end of the bundle. Nothing was imported."
        )
    if not has_entries:
        raise BundleError(f"The file has no entries, {_NO_BUNDLE}")


def _lines(cursor: Cursor, head: Head, loads: Loads, nesting: int, beside: dict[str, Any]) -> Items:
    for number, line, is_ended in cursor.lines():
        text = line.strip(b" \t\r")
        if not text:
            continue
        if "integrity" in beside:
            raise BundleError(
                f"Line {number:,} stands after the end of the bundle. Nothing was imported."
            )
        try:
            value = loads(text)
        except EntryError as error:
            if not is_ended:
                raise BundleError(
                    f"The bundle is cut off at line {number:,}. Nothing was imported. Copy it "
                    "again from its source."
                ) from None
            value = Deleted(error) if text.startswith(_DELETED_LINE) else error
        if type(value) is dict and len(value) == 1 and not _LINE_PARTS.isdisjoint(value):
            [key] = value
            if key == "deleted":
                yield number, text, Deleted(value[key])
                continue
            if key in beside or (key == "manifest" and head.manifest is None):
                raise BundleError(
                    f"Line {number:,} is another manifest: these are two bundles in one file. "
                    "Nothing was imported. Import them one by one."
                )
            beside[key] = structure(text, number, nesting)[key]
        else:
            yield number, text, value
    if head.manifest is not None and "integrity" not in beside:
        raise BundleError(
            f"The bundle is cut off after line {number:,}: its last line, the integrity block, is "
            "missing. Nothing was imported. Copy it again from its source."
        )
