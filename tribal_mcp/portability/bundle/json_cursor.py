"""A cursor over the text of a bundle: finds where each JSON value begins and ends.

It holds one value and one block at a time, whatever the layout, and leaves reading the value to
`strict_json`, so that every layout is read equally strictly. A JSON value ends by itself: text that
begins where a value begins and is JSON as a whole *is* that value. So an entry is first looked for
as the rest of its line, which is fast, and only then by counting brackets.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.strict_json import STRING, VALUES, NotJSON

Loads = Callable[[bytes], Any]
"""Reads the text of one value; raises ValueError, and EntryError where it can say why."""

_COMMA = ord(",")
_WHITE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(STRING, re.DOTALL)
_MARKS = re.compile(rb'["{}\[\]](?:(?<=")(?:[^"\\]++|\\.)*+")?+', re.DOTALL)
_LINE_END = re.compile(rb",?[ \t\r]*+\n")
_SCALAR = re.compile(rb'[^\s,:"{}\[\]]++')


class Cursor:
    """A place in a text that arrives in blocks.

    Attributes:
        line: the number of its line, from 1.
    """

    def __init__(self, blocks: Iterator[bytes], limits: Limits) -> None:
        self.line = 1
        self._blocks = _utf8(blocks)
        self._limits = limits
        self._text = b""
        self._at = 0
        self._by_line = True

    def peek(self) -> bytes:
        """The next character that is not white space; empty at the end."""
        while True:
            begin = self._at
            white = _WHITE.match(self._text, begin)
            self._at = white.end() if white else begin
            self.line += self._text.count(b"\n", begin, self._at)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, *expected: bytes) -> bytes:
        """Go past the next character, which must be one of these."""
        found = self.peek()
        if found not in expected:
            self._refuse(" or ".join(repr(one.decode()) for one in expected))
        self._at += 1
        return found

    def follows(self, text: bytes) -> bool:
        """Whether exactly this text comes next."""
        while len(self._text) - self._at < len(text) and self._more():
            pass
        return self._text.startswith(text, self._at)

    def value(self) -> tuple[int, bytes]:
        """Go past the next value: its line and its text, which need not be JSON."""
        if not self.peek():
            self._refuse("a value")
        line = self.line
        while (end := self._end_of_value()) is None:
            self._check_size(len(self._text) - self._at)
            if not self._more():
                self._cut_off("the end of a value")
        self._check_size(end - self._at)
        text = self._text[self._at : end]
        self.line += text.count(b"\n")
        self._at = end
        return line, text

    def items(self, loads: Loads) -> Iterator[tuple[int, bytes, Any]]:
        """Go past a list: the line, the text and the value of each of its items.

        The value is an EntryError where the item is JSON that can't be taken.
        """
        self.take(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        while True:
            line = self.line
            text, value = self._item(loads)
            yield line, text, value
            if self._text.startswith(b",\n{", self._at):  # as most often, and found fast
                self._at += 2
                self.line += 1
            elif self.take(b",", b"]") == b"]":
                return
            else:
                self.peek()

    def lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """Go on to the end: the number and text of each line, and whether a newline ends it."""
        most = 2 * self._limits.entries + 1_000
        while True:
            newline = self._text.find(b"\n", self._at)
            if newline >= 0:
                self._check_size(newline - self._at)
                if self.line > most:
                    raise BundleError(
                        f"The bundle has more than {most:,} lines, more than half of them blank "
                        "(TRIBAL_LIMIT_ENTRIES). Nothing was imported."
                    )
                text = self._text[self._at : newline]
                self._at = newline + 1
                yield self.line, text, True
                self.line += 1
                continue
            self._check_size(len(self._text) - self._at)
            if not self._more():
                yield self.line, self._text[self._at :], False
                return

    def _item(self, loads: Loads) -> tuple[bytes, Any]:
        newline = self._text.find(b"\n", self._at) if self._by_line else -1
        if self._at < newline <= self._at + self._limits.line_bytes:
            end = newline - 1 if self._text[newline - 1] == _COMMA else newline
            text = self._text[self._at : end].rstrip(b", \t\r")
            with suppress(ValueError):
                value = loads(text)
                self._at += len(text)
                return text, value
        line, text = self.value()
        self._by_line = b"\n" not in text and bool(_LINE_END.match(self._text, self._at))
        try:
            return text, loads(text)
        except NotJSON as error:
            raise BundleError(
                f"The bundle is damaged at line {line + error.line - 1:,}: {error}. "
                "Nothing was imported. Copy it again from its source."
            ) from None
        except EntryError as error:
            return text, error

    def _end_of_value(self) -> int | None:
        """Where the value that begins here ends; None if that is not in the text yet."""
        text, begin = self._text, self._at
        first = text[begin : begin + 1]
        if first not in (b"{", b"["):
            found = (_STRING if first == b'"' else _SCALAR).match(text, begin)
            if found is None and first != b'"':
                self._refuse("a value")
            return found.end() if found and (first == b'"' or found.end() < len(text)) else None
        depth = 0
        allowed = self._limits.dimensions + VALUES
        for marks, found in enumerate(_MARKS.finditer(text, begin)):
            mark = found.group()
            if mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return found.end()
            elif mark == b'"':
                return None
            if marks > allowed:
                raise BundleError(
                    f"The bundle has, from line {self.line:,} on, more than {allowed:,} texts, "
                    "lists and objects in one value, which no memory does. Nothing was imported."
                )
        return None

    def _more(self) -> bool:
        """Take in about as much text again as is unread; False at the end."""
        parts = [self._text[self._at :]]
        wanted = len(parts[0])
        got = 0
        for block in self._blocks:
            parts.append(block)
            got += len(block)
            if got > wanted:
                break
        self._text = b"".join(parts)
        self._at = 0
        return got > 0

    def _check_size(self, size: int) -> None:
        if size > self._limits.line_bytes:
            raise BundleError(
                f"The bundle has a line or an entry, from line {self.line:,} on, of more than "
                f"{self._limits.line_bytes:,} bytes (TRIBAL_LIMIT_LINE_BYTES). Nothing was "
                "imported. Raise the limit if you trust it."
            )

    def _refuse(self, expected: str) -> NoReturn:
        if not self.peek():
            self._cut_off(expected)
        raise BundleError(
            f"The bundle is damaged at line {self.line:,}: {expected} should stand there. "
            "Nothing was imported. Copy it again from its source."
        )

    def _cut_off(self, expected: str) -> NoReturn:
        raise BundleError(
            f"The bundle is cut off at line {self.line:,}: {expected} is missing. "
            "Nothing was imported. Copy it again from its source."
        )


def _utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text without its byte order mark."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4:  # noqa: PLR2004 - the longest mark
            break
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
        raise BundleError(
            "The file is UTF-16 or UTF-32; a bundle is UTF-8. Nothing was imported. Save it as "
            "UTF-8 and try again."
        )
    yield head.removeprefix(b"\xef\xbb\xbf")
    yield from blocks
