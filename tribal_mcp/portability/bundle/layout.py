"""The layouts of a bundle's text, and how to find its parts in each.

"json" is one object with `manifest`, `entries`, `deleted` and `integrity`, formatted in any way.
"jsonl" has one line each for `{"manifest": …}`, every entry, `{"deleted": …}` and
`{"integrity": …}`, or entries only, as people write them by hand. A file that begins exactly as our
writer begins it must match our writer's output byte for byte. (Over 300 lines: both
layouts have the same parts, which are found and checked alike.)
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

import orjson

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.envelope import OPTIONS
from tribal_mcp.portability.bundle.integrity import COPY_AGAIN
from tribal_mcp.portability.bundle.json_cursor import Cursor, Loads
from tribal_mcp.portability.strict_json import NotJSON, parse_line
from tribal_mcp.portability.vectors import kind_of

Layout = Literal["json", "jsonl"]

HEAD = b'{"manifest": '
"""How our writer begins a bundle; after the manifest follows ENTRIES, or `}` in jsonl."""
ENTRIES = b',\n"entries": ['


class TombstoneValue(NamedTuple):
    """The JSON value of a tombstone, or an EntryError if it can't be parsed."""

    value: Any


Items = Iterator[tuple[int, bytes, Any]]
"""The number, the text and the value of each entry and tombstone. The value of an entry that can't
be parsed is an EntryError; that of a tombstone is a TombstoneValue."""

PARTS = {"manifest", "entries", "deleted", "integrity"}
"""The known parts of a bundle."""

_LISTS = {"entries", "deleted"}
_LINE_PARTS = PARTS - {"entries"}
_DELETED_LINE = b'{"deleted":'
_OPTION_WORDS = {name.replace("_", ""): name for name in OPTIONS}
_SIMILAR = 0.8
_MAX_KEYS = 1_000
_MAX_KEY_CHARS = 1_000
_BLANK_LINES = 1_000
_OTHER_BEGINNINGS = {
    b"": "Not a bundle: the file is empty.",
    b"<": "Not a bundle: the file is HTML or XML.",
    b"[": "Not a bundle: the file is a JSON list. A bundle is an object with manifest and entries.",
    b'"': "Not a bundle: the file is a JSON string. If the string is a bundle, decode it first.",
}


def layout_of(name: str) -> tuple[Layout, Compression]:
    """The layout and compression that a file name specifies, also one that ends in .age.

    Raises:
        UsageError: it does not end in .json or .jsonl, optionally followed by .gz or .zst.
    """
    stem = name.lower().removesuffix(".age")
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
        "The name of a bundle must end in .json or .jsonl, followed by .gz or .zst to compress it "
        "and by .age to encrypt it. Change the name."
    )


@dataclass(frozen=True, slots=True)
class Head:
    """What is known before the first entry.

    Attributes:
        manifest: its value; None if there is none.
        is_ours: the file begins exactly as our writer begins it.
    """

    layout: Layout
    manifest: Any = None
    is_ours: bool = False

    @property
    def unit(self) -> str:
        """What the numbers of entries count."""
        return "line" if self.is_ours or self.layout == "jsonl" else "entry"

    @property
    def tombstone_unit(self) -> str:
        """What the numbers of tombstones count."""
        return "line" if self.unit == "line" else "tombstone"


def read_head(new_cursor: Callable[[], Cursor], nesting: int) -> Head:
    """Recognise the layout and find the manifest, wherever it is.

    Raises:
        BundleError: it is not a bundle.
    """
    try:
        return _head(new_cursor(), nesting)
    except BundleError:
        with suppress(BundleError):
            if _is_lines(new_cursor()):  # the first line is invalid, which rejects only that entry
                return Head("jsonl")
        raise


def _head(cursor: Cursor, nesting: int) -> Head:
    first = cursor.peek()
    if first != b"{":
        raise BundleError(
            _OTHER_BEGINNINGS.get(first) or "Not a bundle: the file is not JSON.",
            NextStep("Choose a file that tribal-mcp or TribalMemory exported."),
        )
    is_ours = cursor.follows(HEAD)
    line = cursor.line
    keys: set[str] = set()
    for key in _keys(cursor, nesting):
        if key == "manifest":
            at, text = cursor.value()
            value = parse_part(text, at, nesting)
            _check_manifest(value)
            layout: Layout = "json" if keys or cursor.peek() != b"}" else "jsonl"
            if layout == "jsonl" and cursor.line != line:
                raise _several_lines()
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
    if keys & {"id", "content"}:
        raise _several_lines()
    raise BundleError("Not a bundle: the file has no manifest.")


def _several_lines() -> BundleError:
    return BundleError(
        "Not a bundle: a JSON object spans several lines. A .jsonl file has one memory per line.",
        NextStep("Write each object on a line of its own, for example with `jq -c .`."),
    )


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


