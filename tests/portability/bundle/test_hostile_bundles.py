"""Bundles that were truncated, changed or mutated: refused, or read correctly."""

import base64
import json
import os
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.support.bundles import read, written
from tests.support.examples import SAMPLES, memory
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry, read_date
from tribal_mcp.portability.memory_json import dump_entry, entry_to_dict

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
def test_a_bundle_truncated_at_any_byte_is_refused(name: str) -> None:
    data = small_bundle(name)
    for length in range(len(data)):
        with pytest.raises(BundleError):
            read(data[:length])
    assert len(read(data).entries) == 3


def test_truncated_lines_without_a_manifest_are_refused_unless_the_last_line_is_complete() -> None:
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


@pytest.mark.parametrize("name", ["json", "jsonl", "pretty"])
def test_one_changed_byte_is_refused_or_has_no_effect(name: str) -> None:
    data = small_bundle(name)
    expected = read(data)
    head = expected.reader.manifest
    dice = random.Random(1)  # noqa: S311 - the same in every run
    harmless = 0
    for at, old in enumerate(data):
        others = {old ^ 1, old ^ 32, *b' \n"', dice.randrange(256)} - {old}
        for new in dice.sample(sorted(others), 3):
            changed = data[:at] + bytes([new]) + data[at + 1 :]
            try:
                result = read(changed)
            except BundleError:
                continue
            harmless += 1
            assert result.entries == expected.entries
            assert result.reader.manifest == head
            assert result.rejected == []
            if name == "pretty" and json.loads(changed).keys() != json.loads(data).keys():
                assert result.notes  # the integrity block has another name now
    assert harmless < len(data)


@pytest.mark.parametrize("name", ["json.gz", "json.zst"])
def test_one_changed_byte_of_a_compressed_bundle_is_refused_or_has_no_effect(name: str) -> None:
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
        memory(2, tags=[], related_to=["memory-0", "erased"]),
    ]
    seeds = [small_bundle(name) for name in (*WRITTEN, "pretty", "one line", "lines")]
    seeds += [written(rich), written(rich, "jsonl"), written(rich, vectors="base64")]
    erased = [Tombstone("erased", 1), Tombstone("memory-9", 1_767_225_600_000_001)]
    seeds += [written(rich, layout, deleted=erased) for layout in ("json", "jsonl")]
    bare = json.loads(written(rich, deleted=erased))
    del bare["integrity"]  # so that a mutation is not refused because of the hash alone
    seeds += [json.dumps(bare).encode(), json.dumps(bare, indent=2).encode()] * 4
    seeds += [b"\n".join(map(dump_entry, rich))] * 4
    sample = json.loads((SAMPLES / "hand5.inmemory.json").read_bytes())
    for entry in sample["entries"]:
        entry["embedding"] = entry["embedding"][:8]
        entry["content"] = entry["content"][:200]
    sample["manifest"]["embedding"]["dimensions"] = 8
    return [*seeds, json.dumps(sample, ensure_ascii=False).encode()]


TOKENS = [
    *(b'{ } [ ] , : " \\ \0 \xff \xef\xbb\xbf null true NaN 1e999 1e39 -0'.split(b" ")),
    *(b'"id" "embedding" "entries" "manifest" "integrity" "\\ud800" 9223372036854775808'.split()),
    *(b'"id":"memory-0", "tags":"x", {"integrity":{}} {"manifest":{}} [[[[ "embedding":[]'.split()),
    *(b'{ } [ ] , : " \\ \0 \xff \xef\xbb\xbf null true NaN 1e999 1e39 -0'.split()),
]  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bundle with one to three mutations."""
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


LINE_PARTS = {"manifest", "deleted", "integrity"}
BAD_TEXT = (
    "\ufffd",
    "\\ud800",
    "a duplicate key",
)
BAD_NUMBERS = (
    "NaN",
    "9223372036854775808",
    "e999",
    "1" * 20,
)


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else {**value, "loose": "a duplicate key"}


def independent_entries(data: bytes) -> list[Any]:
    """The entries as the standard library reads them, marked where it is too lenient."""
    text = data.decode(errors="replace").removeprefix("\ufeff")

    def loads(text: str) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(text, object_pairs_hook=_marked, parse_constant=lambda name: [name])

    try:
        return list(loads(text)["entries"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    found = []
    for line in filter(None, (line.strip(" \t\r") for line in text.split("\n"))):
        try:
            value = loads(line)
        except (ValueError, RecursionError):
            value = None
        is_part = isinstance(value, dict) and len(value) == 1 and value.keys() <= LINE_PARTS
        # an invalid part counts as an invalid line
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        is_bad = any(mark in line + str(value) for mark in BAD_TEXT) or any(
            mark in bare for mark in BAD_NUMBERS
        )
        if not is_part or is_bad:
            found.append(value)
    return found


def assert_same(entry: dict[str, Any], source: dict[str, Any]) -> None:
    """Compare the entry with its source: vectors as float32, everything else exactly."""
    given = dict(source)
    vector = given.pop("embedding", None)
    taken = entry.pop("embedding")
    if isinstance(vector, str):
        vector = np.frombuffer(base64.b64decode(vector), dtype="<f4")
    if vector is None:
        assert taken is None
    else:
        assert np.array_equal(np.array(taken, np.float32), np.array(vector, np.float32))
    if "updated_at" not in given:
        given["updated_at"] = entry["updated_at"]
        assert read_date(entry["updated_at"]) == read_date(given["created_at"])
    defaults: dict[str, Any] = {
        "source_instance": "unknown", "source_type": "unknown", "tags": [], "context": None,
        "confidence": 1.0, "supersedes": None, "related_to": [],
    }  # fmt: skip
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
        except BundleError:
            ends["refused"] += 1
            continue
        except BaseException as error:
            error.add_note(f"run {run}: {data[:3000]!r}")  # to make a test case of it
            raise
        ends["read"] += 1
        plain = result.reader._blocks()
        sources = independent_entries(b"".join(plain))
        assert len(sources) == len(result.items), (run, data)
        for source, item in zip(sources, result.items, strict=True):
            if isinstance(item, MemoryEntry):
                assert_same(entry_to_dict(item), source)
    print(f"fuzz: {RUNS:,} runs, {dict(ends)}")  # noqa: T201 - the record of a campaign
    assert ends["refused"] > RUNS / 5
    assert ends["read"] > RUNS / 20
