"""Mutated samples of every format: refused, or read with every record accounted for."""

import gzip
import io
import json
import os
import random
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.interchange.samples import (
    EXPECTED,
    SAMPLES,
    read_sample,
    sample_names,
    source_at,
    source_of,
)
from tribal_mcp.errors import TribalError
from tribal_mcp.interchange.base import Options
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.interchange.source import Source

RUNS = min(int(os.environ.get("TRIBAL_FUZZ", "2000")), 200_000)
PARTS = ("first", "second", "third", "fourth")

_NESTED: Any = "x"
for _ in range(60):
    _NESTED = [_NESTED]
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, 10**30, -(10**30), 1e15, 1e18, 1e-9, "", " ", "x",
    "x" * 5000, "\ud800", "\0", "\u2028", "2026-02-30", "2026-01-01", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "NaN", "1e999", "../../etc/passwd", [], {}, [None], [[]],
    ["\ud800"], {"": ""}, {"id": {}}, [1, "a", None, {}], _NESTED,
)  # fmt: skip
_TOKENS = (
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\n", b"\r", b"---\n",
    b"NaN", b"1e999", b"9" * 400, b"[" * 200, b"{" * 200, b'"', b"\\", b",", b":", b"- [x](", b"[[",
    b"<!--", b"&#x", b"</div>", b"&a *a", b"'" * 50,
)  # fmt: skip


def mutated_bytes(dice: random.Random, data: bytes) -> bytes:
    begin, end = sorted(dice.randint(0, len(data)) for _ in range(2))
    match dice.randrange(5):
        case 0:
            out = bytearray(data)
            for _ in range(dice.randint(1, 8) if data else 0):
                out[dice.randrange(len(out))] = dice.randrange(256)
            return bytes(out)
        case 1:
            return data[:begin]
        case 2:
            return data[:begin] + data[end:]
        case 3:
            return data[:begin] + dice.choice(_TOKENS) + data[begin:]
        case _:
            return data[:end] + data[begin:end] + data[end:]


def mutated_value(dice: random.Random, root: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value with one member replaced, removed, repeated or renamed."""
    places = [({"root": root}, "root"), *_places(root)]
    parent, key = dice.choice(places)
    match dice.randrange(4):
        case 1 if len(places) > 1 and key != "root":
            del parent[key]
        case 2 if isinstance(parent, list):
            parent.append(deepcopy(parent[key]))
        case 3 if isinstance(parent, dict) and key != "root":
            parent[dice.choice(["", "id", "\ud800", "x"])] = parent.pop(key)
        case _:
            parent[key] = deepcopy(dice.choice(_VALUES))
    return places[0][0]["root"]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - any JSON value
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys) if isinstance(value, dict | list) else []:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def mutated_json(dice: random.Random, data: bytes) -> bytes:
    """A JSON document, or one line of JSON Lines, with another value somewhere."""
    rows = data.split(b"\n")
    number = dice.randrange(len(rows))
    whole = True
    try:
        value = json.loads(data)
    except ValueError:
        try:
            value, whole = json.loads(rows[number]), False
        except ValueError:
            return mutated_bytes(dice, data)
    for _ in range(dice.randint(1, 3)):
        if isinstance(value, dict | list):
            value = mutated_value(dice, value)
    text = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass")
    if whole:
        return text
    rows[number] = text
    return b"\n".join(rows)


def mutated_database(dice: random.Random, data: bytes) -> bytes:
    """A SQLite database with a value of another type in one cell."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(data)
            listed = (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
            )
            tables = [name for (name,) in connection.execute(listed) if "fts" not in name]
            table = dice.choice(tables)
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            value = dice.choice([None, 0, -1.5, 2**62, "", "x", b"\xff\0", "\u2028", "{", "[1"])
            connection.execute(f'UPDATE "{table}" SET "{dice.choice(columns)}" = ?', [value])  # noqa: S608
        except (sqlite3.Error, IndexError):
            return mutated_bytes(dice, data)
        connection.commit()
        return connection.serialize()


def mutated_zip(dice: random.Random, data: bytes) -> bytes:
    """The archive with a member that is mutated, renamed or missing."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as written:
        names = archive.namelist()
        chosen = dice.choice(names)
        for name in names:
            content = archive.read(name)
            if name == chosen:
                content = mutated(dice, content)
                name = dice.choice([name, name, name, f"{name}x", f"a/{name}", f"../{name}"])  # noqa: PLW2901
            written.writestr(name, content)
    return out.getvalue()


def mutated(dice: random.Random, data: bytes) -> bytes:
    """The file with a small change, in a way that suits its content."""
    suited: Callable[[random.Random, bytes], bytes] = mutated_bytes
    if data.startswith(b"PK"):
        suited = mutated_zip
    elif data.startswith(b"SQLite format 3"):
        suited = mutated_database
    elif data.startswith(b"\x1f\x8b"):
        return gzip.compress(mutated(dice, gzip.decompress(data)))
    elif data.lstrip()[:1] in (b"{", b"["):
        suited = mutated_json
    return (suited if dice.random() < 0.7 else mutated_bytes)(dice, data)


class Samples:
    """Samples from which mutated sources are made; folders are changed and restored on disk."""

    def __init__(self, path: Path) -> None:
        self.names = [name for name in sample_names() if _size(SAMPLES / name) < 1 << 20]
        self.formats = {
            name: json.loads((SAMPLES / f"{name}{EXPECTED}").read_text())["format"]
            for name in self.names
        }
        self._path = path
        for name in self.names:
            if (SAMPLES / name).is_dir():
                copytree(SAMPLES / name, path / name)

    def check(self, seed: int) -> None:
        """Read one mutated sample.

        Raises:
            AssertionError: its records are not accounted for.
        """
        dice = random.Random(seed)  # noqa: S311 - test data
        name = self.names[seed % len(self.names)]
        if name not in self.formats:
            return
        named = "" if dice.random() < 0.3 else self.formats[name]
        options = Options(conversations=dice.random() < 0.5)
        folder = self._path / name
        if not folder.is_dir():
            data = (SAMPLES / name).read_bytes()
            read(lambda: source_of(mutated(dice, data), name), options, named)
            return
        chosen = dice.choice(sorted(filter(Path.is_file, folder.rglob("*"))))
        data = chosen.read_bytes()
        chosen.write_bytes(mutated(dice, data))
        try:
            read(lambda: source_at(folder), options, named)
        finally:
            chosen.write_bytes(data)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def read(opened: Callable[[], Source], options: Options, named: str) -> None:
    try:
        source = opened()
        if not named and recognise(source) is None:
            return
        conversion, entries, _ = read_sample(source, options, named)
    except TribalError:
        return
    assert conversion.entries == len(entries)
    assert conversion.found == (
        len(entries) + conversion.deleted + conversion.left_out.total() + conversion.rejected_count
    )


@pytest.mark.campaign
@pytest.mark.parametrize("part", PARTS)
def test_fuzzed_sources_are_refused_or_every_record_is_accounted_for(
    part: str, tmp_path: Path
) -> None:
    samples = Samples(tmp_path)
    failures = []
    for seed in range(PARTS.index(part), RUNS, len(PARTS)):
        try:
            samples.check(seed)
        except Exception as error:  # noqa: BLE001 - every failure is reported with its seed
            failures.append(f"{seed} {samples.names[seed % len(samples.names)]}: {error!r:.200}")
    assert failures == []
