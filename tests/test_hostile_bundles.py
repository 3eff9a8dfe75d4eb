"""Bundles that were cut off, changed, or made to hurt: refused, or read correctly; never between."""

import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.bundles import read, written
from tests.examples import SAMPLES, memories, memory
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle import Compression, Layout
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import dump_entry, entry_to_dict

RUNS = int(os.environ.get("TRIBAL_FUZZ", "5000"))
SMALL = Limits(line_bytes=1 << 20)

WRITTEN: dict[str, tuple[Layout, Compression]] = {
    "json": ("json", "none"),
    "jsonl": ("jsonl", "none"),
    "json.gz": ("json", "gzip"),
    "jsonl.gz": ("jsonl", "gzip"),
    "json.zst": ("json", "zstd"),
    "jsonl.zst": ("jsonl", "zstd"),
}


def small_bundle(name: str) -> bytes:
    entries = [memory(0), memory(1, embedding=None, metadata={"a": [1, {"b": None}]}), memory(2)]
    if name in WRITTEN:
        return written(entries, *WRITTEN[name])
    if name == "lines":
        return b"".join(dump_entry(entry) + b"\n" for entry in entries)
    bundle = json.loads(written(entries))
    return json.dumps(bundle, indent={"pretty": 1, "one line": None}[name]).encode()


@pytest.mark.parametrize("name", [*WRITTEN, "pretty", "one line"])
def test_a_bundle_that_is_cut_off_at_any_byte_is_refused(name: str) -> None:
    data = small_bundle(name)
    for length in range(len(data)):
        with pytest.raises(BundleError):
            read(data[:length])
    assert len(read(data).entries) == 3


def test_a_stream_without_manifest_that_is_cut_off_is_refused_or_has_exactly_whole_lines() -> None:
    data = small_bundle("lines")
    whole = read(data).entries
    taken = 0
    for length in range(len(data)):
        part = data[:length]
        lines = part.count(b"\n") + (data[length : length + 1] == b"\n")
        is_whole = part.endswith(b"\n") or data[length : length + 1] == b"\n"
        if lines and is_whole:
            result = read(part)
            assert result.entries == whole[:lines]
            assert result.rejected == []
            taken += 1
        else:
            with pytest.raises(BundleError):
                read(part)
    assert taken == 5


def form(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """What a bundle holds, as the standard library reads it."""
    try:
        return json.loads(data)
    except ValueError:
        return [json.loads(line) for line in data.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["json", "jsonl", "pretty"])
def test_one_changed_byte_is_refused_or_changes_nothing(name: str) -> None:
    data = small_bundle(name)
    expected = read(data)
    head = expected.reader.manifest
    random.seed(1)
    harmless = 0
    for at, old in enumerate(data):
        for new in {old ^ 1, old ^ 32, ord(" "), ord("\n"), ord('"'), random.randrange(256)} - {old}:  # noqa: S311
            changed = data[:at] + bytes([new]) + data[at + 1 :]
            try:
                result = read(changed)
            except BundleError:
                continue
            harmless += 1
            assert result.entries == expected.entries
            assert result.reader.manifest == head
            assert result.rejected == []
            if form(changed) != form(data):  # a part that is not known is named in a note
                assert result.notes
    assert harmless < (20 if name == "pretty" else 0) + len(data)


@pytest.mark.parametrize("name", ["json.gz", "json.zst"])
def test_one_changed_byte_of_a_compressed_bundle_is_refused_or_changes_nothing(name: str) -> None:
    data = small_bundle(name)
    expected = read(data).entries
    for at in range(len(data)):
        for bit in (1, 16, 128):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                assert read(changed).entries == expected
            except BundleError:
                continue


# Mutations of real bundles


def _seeds() -> list[bytes]:
    rich = [
        memory(0, metadata={"embedding": [1.5], "deep": {"x": [1, {}]}}, extra={"mood": "ü\0"}),
        memory(1, embedding=None, context='quote " and \\', supersedes="memory-0"),
        memory(2, tags=[], related_to=["memory-0", "gone"]),
    ]
    seeds = [small_bundle(name) for name in (*WRITTEN, "pretty", "one line", "lines")]
    seeds += [written(rich), written(rich, "jsonl"), written(rich, vectors="base64")]
    bare = json.loads(written(rich))
    del bare["integrity"]  # so that a mutation is not refused for its hash alone
    seeds += [json.dumps(bare).encode(), json.dumps(bare, indent=2).encode()] * 4
    seeds += [b"\n".join(map(dump_entry, rich))] * 4
    sample = json.loads((SAMPLES / "hand5.inmemory.json").read_bytes())
    for entry in sample["entries"]:
        entry["embedding"] = entry["embedding"][:8]
        entry["content"] = entry["content"][:200]
    sample["manifest"]["embedding"]["dimensions"] = 8
    return [*seeds, json.dumps(sample, ensure_ascii=False).encode()]


TOKENS = [
    *(b'{ } [ ] , : " \\ \n \r \0 \xff \xef\xbb\xbf null true NaN -Infinity 1e999 1e39 -0'.split(b" ")),
    *(b'"id" "embedding" "entries" "manifest" "integrity" "\\ud800" 9223372036854775808'.split()),
    *(b'"id":"memory-0", "tags":"x", {"integrity":{}} {"manifest":{}} [[[[ "embedding":[]'.split()),
    b" " * 50, b"1" * 400, b"[" * 200, b'{"a":' * 50, b"\n\n", b"\r\n", b"],", b"},\n{",
]  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bundle with one to three things done to it."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at, length = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 8, 100, 1000))
        other = dice.randrange(len(data) + 1)
        match dice.randrange(8):
            case 0:
                data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + length :]
            case 2:
                data = data[:at] + dice.choice(TOKENS) + data[at:]
            case 3:
                token = dice.choice(TOKENS)
                data = data[:at] + token + data[at + len(token) :]
            case 4:
                data = data[:other] + data[at : at + length] + data[other:]
            case 5:
                data = data[:at]
            case 6:
                lines = data.split(b"\n")
                first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
                lines[first], lines[second] = lines[second], lines[dice.choice((first, second))]
                data = b"\n".join(lines)
            case _:
                old = dice.choice((b'"', b",", b":", b"0", b"1", b"{", b"]", b"null", b"."))
                data = data.replace(old, dice.choice(TOKENS), 1) if at % 2 else data
        data = data or b"x"
    return data


