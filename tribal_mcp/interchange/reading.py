"""Reading JSON, JSON Lines and dates of other programs, strictly and in bounded memory."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.origins import Origin, decoded
from tribal_mcp.interchange.json_stream import RECORD_CHARS, no_constant, unique, values
from tribal_mcp.portability.memory import EPOCH, read_date
from tribal_mcp.portability.vectors import kind_of

_RECORD_BYTES = RECORD_CHARS
_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 1e11, 1e14, 1e17
"""From which number on an epoch time is in ms, µs or ns: in seconds it would be after 5138."""
_LARGEST = 1e30


def items(origin: Origin, path: str, prefix: str = "item") -> Iterator[Any]:
    """The values at a place in a JSON file, one at a time.

    A value is an EntryError if an object in it has a key twice.

    Args:
        origin: where the file is.
        path: its path there.
        prefix: the place: "item" for the elements of a list, "memories.item" for those of a list
            in an object, "" for the whole document.

    Raises:
        BundleError: the file is not valid JSON, or one value is too large.
    """
    with origin.open(path) as file:
        yield from values(file, path, prefix.split(".") if prefix else ())


def documents(origin: Origin, path: str) -> Iterator[Any]:
    """The elements of a JSON list, or another JSON value itself; see `items`."""
    is_list = opening(origin, path, 64).lstrip()[:1] == "["
    yield from items(origin, path, "item" if is_list else "")


def whole_json(origin: Origin, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a small JSON file.

    Raises:
        BundleError: it is not valid JSON, or too large.
    """
    return next(items(origin, path, ""), None)


def json_lines(origin: Origin, path: str) -> Iterator[tuple[int, Any]]:
    """Each line of a JSON Lines file that is not empty: its number, and its value.

    The value is an EntryError if the line is not valid JSON. A record may contain U+2028.

    Raises:
        BundleError: a line is too large.
    """
    for number, line in lines(origin, path):
        try:
            yield number, parsed(line)
        except EntryError as error:
            yield number, error


def lines(origin: Origin, path: str) -> Iterator[tuple[int, bytes]]:
    r"""Each line that is not empty, split at `\n` only: its number from 1, and its bytes.

    Raises:
        BundleError: a line is too large.
    """
    with origin.open(path) as file:
        number = 0
        while line := file.readline(_RECORD_BYTES + 1):
            number += 1
            if len(line) > _RECORD_BYTES:
                raise BundleError(f"Line {number:,} of {path!r:.80} is larger than 64 MiB.")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def parsed(text: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value; a key must not be given twice, and NaN is not a number.

    Raises:
        EntryError: it is not valid JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError:
        raise EntryError("is nested too deeply") from None
    except EntryError:
        raise
    except ValueError as error:
        raise EntryError(f"is not valid JSON: {error}") from None


def read_time(value: object) -> datetime | None:
    """The point in time that a program wrote: ISO 8601, or a number since 1970 in s, ms, µs or ns.

    None, "", 0 and "unknown" mean unknown. A date without a time is midnight UTC, and a time
    without an offset is UTC, which may stand after it.

    Raises:
        EntryError: it is something else.
    """
    if isinstance(value, bool):
        raise EntryError(f"{value!r} is not a date")
    if isinstance(value, str):
        text = value.strip()
        if not text or text.casefold() in {"unknown", "none", "null"}:
            return None
        with suppress(ValueError):
            return read_date(text.removesuffix(" UTC"))
        with suppress(ValueError):
            return read_time(float(text))
        raise EntryError(f"{text!r:.60} is not a date")
    if isinstance(value, int | float):
        return _epoch(value)
    if value is None:
        return None
    raise EntryError(f"{value!r:.60} is not a date")


def _epoch(value: float) -> datetime | None:
    if not value:
        return None
    if not abs(value) < _LARGEST:  # NaN is not smaller either
        raise EntryError(f"{value!r:.60} is not a date")
    size = abs(value)
    scale = 1_000_000
    if size >= _NANOSECONDS_FROM:
        return _after(int(value) // 1000)
    if size >= _MICROSECONDS_FROM:
        scale = 1
    elif size >= _MILLISECONDS_FROM:
        scale = 1000
    return _after(round(value * scale))


def _after(microseconds: int) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise EntryError(f"{microseconds} microseconds since 1970 is not a date") from None


def local_time(text: str, layout: str) -> datetime:
    """A time in another notation, as UTC.

    Raises:
        EntryError: it doesn't have this layout (of `strptime`).
    """
    try:
        return datetime.strptime(text, layout).replace(tzinfo=UTC)
    except ValueError:
        raise EntryError(f"{text!r:.60} is not a date") from None


def object_of(value: object, what: str) -> dict[str, Any]:
    """The value, which must be a JSON object; `what` names it in the message.

    Raises:
        EntryError: it is something else, or is an EntryError itself.
    """
    if isinstance(value, EntryError):
        raise value
    if not isinstance(value, dict):
        raise EntryError(f"{what} is {kind_of(value)}, not an object")
    return value


def texts(value: object) -> list[str]:
    """Tags or other short texts, from a list or a text with commas; empty and repeated ones go.

    Raises:
        EntryError: it is something else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or not all(isinstance(v, str | int | float) for v in value):
        raise EntryError(f"{value!r:.60} is not a list of texts")
    return list(dict.fromkeys(t for v in value if (t := str(v).strip())))


def opening(origin: Origin, path: str, size: int = 4096) -> str:
    """The first characters of a text file; empty if it isn't text."""
    with origin.open(path) as file:
        data = file.read(size)
    with suppress(ValueError):
        return decoded(data)
    for cut in range(1, 4):  # within a character
        with suppress(ValueError):
            return decoded(data[:-cut])
    return ""
