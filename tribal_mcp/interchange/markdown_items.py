"""The list items and paragraphs of Markdown files of which each is a memory."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tribal_mcp.interchange.base import Item, LeftOut, attempt, derived_id, memory
from tribal_mcp.interchange.markdown import Note, parts

GENERATED = "text that this program wrote"
BEGIN, END = "<!-- tribal-mcp:begin", "<!-- tribal-mcp:end"
"""How lines begin between which a digest of memories is written into a file of rules."""


_BLOCKS = MarkdownIt("commonmark").disable("inline")
_NO_BLOCKS = {"bullet_list_open", "ordered_list_open", "hr"}
_OURS = re.compile(rf"^{BEGIN}.*?(?:^{END}[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKER = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s+|$)")


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
    for first, last, token, following in _blocks(body):
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


def _blocks(body: str) -> Iterator[tuple[int, int, Token, Token]]:
    """The tokens of headings, items of outermost lists and other outermost blocks.

    Yields:
        The first line from 0, the line after the last, the token, and the token that follows it.
    """
    above = 0
    for part in parts(body):
        for token, following in pairwise([*_BLOCKS.parse(part), Token("", "", 0)]):
            is_item = token.type == "list_item_open" and token.level == 1
            is_block = token.level == 0 and token.type not in _NO_BLOCKS
            if token.map and (is_item or is_block):
                yield above + token.map[0], above + token.map[1], token, following
        above += part.count("\n")


def _item_text(lines: list[str]) -> str:
    marker = _MARKER.match(lines[0])
    width = marker.end() if marker else 0
    rest = [line[width:] if not line[:width].strip() else line for line in lines[1:]]
    return "\n".join([lines[0][width:], *rest]).strip()


def piece_items(
    note: Note,
    key: Sequence[str],
    leave: Callable[[Piece], str | None],
    **fields: Any,  # noqa: ANN401 - see `memory`
) -> Iterator[Item]:
    """Each piece of a note as a memory; what this program wrote is left out.

    Args:
        note: the note.
        key: of what the ids are made, beside headings and text: the format and the file.
        leave: for what reason a piece is left out; None if it is a memory, "" if it is no record.
        fields: fields that all memories get, see `memory`.
    """
    for block in _OURS.finditer(note.body):
        line = note.line + note.body.count("\n", 0, block.start())
        yield LeftOut(f"{note.path}, line {line:,}", GENERATED)
    body = _OURS.sub(lambda block: "\n" * block[0].count("\n"), note.body)
    for piece in pieces(body, note.line):
        where = f"{note.path}, line {piece.line:,}"
        reason = "" if _COMMENT.fullmatch(piece.text) or not piece.text else leave(piece)
        if reason:
            yield LeftOut(where, reason)
        elif reason is None:
            memory_id = derived_id(*key, *piece.headings, piece.text)
            make = partial(memory, context=piece.context, **fields)
            yield attempt(where, make, memory_id, piece.text)