class Loose(ValueError):
    """JSON that only a lenient reader takes."""


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Loose
    return dict(pairs)


def _forbidden(_: str) -> None:
    raise Loose


def independent_entries(data: bytes) -> list[Any]:
    """The entries of a bundle as an independent reader of its text sees them; None for a bad one."""
    text = data.removeprefix(b"\xef\xbb\xbf")

    def loads(text: bytes) -> Any:  # noqa: ANN401
        return json.loads(text.decode(), object_pairs_hook=_strict, parse_constant=_forbidden)

    try:
        return list(loads(text)["entries"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    found = []
    for line in text.split(b"\n"):
        try:
            found.append(loads(line.strip(b" \t\r")) if line.strip(b" \t\r") else ...)
        except (ValueError, RecursionError):
            found.append(None)
    return [
        value
        for value in found
        if value is not ... and not (isinstance(value, dict) and {*value} <= {"manifest", "integrity"})
    ]


def assert_same(entry: dict[str, Any], source: dict[str, Any]) -> None:
    """The entry is what its source says, with vectors as float32 and the rest to the letter."""
    given = dict(source)
    vector = given.pop("embedding", None)
    taken = entry.pop("embedding")
    if isinstance(vector, str):
        vector = np.frombuffer(__import__("base64").b64decode(vector), dtype="<f4")
    if vector is None:
        assert taken is None
    else:
        assert np.array_equal(np.array(taken, np.float32), np.array(vector, np.float32))
    defaults = {"updated_at": given["created_at"], "source_instance": "unknown",
                "source_type": "unknown", "tags": [], "context": None, "confidence": 1.0,
                "supersedes": None, "related_to": []}  # fmt: skip
    for key in ("tags", "related_to", "metadata"):
        if key in given and given[key] in (None, {}):
            del given[key]
    assert entry == {**defaults, **given}


def test_fuzz_a_mutated_bundle_is_refused_or_read_correctly() -> None:
    dice = random.Random(20260115)  # noqa: S311 - the same in every run
    seeds = _seeds()
    ends: Counter[str] = Counter()
    for run in range(RUNS):
        data = mutated(dice.choice(seeds), dice)
        try:
            result = read(data, SMALL)
        except BundleError as error:
            ends["refused"] += 1
            assert str(error).endswith((".", "limit", ")")), str(error)
            continue
        except BaseException as error:
            error.add_note(f"run {run}: {data[:3000]!r}")
            raise
        ends["read"] += 1
        plain = result.reader._blocks()
        sources = independent_entries(b"".join(plain))
        assert len(sources) == len(result.entries) + len(result.rejected), (run, data)
        by_id = {}
        for source in sources:
            if isinstance(source, dict) and isinstance(source.get("id"), str):
                by_id.setdefault(source["id"], source)
        for entry in result.entries:
            assert_same(entry_to_dict(entry), by_id[entry.id])
    print(f"fuzz: {RUNS:,} runs, {dict(ends)}")  # noqa: T201 - the record of a campaign
    assert ends["refused"] > RUNS / 5
    assert ends["read"] > RUNS / 20


# Bombs, each in a process of its own, whose memory is measured


BOMBS = """
import gzip, io, json, resource, sys
from backports import zstd
sys.path.insert(0, {root!r})
from tests.bundles import manifest
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle import BundleReader
from tribal_mcp.portability.limits import Limits

class Generated(io.RawIOBase):
    "A file that is made while it is read."
    def __init__(self, head, body, times, tail):
        self.parts, self.at = (head, body, times, tail), 0
        self.size = len(head) + len(body) * times + len(tail)
    def readable(self): return True
    def seekable(self): return True
    def tell(self): return self.at
    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at
    def read(self, size=-1):
        head, body, times, tail = self.parts
        size = min(size, 1 << 18, self.size - self.at)
        skip, out = self.at - len(head), b""
        if skip < 0:
            out = head[self.at : self.at + size]
        elif skip < len(body) * times:
            start = skip % len(body)
            out = (body * (size // len(body) + 2))[start : start + min(size, len(body) * times - skip)]
        else:
            out = tail[skip - len(body) * times :][:size]
        self.at += len(out)
        return out

def packed(module, head, body):
    out = io.BytesIO()
    with module(out, "wb") as file:
        file.write(head)
        for _ in range(1024):
            file.write(body)
    return out

HEAD = b'{{"manifest": ' + json.dumps(manifest(None).to_dict()).encode() + b',\\n"entries": [\\n'
MIB = 1 << 20
ENTRY = b'{{"id":"a","content":"","created_at":"2026-01-01"}},\\n'
bombs = {{
    "gzip": lambda: packed(gzip.GzipFile, b"", bytes(MIB)),
    "zstd": lambda: packed(zstd.ZstdFile, b"", bytes(MIB)),
    "gzip of spaces": lambda: packed(gzip.GzipFile, HEAD, b" " * MIB),
    "a line of 1 GB": lambda: Generated(b'{{"manifest"', b"x" * MIB, 1024, b""),
    "an entry of 1 GB": lambda: Generated(HEAD + b'{{"id":"', b"x" * MIB, 1024, b'"}}]}}'),
    "a line of 1 GB in a stream": lambda: Generated(ENTRY[:-2] + b'\\n{{"id":"', b"x" * MIB, 1024, b'"}}'),
    "a text of 1 GB in a pretty file": lambda: Generated(
        HEAD + b'{{\\n "id": "a",\\n "content":\\n  "', b"x" * MIB, 1024, b'"\\n}}\\n]}}'),
    "a key of 1 GB": lambda: Generated(HEAD[:-12] + b'"', b"x" * MIB, 1024, b'": 1}}'),
    "a list of 1 GB beside the entries": lambda: Generated(HEAD[:-12] + b'"x": [', b"1," * 1000, 500_000, b'1]}}'),
    "texts beside the entries": lambda: Generated(
        HEAD[:-12], b'"k": "' + b"x" * MIB + b'", ', 1024, b'"entries": []}}'),
    "brackets": lambda: Generated(HEAD, b"[" * MIB, 1024, b""),
    "an entry of many values": lambda: Generated(
        HEAD + b'{{"id":"a","metadata":[', b"{{}}," * 1000, 4000, b'{{}}]}}]}}'),
    "ten million tiny entries": lambda: Generated(HEAD, b"{{}},\\n" * 1000, 10_000, b"{{}}]}}"),
    "ten million tiny lines": lambda: Generated(b"", b"1\\n" * 1000, 10_000, b""),
    "1 GB of white space": lambda: Generated(b"", b" \\n" * 1000, 500_000, b""),
    "1 GB of entries with one id": lambda: Generated(HEAD, ENTRY * 1000, 200, b"1]}}"),
}}
name = sys.argv[1]
file = bombs[name]()
limits = Limits(entries=100_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    reader = BundleReader(file, limits)
    reader.verify()
except BundleError as error:
    print("refused:", error)
print("MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""

BOMB_REASONS = {
    "gzip": "expands more than 200 times|more than 16,777,216 bytes|UTF-16",
    "zstd": "expands more than 200 times|more than 16,777,216 bytes|UTF-16",
    "gzip of spaces": "expands more than 200 times",
    "a line of 1 GB": "more than 16,777,216 bytes",
    "an entry of 1 GB": "more than 16,777,216 bytes",
    "a line of 1 GB in a stream": "more than 16,777,216 bytes",
    "a text of 1 GB in a pretty file": "more than 16,777,216 bytes",
    "a key of 1 GB": "more than 16,777,216 bytes",
    "a list of 1 GB beside the entries": "more than 16,777,216 bytes",
    "texts beside the entries": "stands twice",
    "brackets": "more than 265,536 texts, lists and objects|more than 16,777,216",
    "an entry of many values": "more than 265,536 texts, lists and objects",
    "ten million tiny entries": "more than 100,000 entries",
    "ten million tiny lines": "not JSON|more than 100,000 entries",
    "1 GB of white space": "empty",
    "1 GB of entries with one id": "more than 100,000 entries",
}


@pytest.mark.parametrize("name", BOMB_REASONS)
def test_a_bomb_is_refused_in_little_memory(name: str) -> None:
    import re  # noqa: PLC0415

    root = str(Path(__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", BOMBS.format(root=root), name],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.search(BOMB_REASONS[name], ended.stdout), ended.stdout
    assert int(ended.stdout.split()[-1]) < 300
