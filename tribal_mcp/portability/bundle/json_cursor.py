"""A cursor over the text of a bundle that finds where each JSON value begins and ends.

It holds one value and one block at a time. `strict_json` parses the value, so every layout is read
equally strictly. Text that begins at a value and is valid JSON as a whole is exactly that value. So
an entry is first assumed to be the rest of its line, which is fast; only if that fails does the
cursor count brackets.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.integrity import COPY_AGAIN, RAISE_LIMIT
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.strict_json import STRING, VALUES, NotJSON

Loads = Callable[[bytes], Any]
"""Parses one value; raises ValueError, or its subclass EntryError with a reason."""

_COMMA = ord(",")
_WHITE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(STRING, re.DOTALL)
_TOKENS = re.compile(rb'["{}\[\]](?:(?<=")(?:[^"\\]++|\\.)*+")?+', re.DOTALL)
_LINE_END = re.compile(rb",?[ \t\r]*+\n")
_SCALAR = re.compile(rb'[^\s,:"{}\[\]]++')


class Cursor:
    """A position in a text that arrives in blocks.

    Attributes:
        line: the line number, from 1.
    """

    def __init__(self, blocks: Iterator[bytes], limits: Limits) -> None:
        self.line = 1
        self._blocks = _utf8(blocks)
        self._limits = limits
        self._text = b""
        self._at = 0
        self._by_line = True

    def peek(self) -> bytes:
        """Skip white space: the next character, or empty bytes at the end."""
        while True:
            begin = self._at
            white = _WHITE.match(self._text, begin)
            self._at = white.end() if white else begin
            self.line += self._text.count(b"\n", begin, self._at)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, *expected: bytes) -> bytes:
        """Consume the next character, which must be one of these."""
        found = self.peek()
        if found not in expected:
            self._unexpected(" or ".join(repr(one.decode()) for one in expected))
        self._at += 1
        return found

    def follows(self, text: bytes) -> bool:
        """Whether exactly this text is next."""
        while len(self._text) - self._at < len(text) and self._more():
            pass
        return self._text.startswith(text, self._at)

    def value(self) -> tuple[int, bytes]:
        """Consume the next value: its line and its text, which may be invalid JSON."""
        if not self.peek():
            self._unexpected("a value")
        line = self.line
        while (end := self._end_of_value()) is None:
            self._check_size(len(self._text) - self._at)
            if not self._more():
                self._truncated("the end of a value")
        self._check_size(end - self._at)
        text = self._text[self._at : end]
        self.line += text.count(b"\n")
        self._at = end
        return line, text

    def items(self, loads: Loads) -> Iterator[tuple[int, bytes, Any]]:
        """Consume a list: the line, the text and the value of each item.

        The value is an EntryError if the item is JSON but not strict JSON.
        """
        self.take(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        while True:
            line = self.line
            text, value = self._item(loads)
            yield line, text, value
            if self._text.startswith(
                b",\n{", self._at
            ):  # the common case, without a regular expression
                self._at += 2
                self.line += 1
            elif self.take(b",", b"]") == b"]":
                return
            else:
                self.peek()

    def lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """Consume the rest: the number and text of each line, and whether a newline ends it."""
        most = 2 * self._limits.entries + 1_000
        while True:
            newline = self._text.find(b"\n", self._at)
            if newline >= 0:
                self._check_size(newline - self._at)
                if self.line > most:
                    raise BundleError(
                        f"The bundle has more than {most:,} lines, more than half of them blank "
                        "(TRIBAL_LIMIT_ENTRIES).",
                        NextStep("Remove the blank lines."),
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
                f"The bundle is damaged at line {line + error.line - 1:,}: {error}.", COPY_AGAIN
            ) from None
        except EntryError as error:
            return text, error

    def _end_of_value(self) -> int | None:
        """Where the value that begins here ends; None if the text does not reach that far."""
        text, begin = self._text, self._at
        first = text[begin : begin + 1]
        if first not in (b"{", b"["):
            found = (_STRING if first == b'"' else _SCALAR).match(text, begin)
            if found is None and first != b'"':
                self._unexpected("a value")
            return found.end() if found and (first == b'"' or found.end() < len(text)) else None
        depth = 0
        allowed = self._limits.dimensions + VALUES
        for tokens, found in enumerate(_TOKENS.finditer(text, begin)):
            token = found.group()
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return found.end()
            elif token == b'"':
                return None
            if tokens > allowed:
                raise BundleError(
                    f"The value at line {self.line:,} has more than {allowed:,} strings, lists and "
                    "objects, too many for a memory.",
                    COPY_AGAIN,
                )
        return None

    def _more(self) -> bool:
        """Read about as much text again as is unread; False at the end."""
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
                f"A line or an entry at line {self.line:,} has more than "
                f"{self._limits.line_bytes:,} bytes (TRIBAL_LIMIT_LINE_BYTES).",
                RAISE_LIMIT,
            )

    def _unexpected(self, expected: str) -> NoReturn:
        if not self.peek():
            self._truncated(expected)
        raise BundleError(f"Invalid JSON at line {self.line:,}: expected {expected}.", COPY_AGAIN)

    def _truncated(self, expected: str) -> NoReturn:
        raise BundleError(
            f"The bundle is truncated at line {self.line:,}: expected {expected}.", COPY_AGAIN
        )


def _utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The text without its byte order mark.

    Raises:
        BundleError: the encoding is UTF-16 or UTF-32.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4:  # noqa: PLR2004 - the longest mark
            break
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
        raise BundleError(
            "The file is UTF-16 or UTF-32, but a bundle is UTF-8.",
            NextStep("Save it as UTF-8 and try again."),
        )
    yield head.removeprefix(b"\xef\xbb\xbf")
    yield from blocks
