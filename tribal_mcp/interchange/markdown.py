"""What the formats of Markdown folders share: notes, their values, links and tags.

(Over 300 lines: links can only be resolved with the names of all notes.)
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt

from tribal_mcp.errors import EntryError, TribalError
from tribal_mcp.files.origins import FileOrigin, text_of
from tribal_mcp.interchange.base import Found, Item, LeftOut
from tribal_mcp.interchange.frontmatter import FRONTMATTER, split_frontmatter
from tribal_mcp.interchange.own_block import OWN_BLOCK
from tribal_mcp.interchange.reading import opening, parsed, read_time, texts
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry

INDEX = "an index file: a list of links to the memories"
NO_TEXT = "a file without text"
NOT_MARKDOWN = "a file that is not Markdown"
SUFFIXES = (".md", ".markdown", ".mdc")
_SAMPLES = 64
_PROSE_CHARS = 256 << 10
_PART_CHARS = 32 << 10
_INDEX_CHARS = 1000
_MARKDOWN = MarkdownIt("commonmark").disable("text_join")
_WIKI = re.compile(r"\[\[([^\[\]\n]+)\]\]")
_TAG = re.compile(
    r"(?<!\S)#([^\s#.,:;!?\"'()\[\]{}<>|\\@$%^&*+=~`\u2000-\u206f\u3000-\u303f\uff00-\uff0f]+)"
)
_OWN_LINE = re.compile(
    rf'^{OWN_BLOCK}: \{{"(?:fields":\{{"id":("(?:[^"\\\n]|\\.)*")|fields"|read_as").*\n?',
    re.MULTILINE,
)
"""Our block in one line; group 1 is the id in it."""
_VALUE = re.compile(r"^([\w][\w .-]*):[ \t]*(.*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_INDEX_LINE = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+.*(?:\]\([^)]+\)|\[\[[^\]]+\]\])")


@dataclass(frozen=True)
class Note:
    """A Markdown file: the values of its frontmatter, and the text after it, trimmed.

    `line` is the number of the line where the text begins.
    """

    path: str
    values: dict[str, Any]
    body: str
    line: int = 1

    @cached_property
    def prose(self) -> tuple[str, list[str]]:
        """Its text without code, and the targets of its Markdown links; see `prose`."""
        return prose(self.body)

    @property
    def stem(self) -> str:
        """The name of the file without its suffix."""
        return posixpath.basename(stem(self.path))


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a Markdown file: frontmatter as text, its top-level values, the text.

    `own_id` is the id in our block, if an export wrote one in a line, which is not part of `front`.
    """

    path: str
    front: str
    values: Mapping[str, str]
    body: str
    own_id: str | None = None


def stem(path: str) -> str:
    """A path without the suffix of Markdown files."""
    base, dot, suffix = path.rpartition(".")
    return base if f"{dot}{suffix}".casefold() in SUFFIXES else path


def is_single(source: Source) -> bool:
    """Whether a source is a file, so that its name and what is beside it say little."""
    return isinstance(source.origin, FileOrigin)


def visible(path: str) -> bool:
    """Whether no part of a path is hidden."""
    return not path.startswith(".") and "/." not in path


def notes(source: Source) -> list[str]:
    """The Markdown files of a source that are not hidden; a single text file whatever its name."""
    found = [path for path in source.ending(*SUFFIXES) if visible(path)]
    if not found and source.file and source.peek(source.file).kind == "text":
        return [source.file]
    return found


def not_markdown(source: Source, known: Collection[str]) -> Iterator[Item]:
    """The files of a source that are not hidden, but not among these notes either."""
    for path in filter(visible, source.paths()):
        if path not in known:
            yield LeftOut(path, NOT_MARKDOWN)


def is_reserved(path: str) -> bool:
    """Whether a path names an index or a log of changes, as in OKF."""
    return path.casefold().rpartition("/")[2] in ("index.md", "log.md")


