"""A strict JSON parser that refuses what `json.loads` accepts.

It refuses NaN, Infinity and numbers that overflow, duplicate keys (the last would win), integers
beyond 64 bits (they would become floats), lone surrogates (UTF-8 can't encode them), unbounded
nesting, and more values than are worth the memory. `parse_line` is the fast path: orjson parses
the line, and counting proves that it accepted nothing it should not. `parse` is the slow and exact
path, which also finds the error message.
"""

import json
import math
import re
import secrets
from collections.abc import Iterable
from typing import Any, NoReturn

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.portability.duplicate_names import repeated
from tribal_mcp.portability.vectors import read_numbers

STRING = rb'"(?:[^"\\]++|\\.)*+"'
"""Matches a JSON string, in memory that does not grow with it."""

VALUES = 200_000
"""The default limit of JSON values in one entry."""

_FEW_BYTES = 1 << 18  # a shorter text can't hold too many values
_INT64 = 1 << 63
_SMALL = float(1 << 62)
_STRINGS = re.compile(STRING, re.DOTALL)
_VECTOR_TEXT = b',"embedding":['
_VECTOR = re.compile(rb'[{,] ?"embedding": ?\[')
_PLACEHOLDER = secrets.token_hex()  # unpredictable, so that no text can contain it
_PLACEHOLDER_TEXT = b'"%b"' % _PLACEHOLDER.encode()
_GAP = re.compile(rb'"[ \t\r\n]+:')


class NotJSON(EntryError):
    """The text is not one JSON value.

    Attributes:
        line: the line of the error; the text begins at line 1.
    """

    line = 1


def parse_line(line: bytes, nesting: int, values: int = VALUES) -> Any:  # noqa: ANN401 - any JSON
    """The value of one line, with its vector as an array if the text shows that it is one.

    Raises:
        NotJSON: it is not JSON.
        EntryError: it is not strict JSON; the message says why.
    """
    _refuse_many(line, values)
    bare, numbers = _without_vector(line)
    try:
        value = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return parse(line, nesting, values)
    if _proven(bare, value, nesting - bool(numbers)) and _with_vector(value, numbers):
        return value
    return parse(line, nesting, values)


def parse(data: bytes, nesting: int, values: int = VALUES) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a text with at most `nesting` levels and about `values` values.

    Raises:
        NotJSON: it is not JSON.
        EntryError: it is not strict JSON; the message says why.
    """
    _refuse_many(data, values)
    text = data.decode(errors="replace")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        problem = NotJSON(f"not JSON: {error.msg} at character {error.colno}")
        problem.line = error.lineno
        raise problem from None
    except RecursionError:
        raise EntryError(f"nested deeper than {nesting} levels (TRIBAL_LIMIT_NESTING)") from None
    check(value, nesting)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise EntryError(f"byte {error.start + 1} is not UTF-8") from None
    return value


def _decode(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return _STRICT.decode(text)
    except EntryError:
        _LOOSE.decode(text)  # a syntax error takes precedence
        raise


def check(value: object, nesting: int) -> None:
    """Check that JSON can carry a value unchanged.

    Raises:
        EntryError: it would not read back the same, or is nested too deep.
    """
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        _check_children(value, nesting)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise EntryError("a number is NaN, Infinity or out of range for a float")
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise EntryError("an integer is beyond 64 bits")
    elif value is not None:
        raise EntryError(f"a {type(value).__name__} is not a JSON value")


def _check_children(value: dict[Any, Any] | list[Any], nesting: int) -> None:
    if not nesting:
        raise EntryError("nested too deep (TRIBAL_LIMIT_NESTING)")
    children = value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise EntryError(f"the key {key!r:.60} is not text")
            _check_text(key)
        children = list(value.values())
    if not _all_small(children):
        for child in children:
            check(child, nesting - 1)


def _check_text(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise EntryError(
                f"text has a lone surrogate ({value[error.start]!a}), which UTF-8 can't encode"
            ) from None


def _proven(line: bytes, value: object, nesting: int) -> bool:
    """Whether counting proves that the line is strict JSON; False if it can't tell.

    Every key ends in `":`, unless there is white space in between, which is searched for. So if
    there are as many `":` as keys in the value, no key is a duplicate. Text that looks like a key
    or a bracket only raises a count, and then nothing is proven.
    """
    if type(value) is not dict:
        return False
    objects = line.count(b"{")
    return (
        objects + line.count(b"[") <= nesting
        and line.count(b'":') == (len(value) if objects == 1 else _keys(value))
        and not _GAP.search(line)
        and _are_small(value.values())
    )


def _without_vector(line: bytes) -> tuple[bytes, bytes]:
    """The line with a placeholder for its vector, which is most of it, and the vector's text.

    The pattern can't match within a string, where a backslash precedes each quote. If the text up
    to the first bracket is not a list of numbers, `read_numbers` refuses it.
    """
    at = line.find(_VECTOR_TEXT)  # the spelling of our writer
    begin = at + len(_VECTOR_TEXT) - 1
    if at < 0:
        if (found := _VECTOR.search(line)) is None:
            return line, b""
        begin = found.end() - 1
    end = line.find(b"]", begin) + 1
    if not end:
        return line, b""
    return line[:begin] + _PLACEHOLDER_TEXT + line[end:], line[begin:end]


def _with_vector(value: object, numbers: bytes) -> bool:
    """Replace the placeholder by the vector.

    False if it is not the entry's own vector but, for example, one in its metadata.
    """
    if not numbers:
        return True
    if type(value) is not dict or value.get("embedding") != _PLACEHOLDER:
        return False
    vector = read_numbers(numbers)
    value["embedding"] = vector
    return vector is not None


def _keys(value: object) -> int:
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _are_small(values: Iterable[Any]) -> bool:
    """Whether no number is so large that it may have been an integer beyond 64 bits."""
    for value in values:
        kind = type(value)
        if kind is str or value is None:
            continue
        if kind is list:
            small = _are_small(value)
        elif kind is dict:
            small = _are_small(value.values())
        else:
            small = -_SMALL < value < _SMALL
        if not small:
            return False
    return True


def _all_small(values: Iterable[Any]) -> bool:
    """Whether all are small numbers: the Euclidean norm of all of them is small."""
    try:
        return math.hypot(*values) < _SMALL
    except (TypeError, OverflowError):
        return False


def _refuse_many(text: bytes, values: int) -> None:
    if len(text) > _FEW_BYTES:
        bare = _STRINGS.sub(b"", text)
        if (count := bare.count(b",") + bare.count(b"[") + bare.count(b"{")) > values:
            raise EntryError(f"it has {count:,} JSON values; the limit is {values:,}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise EntryError(f"duplicate key {repeated(pairs)!r:.60}")
    return value


def _constant(text: str) -> NoReturn:
    raise EntryError(f"{text} is not JSON")


def whole_number(text: str) -> int:
    """The integer that a text spells.

    Raises:
        EntryError: it does not fit in 64 bits.
    """
    value = int(text) if len(text) <= 20 else _INT64  # noqa: PLR2004 - digits of 64 bits
    if not -_INT64 <= value < _INT64:
        raise EntryError(f"the integer {text[:24]} is beyond 64 bits")
    return value


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=whole_number
)
_LOOSE = json.JSONDecoder(parse_int=str)
