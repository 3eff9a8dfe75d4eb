"""What the formats of Markdown folders share: notes, and the links, tags and items in them."""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tribal_mcp.errors import EntryError, TribalError
from tribal_mcp.files.origins import text_of
from tribal_mcp.interchange.base import Found, Item, LeftOut, attempt, derived_id, memory
from tribal_mcp.interchange.reading import FRONTMATTER, split_frontmatter
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry

INDEX = "an index file: a list of links to the memories"
NO_TEXT = "a file without text"
NOT_MARKDOWN = "a file that is not Markdown"
REPEATED = "the same text as an earlier one"
GENERATED = "text that this program wrote"
BEGIN, END = "<!-- tribal-mcp:begin", "<!-- tribal-mcp:end"
"""How lines begin between which a digest of memories is written into a file of rules."""

SUFFIXES = (".md", ".markdown", ".mdc")
_SAMPLES = 64
_PROSE_CHARS = 256 << 10
_MARKDOWN = MarkdownIt("commonmark").disable("text_join")
_BLOCKS = MarkdownIt("commonmark").disable("inline")
_NO_BLOCKS = {"bullet_list_open", "ordered_list_open", "hr"}
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_WIKI = re.compile(r"\[\[([^\[\]\n]+)\]\]")
_TAG = re.compile(
    r"(?<!\S)#([^\s#.,:;!?\"'()\[\]{}<>|\\@$%^&*+=~`\u2000-\u206f\u3000-\u303f\uff00-\uff0f]+)"
)
_VALUE = re.compile(r"^([\w][\w .-]*):[ \t]*(.*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_MARKER = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s+|$)")
_INDEX_LINE = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+.*(?:\]\([^)]+\)|\[\[[^\]]+\]\])")


@dataclass(frozen=True, slots=True)
class Note:
    """A Markdown file: the values of its frontmatter, and the text after it, trimmed.

    `line` is the number of the line where the text begins.
    """

    path: str
    values: dict[str, Any]
    body: str
    line: int = 1

    @property
    def stem(self) -> str:
        """The name of the file without its suffix."""
        return posixpath.basename(stem(self.path))


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a Markdown file: frontmatter as text, its top-level values, the text."""

    path: str
    front: str
    values: Mapping[str, str]
    body: str


def stem(path: str) -> str:
    """A path without the suffix of Markdown files."""
    base, dot, suffix = path.rpartition(".")
    return base if f"{dot}{suffix}".casefold() in SUFFIXES else path


def visible(path: str) -> bool:
    """Whether no part of a path is hidden."""
    return not path.startswith(".") and "/." not in path


def notes(source: Source) -> list[str]:
    """The Markdown files of a source that are not hidden; a single text file whatever its name."""
    found = [path for path in source.ending(*SUFFIXES) if visible(path)]
    if not found and source.file and source.peek(source.file).kind == "text":
        return [source.file]
    return found


def heads(source: Source, paths: Sequence[str]) -> list[Head]:
    """The beginnings of up to 64 of these files, taken evenly."""
    every = -(-len(paths) // _SAMPLES) or 1
    return [head(path, source.opening(path)) for path in paths[::every]]


def head(path: str, text: str) -> Head:
    """The beginning of a Markdown file, given its first characters."""
    match = FRONTMATTER.match(text)
    front = match[1] if match else ""
    values = {key: value.strip().strip("\"'") for key, value in _VALUE.findall(front)}
    return Head(path, front, values, text[match.end() :] if match else text)


def read_note(source: Source, path: str) -> Note:
    """A note of a source.

    Raises:
        EntryError: it is not text, too large, or its frontmatter can't be read.
    """
    try:
        text = text_of(source.origin, path)
        values, body = split_frontmatter(text)
    except TribalError as error:
        raise error if isinstance(error, EntryError) else EntryError(str(error)) from None
    except ValueError as error:
        raise EntryError(str(error)) from None
    trimmed = _BLANK_LINES.sub("", body)
    line = text.count("\n", 0, len(text) - len(trimmed)) + 1
    return Note(path, values, trimmed.rstrip(), line)


def note_items(
    source: Source, paths: Iterable[str], make: Callable[[Note], MemoryEntry]
) -> Iterator[Item]:
    """What each of these notes is: the memory that `make` returns, or why there is none."""
    repeats = Repeats()
    for path in paths:
        try:
            item: Item = Found(path, make(read_note(source, path)))
        except EntryError as error:
            item = RejectedEntry(path, str(error))
        if isinstance(item, Found) and not item.entry.content.strip():
            item = LeftOut(path, NO_TEXT)
        yield repeats.checked(item)


def take_text(values: dict[str, Any], key: str) -> str | None:
    """A text among the values, which is removed from them; a value of another type stays."""
    return values.pop(key).strip() or None if isinstance(values.get(key), str) else None


def is_index(body: str) -> bool:
    """Whether a text has nothing but headings and list items that link to something."""
    found = False
    for line in body.split("\n"):
        if _INDEX_LINE.match(line):
            found = True
        elif line.strip() and not line.startswith("#") and not (found and line[0].isspace()):
            return False
    return found


def prose(body: str) -> tuple[str, list[str]]:
    """The text of a note without code, and the targets of its Markdown links.

    Only the first 256 Ki characters are looked at.
    """
    parts: list[str] = []
    targets: list[str] = []
    for token in _MARKDOWN.parse(body[:_PROSE_CHARS]):
        for child in token.children or ():
            if child.type == "link_open":
                targets.append(str(child.attrGet("href")))
            elif child.type == "code_inline" or child.markup in (r"\[", r"\]", r"\#"):
                parts.append(" ")
            elif child.type in ("softbreak", "hardbreak"):
                parts.append("\n")
            else:
                parts.append(child.content or child.markup)
        parts.append("\n")
    return "".join(parts), targets


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
        """The ids of the memories that a note links to, and that the targets `more` lead to."""
        targets = list(more)
        if "[" in note.body:
            text, links = prose(note.body)
            targets += _WIKI.findall(text)
            targets += [unquote(link) for link in links if ":" not in link.split("/", 1)[0]]
        found = [self.find(target, note.path) for target in targets]
        return list(dict.fromkeys(i for i in found if i and i != own_id))


@dataclass(slots=True)
class Repeats:
    """Finds records that have the id of an earlier one."""

    _seen: dict[str, int] = field(default_factory=dict)

    def checked(self, item: Item) -> Item:
        """The item, or why it is not another memory: the same text, or only the same id."""
        if not isinstance(item, Found):
            return item
        memory_id, text = item.entry.id, hash(item.entry.content)
        if memory_id not in self._seen:
            self._seen[memory_id] = text
            return item
        if self._seen[memory_id] == text:
            return LeftOut(item.where, REPEATED)
        return RejectedEntry(item.where, f"has the id of an earlier record: {memory_id!r:.80}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A list item or a paragraph.

    Attributes:
        line: where it begins, from 1.
        headings: those that it is below, the outermost first.
        intro: a paragraph before the list that ends with a colon.
        text: its Markdown, without the marker of the list item.
    """

    line: int
    headings: tuple[str, ...]
    intro: str
    text: str

    @property
    def context(self) -> str | None:
        """The headings, and the introduction of the list."""
        parts = [*self.headings, self.intro] if self.intro else self.headings
        return " > ".join(parts) or None