def parse_part(text: bytes, line: int, nesting: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a part that is not an entry or a tombstone.

    Raises:
        BundleError: it is not strict JSON.
    """
    try:
        return parse_line(text, nesting)
    except EntryError as error:
        line += error.line - 1 if isinstance(error, NotJSON) else 0
        raise BundleError(f"The bundle is damaged at line {line:,}: {error}.", COPY_AGAIN) from None


def _keys(cursor: Cursor, nesting: int) -> Iterator[str]:
    """The keys of an object; the caller consumes each value before it asks for the next key."""
    cursor.take(b"{")
    seen: set[str] = set()
    if cursor.peek() == b"}":
        cursor.take(b"}")
        return
    while True:
        line, text = cursor.value()
        key = parse_part(text, line, nesting)
        if type(key) is not str or key in seen:
            problem = "duplicate key" if type(key) is str else "not a key:"
            raise BundleError(
                f"The bundle is damaged at line {line:,}: {problem} {key!r:.60}.", COPY_AGAIN
            )
        seen.add(key)
        if len(seen) > _MAX_KEYS or len(key) > _MAX_KEY_CHARS:
            raise BundleError(
                f"Not a bundle: the file has more than {_MAX_KEYS:,} top-level keys, or one with "
                f"more than {_MAX_KEY_CHARS:,} characters."
            )
        cursor.take(b":")
        yield key
        if cursor.take(b",", b"}") == b"}":
            return


@dataclass(slots=True)
class BundleText:
    """The text of a bundle, to be read once.

    Attributes:
        cursor: at the beginning of the text.
        head: what `read_head` found.
        loads: parses an entry or a tombstone.
        nesting: levels of JSON in every other part.
        parts: the other parts by their keys, complete once all items have been read.
    """

    cursor: Cursor
    head: Head
    loads: Loads
    nesting: int
    parts: dict[str, Any] = field(default_factory=dict)

    def items(self) -> Items:
        """Entries and tombstones in order.

        Raises:
            BundleError: the file is truncated or damaged.
        """
        return self._lines() if self.head.layout == "jsonl" else self._document()

    def _document(self) -> Items:
        cursor, is_ours = self.cursor, self.head.is_ours
        has_entries = False
        for key in _keys(cursor, self.nesting):
            is_deleted = key == "deleted"
            if key in _LISTS and cursor.peek() != b"[":
                line, text = cursor.value()
                value = parse_part(text, line, self.nesting)
                if value is not None or not is_deleted:  # null means none given
                    raise BundleError(f"Not a bundle: {key} is {kind_of(value)}, not a list.")
            elif key in _LISTS:
                has_entries = has_entries or not is_deleted
                for number, (line, text, value) in enumerate(cursor.items(self.loads), start=1):
                    item = TombstoneValue(value) if is_deleted else value
                    yield line if is_ours else number, text, item
            else:
                _refuse_option(key)
                line, text = cursor.value()
                value = parse_part(text, line, self.nesting)
                # An unknown part would only use memory.
                self.parts[key] = value if key in PARTS else None
        if cursor.peek():
            raise _after_end(cursor.line)
        if not has_entries:
            raise BundleError("Not a bundle: the file has no entries.")

    def _lines(self) -> Items:
        parts = self.parts
        for number, line, is_ended in self.cursor.lines():
            text = line.strip(b" \t\r")
            if not text:
                continue
            if "integrity" in parts:
                raise _after_end(number)
            try:
                value = self.loads(text)
            except EntryError as error:
                if not is_ended:
                    raise BundleError(
                        f"The bundle is truncated at line {number:,}.", COPY_AGAIN
                    ) from None
                value = TombstoneValue(error) if text.startswith(_DELETED_LINE) else error
            if type(value) is not dict or len(value) != 1 or _LINE_PARTS.isdisjoint(value):
                _check_line(value)
                yield number, text, value
                continue
            [key] = value
            if key == "deleted":
                yield number, text, TombstoneValue(value[key])
                continue
            if key in parts or (key == "manifest" and self.head.manifest is None):
                raise BundleError(
                    f"The file has a second manifest at line {number:,}: it contains two bundles.",
                    NextStep("Split it into two files."),
                )
            parts[key] = parse_part(text, number, self.nesting)[key]
        if self.head.manifest is not None and "integrity" not in parts:
            raise BundleError(
                f"The bundle is truncated after line {number:,}: the integrity block, its last "
                "line, is missing.",
                COPY_AGAIN,
            )


def _check_manifest(value: object) -> None:
    if value is None:
        raise BundleError("Not a bundle: its manifest is null.")
    for name in value if isinstance(value, dict) else ():
        _refuse_option(name)


def _check_line(value: object) -> None:
    for name in value if type(value) is dict and "content" not in value else ():
        _refuse_option(name)


def _refuse_option(key: str) -> None:
    """Refuse an option of an import inside the bundle, where it would have no effect.

    Raises:
        BundleError: the key is one, or resembles one.
    """
    word = "".join(filter(str.isalpha, key)).lower()
    likely = difflib.get_close_matches(word, _OPTION_WORDS, n=1, cutoff=_SIMILAR)
    if likely:
        raise BundleError(
            f"The bundle contains {key!r:.60}, which looks like the option "
            f"{_OPTION_WORDS[likely[0]]} of an import. It has no effect inside a bundle.",
            NextStep("Remove it from the bundle, and give it as an option of the import."),
        )


def _after_end(line: int) -> BundleError:
    return BundleError(
        f"The file has more data at line {line:,}, after the end of the bundle.", COPY_AGAIN
    )
