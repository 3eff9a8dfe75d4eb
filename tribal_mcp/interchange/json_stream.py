"""Values at a place in a large JSON file, one at a time.

The standard parser reads each value from a buffer. It is fast, bounds nesting, and shows what it
would tolerate: a parser of events builds a path for each level, so a deeply nested file of a few
kilobytes fills the memory.
"""

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NoReturn

from tribal_mcp.errors import BundleError, EntryError

RECORD_CHARS = 64 << 20
"""The longest value that is read."""

_BLOCK = 1 << 18
_REST = len("e+")
"""So much of a number may be read without a difference to its value."""
_WHITE = " \t\r\n"


def values(file: BinaryIO, path: str, place: Sequence[str]) -> Iterator[Any]:
    """Each value at a place, in order.

    Args:
        file: the JSON text, UTF-8 or UTF-16 with a byte order mark.
        path: its path, for messages.
        place: the keys that lead there; "item" stands for each element of a list.

    Yields:
        The value; an EntryError if an object in it has a key twice.

    Raises:
        BundleError: it is not one JSON value, or one of the values is too large.
    """
    stream = _Stream(file, path)
    yield from stream.at(place)
    if stream.next():
        stream.fail("there is more text after its end")


class _Stream:
    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._text = ""
        self._at = 0
        self._is_end = False
        head = file.read(_BLOCK)
        encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._add(head)

    def at(self, place: Sequence[str]) -> Iterator[Any]:
        """Consume the next value: the values at a place in it."""
        if not place:
            yield self._value()
            return
        wanted, *rest = place
        match self.next():
            case "[":
                for _ in self._members("]"):
                    if wanted == "item":
                        yield from self.at(rest)
                    else:
                        self._value()
            case "{":
                for _ in self._members("}"):
                    key = self._key()
                    if key == wanted:
                        yield from self.at(rest)
                    else:
                        self._skip()
            case _:
                self._value()

    def next(self) -> str:
        """Skip white space: the next character, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _WHITE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def fail(self, reason: str) -> NoReturn:
        raise BundleError(f"{self._path!r:.80} is not valid JSON: {reason}.") from None

    def _skip(self) -> None:
        """Consume the next value; of a list or an object one member at a time."""
        match self.next():
            case "[":
                for _ in self._members("]"):
                    self._value()
            case "{":
                for _ in self._members("}"):
                    self._key()
                    self._value()
            case _:
                self._value()

    def _members(self, closing: str) -> Iterator[None]:
        """Consume a list or an object; the caller consumes each member."""
        self._at += 1
        if self.next() == closing:
            self._at += 1
            return
        while True:
            yield
            found = self.next()
            self._at += 1
            if found == closing:
                return
            if found != ",":
                self.fail(f"',' or {closing!r} is expected" if found else "it is truncated")

    def _key(self) -> str:
        if self.next() != '"':
            self.fail("the name of a value is expected")
        key: str = self._value()
        if self.next() != ":":
            self.fail("':' is expected")
        self._at += 1
        return key

    def _value(self) -> Any:  # noqa: ANN401 - any JSON value
        if not self.next():
            self.fail("it is truncated")
        while True:
            try:
                value, end = self._decoded()
            except json.JSONDecodeError as error:
                if not self._more():
                    self.fail(error.msg)
            except RecursionError:
                self.fail("it is nested too deeply")
            except ValueError as error:
                self.fail(str(error))
            else:
                if end + _REST < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _decoded(self) -> tuple[Any, int]:
        try:
            return _STRICT.raw_decode(self._text, self._at)
        except EntryError as error:
            return error, _LOOSE.raw_decode(self._text, self._at)[1]

    def _more(self) -> bool:
        """Read about as much text again as is unread; False at the end."""
        if self._is_end:
            return False
        unread = len(self._text) - self._at
        if unread > RECORD_CHARS:
            raise BundleError(
                f"A record of {self._path!r:.80} is larger than {RECORD_CHARS >> 20} MiB."
            )
        self._text = self._text[self._at :]
        self._at = 0
        self._add(self._file.read(max(unread, _BLOCK)))
        return True

    def _add(self, data: bytes) -> None:
        self._is_end = not data
        try:
            self._text += self._decoder.decode(data, self._is_end)
        except UnicodeDecodeError:
            self.fail("it is not UTF-8 text")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these members, for a JSON decoder.

    Raises:
        EntryError: a key is given twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EntryError("an object has a key twice")
    return found


def no_constant(name: str) -> float:
    """Refuse NaN and Infinity, for a JSON decoder."""
    raise ValueError(f"{name} is not a number")


_STRICT = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant)
_LOOSE = json.JSONDecoder(parse_constant=no_constant)