def pieces(body: str, line: int = 1) -> Iterator[Piece]:
    """Each item of a list and each other block of a Markdown text, in order.

    Items within items belong to them. A paragraph that ends with a colon introduces the list that
    follows it, and is one piece with a code block that follows it.

    Args:
        body: the text.
        line: the number of its first line.
    """
    lines = body.split("\n")
    headings: list[tuple[int, str]] = []
    intro: Piece | None = None
    is_used = False
    for token, following in _blocks(body):
        first, last = token.map or (0, 0)
        under = tuple(text for _, text in headings)
        if token.type == "list_item_open":
            lead = intro.text if intro else ""
            yield Piece(line + first, under, lead, _item_text(lines[first:last]))
            is_used = True
            continue
        if intro and not is_used:
            if token.type in ("fence", "code_block"):
                yield replace(intro, text="\n".join(lines[intro.line - line : last]).rstrip())
                intro = None
                continue
            yield intro
        intro, is_used = None, False
        if token.type == "heading_open":
            level = int(token.tag[1:])
            headings = [h for h in headings if h[0] < level] + [(level, following.content)]
            continue
        piece = Piece(line + first, under, "", "\n".join(lines[first:last]).strip("\n").rstrip())
        if token.type == "paragraph_open" and piece.text.endswith(":"):
            intro = piece
        else:
            yield piece
    if intro and not is_used:
        yield intro


def _blocks(body: str) -> Iterator[tuple[Token, Token]]:
    """The tokens of headings, items of outermost lists and other outermost blocks; what follows."""
    tokens = _BLOCKS.parse(body)
    for token, following in pairwise([*tokens, Token("", "", 0)]):
        is_item = token.type == "list_item_open" and token.level == 1
        is_block = token.level == 0 and token.type not in _NO_BLOCKS
        if token.map and (is_item or is_block):
            yield token, following


def _item_text(lines: list[str]) -> str:
    marker = _MARKER.match(lines[0])
    width = marker.end() if marker else 0
    rest = [line[width:] if not line[:width].strip() else line for line in lines[1:]]
    return "\n".join([lines[0][width:], *rest]).strip()


def piece_items(note: Note, *key: str, **fields: Any) -> Iterator[Item]:  # noqa: ANN401 - see `memory`
    """Each piece of a note as a memory; what this program wrote and comments are left out.

    Args:
        note: the note.
        key: of what the ids are made, beside headings and text: the format and the file.
        fields: fields that all memories get, see `memory`.
    """
    is_ours = False
    for piece in pieces(note.body, note.line):
        where = f"{note.path}, line {piece.line:,}"
        if piece.text.startswith(BEGIN):
            is_ours = True
            yield LeftOut(where, GENERATED)
        elif piece.text.startswith(END):
            is_ours = False
        elif not is_ours and piece.text and not _COMMENT.fullmatch(piece.text):
            memory_id = derived_id(*key, *piece.headings, piece.text)
            make = partial(memory, context=piece.context, **fields)
            yield attempt(where, make, memory_id, piece.text)
