"""JSON that is refused where `json.loads` lets it through.

NaN and Infinity, numbers that overflow, keys that stand twice (the last would win), whole numbers
beyond 64 bits (they would become floats), lone surrogates (no UTF-8 can hold them) and nesting
without an end. Fast where a line is the usual one: parsed by orjson, and shown by its keys to hold
nothing that orjson would have let through.
"""

import json
import math
import re
from typing import Any, BinaryIO, NoReturn

import orjson

from tribal_mcp.errors import EntryError

_KNOWN = frozenset(
    {
        "id", "content", "embedding", "source_instance", "source_type", "created_at", "updated_at",
        "tags", "context", "confidence", "supersedes", "related_to",
    }
)  # fmt: skip
_INT64 = 1 << 63
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_PAIR_BYTES = 12
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_line(line: bytes, nesting: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value of one line.

    Raises:
        EntryError: it is not strict JSON; the message says why.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return parse(line, nesting)
    # Every key ends in `":` or has white space in between, which is looked for. So if there are
    # as many as keys, none stands twice. A known key holds no whole number that could overflow
    # but where any number does.
    if (
        type(value) is dict
        and value.keys() <= _KNOWN
        and line.count(b'":') == len(value)
        and not (b'" ' in line or b'"\t' in line or b'"\r' in line or b'"\n' in line)
    ):
        return value
    return parse(line, nesting)


def parse(data: bytes, nesting: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a text, at most `nesting` levels deep.

    Raises:
        EntryError: it is not strict JSON; the message says why.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=whole_number,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise EntryError(f"byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise EntryError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise EntryError(f"nested deeper than {nesting} levels") from None
    _check(value, nesting)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise EntryError(f"the key {twice!r:.60} stands twice")
    return value


def _constant(text: str) -> NoReturn:
    raise EntryError(f"{text} is not JSON")


def whole_number(text: str) -> int:
    """The whole number of a text.

    Raises:
        EntryError: it does not fit in 64 bits.
    """
    value = int(text) if len(text) <= 20 else _INT64  # noqa: PLR2004 - digits of 64 bits
    if not -_INT64 <= value < _INT64:
        raise EntryError(f"the whole number {text[:24]} is beyond 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise EntryError(f"the number {text[:24]} is beyond a float")
    return value


def _check(value: object, levels: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise EntryError(
                    f"a lone surrogate ({value[error.start]!a}), which no UTF-8 can hold"
                ) from None
    elif isinstance(value, dict | list):
        if not levels:
            raise EntryError("nested too deep (TRIBAL_LIMIT_NESTING)")
        if isinstance(value, dict):
            for key, child in value.items():
                _check(key, levels - 1)
                _check(child, levels - 1)
        elif value and not set(map(type, value)) <= {float, int}:
            for child in value:
                _check(child, levels - 1)


class SurrogateGuard:
    """A stream of JSON that is watched for lone surrogates, which the streaming parser mangles."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._rest = b""

    def read(self, size: int) -> bytes:
        """The next part of the stream.

        Raises:
            EntryError: a surrogate escape without its other half has come by.
        """
        chunk = self._source.read(size)
        data = self._rest + chunk
        cut = len(data) if not chunk else _between_escapes(data)
        self._rest = data[cut:]
        _refuse_lone_surrogates(data[:cut])
        return chunk


def _between_escapes(data: bytes) -> int:
    """A place near the end that is in no escape and in no pair of them."""
    cut = len(data)
    while (before := data.rfind(b"\\", 0, cut)) >= 0 and cut - before <= _PAIR_BYTES:
        cut = before
    return cut


def _refuse_lone_surrogates(data: bytes) -> None:
    if not _SURROGATE.search(data):
        return
    high_end = -1
    for match in _ESCAPE.finditer(data):
        code = int(match.group(1), 16) if match.group(1) else 0
        is_low = 0xDC00 <= code < 0xE000  # noqa: PLR2004 - Unicode's ranges
        if is_low != (high_end == match.start()) or (high_end >= 0 and not is_low):
            raise EntryError("a lone surrogate, which no UTF-8 can hold")
        high_end = match.end() if 0xD800 <= code < 0xDC00 else -1  # noqa: PLR2004
    if high_end >= 0:
        raise EntryError("a lone surrogate, which no UTF-8 can hold")
