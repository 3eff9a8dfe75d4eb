"""Rows of CSV and Parquet files."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.origins import Origin, head_of
from tribal_mcp.interchange.mapping import Rows
from tribal_mcp.interchange.own_table import MODEL_KEY
from tribal_mcp.text import counted

_DELIMITERS = ",;\t|"
_HEAD_CHARS = 1 << 16
_HEAD_LINES = 200
_FIELD_CHARS = 64 << 20
_BATCH = 1000


def csv_head(text: str) -> list[list[str]]:
    """The header and the first row of a CSV text; nothing if it isn't one.

    Args:
        text: its beginning.
    """
    lines = text[:_HEAD_CHARS].split("\n")[:_HEAD_LINES]
    reader = csv.reader(lines, _dialect(text))
    try:
        rows = list(islice(filter(_is_row, reader), 2))
    except csv.Error:
        return []
    if len(rows) < 2 or len(rows[0]) < 2 or len(rows[0]) != len(rows[1]):  # noqa: PLR2004
        return []
    rows[0] = _names(rows[0])
    return rows if len({*rows[0]}) == len(rows[0]) else []


def csv_rows(origin: Origin, path: str) -> Rows:
    """The rows of a CSV file, with the line at which each begins.

    Raises:
        BundleError: it is not UTF-8 or UTF-16, or its header names a column twice.
    """
    head = head_of(origin, path)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    dialect = _dialect(head.decode(encoding, "ignore"))
    with origin.open(path) as file:
        try:
            yield from _rows(io.TextIOWrapper(file, encoding, newline=""), path, dialect)
        except UnicodeError:
            raise BundleError(
                f"{path!r:.80} is not UTF-8 text. Save it as CSV with the encoding UTF-8."
            ) from None


def _rows(text: TextIO, path: str, dialect: type[csv.Dialect]) -> Rows:
    csv.field_size_limit(_FIELD_CHARS)
    reader = csv.reader(_lines(text, path), dialect, strict=True)
    header: Sequence[str] = ()
    while True:
        where = f"line {reader.line_num + 1:,}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield where, EntryError(f"it is not valid CSV: {error}")
            continue
        if row is None:
            return
        if not row or not (header or _is_row(row)):
            continue
        if not header:
            header = _header(row, path)
        elif len(row) != len(header):
            yield (
                where,
                EntryError(
                    f"it has {counted(len(row), 'value')}, and the header has {len(header):,}"
                ),
            )
        else:
            yield where, dict(zip(header, row, strict=True))


def _lines(text: TextIO, path: str) -> Iterator[str]:
    while line := text.readline(_FIELD_CHARS + 1):
        if len(line) > _FIELD_CHARS:
            raise BundleError(f"A line of {path!r:.80} is longer than 64 Mi characters.")
        yield line


def _header(row: list[str], path: str) -> list[str]:
    names = _names(row)
    if twice := [name for name in names if names.count(name) > 1]:
        raise BundleError(f"The header of {path!r:.80} has the column {twice[0]!r:.80} twice.")
    return names


def _is_row(row: list[str]) -> bool:
    """Whether a row is neither empty nor the line with which Excel names the delimiter."""
    return bool(row) and row != ["sep=", ""]


def _names(row: list[str]) -> list[str]:
    return [name.strip() or f"column {number}" for number, name in enumerate(row, 1)]


def _dialect(head: str) -> type[csv.Dialect]:
    """Commas, semicolons, tabs or bars, whichever the header has most; doubled quotes."""
    header = head.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    return type("Found", (csv.excel,), {"delimiter": delimiter})


def parquet_rows(origin: Origin, path: str) -> Rows:
    """The rows of a Parquet file.

    Raises:
        BundleError: pyarrow is not installed, or the file is damaged.
    """
    with origin.open(path) as file:
        number = 0
        for batch in _batches(file, path):
            for row in batch:
                number += 1
                yield f"row {number:,}", row


def _batches(file: Any, path: str) -> Iterator[list[dict[str, Any]]]:  # noqa: ANN401 - a binary file
    parquet = _parquet(path)
    try:
        for batch in parquet.ParquetFile(file).iter_batches(_BATCH):
            yield batch.to_pylist()
    except Exception as error:
        if isinstance(error, BundleError | MemoryError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise BundleError(f"{path!r:.80} is not a readable Parquet file: {reason}.") from None


def parquet_columns(origin: Origin, path: str) -> list[str]:
    """The columns of a Parquet file; none if it can't be read."""
    try:
        with origin.open(path) as file:
            return list(_parquet(path).ParquetFile(file).schema_arrow.names)
    except Exception:  # noqa: BLE001 - whatever a library raises for a damaged file
        return []


def parquet_model(origin: Origin, path: str) -> bytes | None:
    """What the file's metadata say about the model of its vectors."""
    try:
        with origin.open(path) as file:
            named = _parquet(path).ParquetFile(file).schema_arrow.metadata or {}
    except Exception:  # noqa: BLE001 - as above
        return None
    found: bytes | None = named.get(MODEL_KEY)
    return found


def _parquet(path: str) -> Any:  # noqa: ANN401 - a module
    try:
        from pyarrow import parquet  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError:
        raise BundleError(
            f"To read {path!r:.80}, install the package pyarrow where tribal-mcp is installed."
        ) from None
    return parquet