def heads(source: Source, paths: Sequence[str]) -> list[Head]:
    """The beginnings of up to 64 of these files, taken evenly."""
    every = -(-len(paths) // _SAMPLES) or 1
    return [head(path, source.opening(path)) for path in paths[::every]]


def head(path: str, text: str) -> Head:
    """The beginning of a Markdown file, given its first characters."""
    match = FRONTMATTER.match(text)
    front = match[1] if match else ""
    own = _OWN_LINE.search(text) if text.startswith("---") else None
    if own and (not match or own.start() < match.end()):
        front = front.replace(own[0], "") or text[text.find("\n") + 1 : own.start()]
    values = {key: value.strip().strip("\"'") for key, value in _VALUE.findall(front)}
    own_id = _string(own[1]) if own else None
    return Head(path, front, values, text[match.end() :] if match else text, own_id)


def _string(text: str | None) -> str | None:
    """The text that a JSON string holds."""
    with suppress(EntryError):
        return str(parsed(text)) if text else None
    return None


def read_text(source: Source, path: str, more: int = 0) -> str:
    """The text of a file of a source.

    Args:
        source: the source.
        path: of the file.
        more: how many bytes it may be longer than the longest memory.

    Raises:
        EntryError: it is not text, too large, or can't be read.
    """
    try:
        return text_of(source.origin, path, more)
    except (ValueError, TribalError) as error:
        raise EntryError(str(error)) from None


def read_note(source: Source, path: str) -> Note:
    """A note of a source.

    Raises:
        EntryError: it is not text, too large, or its frontmatter can't be read.
    """
    return note_in(path, read_text(source, path, source.limits.content_bytes))


def note_in(path: str, text: str) -> Note:
    """The note that a file with this text is; raises what `read_note` does."""
    block = None
    front = FRONTMATTER.match(text) if f'\n{OWN_BLOCK}: {{"' in text else None
    if front and (own := _OWN_LINE.search(text, 0, front.end())):
        block = parsed(own[0].removeprefix(f"{OWN_BLOCK}: "))
        text = text[: own.start()] + text[own.end() :]
    values, body = split_frontmatter(text)
    if block is not None:
        values[OWN_BLOCK] = block
    trimmed = _BLANK_LINES.sub("", body)
    line = text.count("\n", 0, len(text) - len(trimmed)) + 1
    return Note(path, values, trimmed.rstrip(), line)


def beginning(source: Source, path: str) -> Head:
    """The beginning of a note with all of its frontmatter, for a first pass over the names."""
    return head(path, opening(source.origin, path, 1 << 16))


def has_text(seen: Head, *keys: str) -> bool:
    """Whether a note has text, or one of these values in its place: links lead only to such."""
    return bool(seen.body.strip() or any(map(seen.values.get, keys)))


def first_values(seen: Head, *keys: str) -> dict[str, Any]:
    """The values of a beginning if one of these keys is among them; none if unreadable."""
    if any(key in seen.values for key in keys):
        with suppress(EntryError):
            return split_frontmatter(f"---\n{seen.front}---\n")[0]
    return {}


def names_of(seen: Head, *keys: str) -> list[str]:
    """The texts under these keys of a beginning: other names of the note."""
    names: list[str] = []
    for value in map(first_values(seen, *keys).get, keys):
        listed = value if isinstance(value, list) else [value]
        names += [name for name in listed if isinstance(name, str)]
    return names


def note_items(
    source: Source, paths: Iterable[str], make: Callable[[Note], MemoryEntry]
) -> Iterator[Item]:
    """What each of these notes is: the memory that `make` returns, or why there is none."""
    for path in paths:
        try:
            item: Item = Found(path, make(read_note(source, path)))
        except EntryError as error:
            item = RejectedEntry(path, str(error))
        if isinstance(item, Found) and not item.entry.content.strip():
            item = LeftOut(path, NO_TEXT)
        yield item


def take_text(values: dict[str, Any], key: str) -> str | None:
    """A text among the values, which is removed from them; a value of another type stays."""
    return values.pop(key).strip() or None if isinstance(values.get(key), str) else None


def take_time(values: dict[str, Any], *keys: str) -> datetime | None:
    """The first time among values that people write; one that is no date stays a value."""
    for key in keys:
        with suppress(EntryError):
            if values.get(key) and (time := read_time(values[key])):
                del values[key]
                return time
    return None


def take_tags(values: dict[str, Any], *keys: str) -> list[str]:
    """The tags among the values, without `#`.

    Raises:
        EntryError: they are not texts.
    """
    tags: list[str] = []
    for key in keys:
        value = values.pop(key, None)
        if isinstance(value, list):
            value = [tag for tag in value if tag is not None]  # an item without text
        tags += [tag.lstrip("#") for tag in texts(value)]
    return list(dict.fromkeys(filter(None, tags)))


def is_index(body: str) -> bool:
    """Whether a text has nothing but headings and list items that link to something."""
    found = False
    for line in body.split("\n"):
        if len(line) <= _INDEX_CHARS and _INDEX_LINE.match(line):
            found = True
        elif line.strip() and not line.startswith("#") and not (found and line[0].isspace()):
            return False
    return found


def parts(body: str) -> Iterator[str]:
    """A Markdown text in parts of about 32 Ki characters, cut at blank lines where there are any.

    What the parser makes of many short lines takes a thousand times their size.
    """
    start = 0
    while len(body) - start > _PART_CHARS:
        stop = start + _PART_CHARS
        blank = body.rfind("\n\n", start, stop)
        end = body.find("\n", stop) if blank < 0 else blank + 1
        if end < 0:
            break
        yield body[start : end + 1]
        start = end + 1
    yield body[start:]


def prose(body: str) -> tuple[str, list[str]]:
    """The text of a note without code, and the targets of its Markdown links.

    Only the first 256 Ki characters are looked at.
    """
    found: list[str] = []
    targets: list[str] = []
    for token in chain.from_iterable(map(_MARKDOWN.parse, parts(body[:_PROSE_CHARS]))):
        for child in token.children or ():
            if child.type == "link_open":
                targets.append(str(child.attrGet("href")))
            elif child.type == "code_inline" or child.markup in (r"\[", r"\]", r"\#"):
                found.append(" ")
            elif child.type in ("softbreak", "hardbreak"):
                found.append("\n")
            else:
                found.append(child.content or child.markup)
        found.append("\n")
    return "".join(found), targets


def hashtags(text: str) -> list[str]:
    """The `#tags` in a text, in any script; a number is none."""
    return [tag.strip("/-") for tag in _TAG.findall(text) if not tag.strip("/-").isdecimal()]


class Links:
    """Which memory a link in a note leads to.

    Args:
        loose: whether `-`, `_` and spaces in names are the same.
    """

    def __init__(self, *, loose: bool = False) -> None:
        self._loose = loose
        self._paths: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._others: dict[str, str] = {}

    def add(self, path: str, memory_id: str, names: Iterable[str] = ()) -> None:
        """A memory of the source: its file, and other names that it has."""
        whole = self._key(stem(path))
        self._paths[whole] = memory_id
        self._names.setdefault(whole.rpartition("/")[2], memory_id)
        for name in names:
            self._others.setdefault(self._key(name), memory_id)

    def _key(self, name: str) -> str:
        key = unicodedata.normalize("NFC", name).casefold().strip()
        return re.sub(r"[\s_-]+", "-", key) if self._loose else key

    def find(self, target: str, beside: str = "") -> str | None:
        """The id of the memory that a link in the file `beside` leads to."""
        target = stem(re.split(r"\\?\||#", target, maxsplit=1)[0].strip())
        if not target.strip("/."):
            return None
        folder = posixpath.dirname(beside)
        near = self._key(posixpath.normpath(posixpath.join(folder, target)))
        key = self._key(target.strip("/"))
        for table, wanted in (
            (self._paths, near.strip("/")),
            (self._paths, key),
            (self._names, key),
            (self._others, key),
        ):
            if wanted in table:
                return table[wanted]
        return None

    def of(self, note: Note, own_id: str, more: Iterable[str] = ()) -> list[str]:
        """The ids of the memories that a note links to, and that the targets `more` lead to.

        The values of the note may have `[[links]]`, too.
        """
        targets = list(more)
        for value in note.values.values():
            listed = value if isinstance(value, list) else [value]
            targets += [t for text in listed if isinstance(text, str) for t in _WIKI.findall(text)]
        if "[" in note.body:
            text, links = note.prose
            targets += _WIKI.findall(text)
            targets += [unquote(link) for link in links if ":" not in link.split("/", 1)[0]]
        found = [self.find(target, note.path) for target in targets]
        return list(dict.fromkeys(i for i in found if i and i != own_id))
