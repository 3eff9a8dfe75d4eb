"""Invalid input of every kind: an error result says what is wrong and what to do.

No message shows a traceback, an internal of a library, or more of the file system than the caller
gave; and nothing changes.
"""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import SAMPLES, memories, memory
from tests.support.mcp_client import ERAS, call, connected, text_of, write_bundle

pytestmark = [pytest.mark.anyio, ERAS]

LEAKS = re.compile(r"Traceback|File \"|[Ee]rrno|chromadb|pydantic|Error executing|\w+Error\b|/tmp/")
SAMPLE = (SAMPLES / "hand5.inmemory.json").read_text()

EXPORTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown argument": ({"tag": "work"}, ["no argument 'tag'", "The arguments are: tags,"]),
    "tags as text": ({"tags": "work"}, ["tags must be a list", "Correct the call"]),
    "a tag that is a number": ({"tags": [1]}, ["tags[0] must be a string", "Correct the call"]),
    "an empty tag": ({"tags": [""]}, ["tag is empty", "Remove it"]),
    "a date in words": ({"date_from": "yesterday"}, ["start date", "'yesterday'", "2026-01-15"]),
    "a month too many": ({"date_to": "2026-13-01"}, ["end date", "'2026-13-01'", "2026-01-15"]),
    "a number for a date": (
        {"date_from": 20260115},
        ["date_from must be a string", "Correct the call"],
    ),
    "null for an unknown argument": ({"date": None}, ["no argument 'date'"]),
    "a reversed range": (
        {"date_from": "2026-02-01", "date_to": "2026-01-01"},
        ["start date", "is after", "end date", "Swap them"],
    ),
    "a flag in quotes": (
        {"overwrite": "true"},
        ["overwrite must be true or false", "Correct the call"],
    ),
    "a path outside": ({"output_path": "/etc/x.json"}, ["outside", "TRIBAL_BUNDLE_DIRS"]),
    "a way out": ({"output_path": "../x.json"}, ["outside", "TRIBAL_BUNDLE_DIRS"]),
    "another suffix": ({"output_path": "x.txt"}, [".json or .jsonl", ".zst", "Change the name"]),
    "a hidden file": ({"output_path": ".x.json"}, ["hidden", "Choose another path"]),
    "a folder": ({"output_path": "folder.json"}, ["folder", "a file name"]),
    "a missing folder": ({"output_path": "none/x.json"}, ["does not exist", "create the folder"]),
    "a path with a NUL": ({"output_path": "x\0.json"}, ["not a valid path"]),
    "a file that exists": ({"output_path": "good.json"}, ["already exists", "overwrit"]),
    "a file that is no bundle": (
        {"output_path": "package.json", "overwrite": True},
        ["not a bundle", "Choose another name"],
    ),
    "a link": ({"output_path": "link.json", "overwrite": True}, ["link"]),
}

IMPORTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "neither file nor text": ({}, ["either the path of a bundle", "bundle itself"]),
    "both file and text": (
        {"input_path": "good.json", "bundle_json": SAMPLE},
        ["either the path of a bundle", "not both"],
    ),
    "an unknown argument": (
        {"input_path": "good.json", "dryrun": True},
        ["no argument 'dryrun'", "dry_run", "Nothing was done"],
    ),
    "two unknown arguments": ({"a": 1, "b": 2}, ["'a'", "'b'", "Nothing was done"]),
    "an unknown strategy": (
        {"input_path": "good.json", "conflict_resolution": "replace"},
        ["conflict_resolution", "'skip', 'overwrite', 'merge', 'keep_both', 'fail' or 'mirror'"],
    ),
    "an unknown embedding strategy": (
        {"input_path": "good.json", "embedding_strategy": "all"},
        ["embedding_strategy", "'auto', 'keep', 'drop' or 'reembed'"],
    ),
    "an option inside the bundle": (
        {"bundle_json": json.loads(SAMPLE) | {"dry_run": True}},
        ["'dry_run'", "option dry_run", "Nothing was imported"],
    ),
    "a misspelled option inside the bundle": (
        {"bundle_json": json.loads(SAMPLE) | {"dryRun": True}},
        ["'dryRun'", "option dry_run", "Nothing was imported"],
    ),
    "a manifest that is null": (
        {"bundle_json": json.loads(SAMPLE) | {"manifest": None}},
        ["manifest is null", "Nothing was imported"],
    ),
    "a flag in quotes": (
        {"input_path": "good.json", "dry_run": "true"},
        ["dry_run must be true or false", "Correct the call"],
    ),
    "a flag as a number": (
        {"input_path": "good.json", "strict": 1},
        ["strict must be true or false"],
    ),
    "a number for a path": ({"input_path": 5}, ["input_path must be a string", "Correct the call"]),
    "a missing file": (
        {"input_path": "none.json"},
        ["'none.json' does not exist", "Check the path"],
    ),
    "a path outside": ({"input_path": "/etc/passwd.json"}, ["outside", "TRIBAL_BUNDLE_DIRS"]),
    "a way out": ({"input_path": "../../etc/x.json"}, ["outside", "TRIBAL_BUNDLE_DIRS"]),
    "another suffix": (
        {"input_path": "/etc/passwd"},
        ["'/etc/passwd' is outside", "`tribal-mcp import /etc/passwd` on the command line"],
    ),
    "a folder": ({"input_path": "folder.json"}, ["'folder.json' is not a bundle", "claude-code"]),
    "a pipe": ({"input_path": "pipe.json"}, ["not a regular file"]),
    "a link": ({"input_path": "link.json"}, ["link"]),
    "an empty file": ({"input_path": "empty.json"}, ["empty"]),
    "a file that is not JSON": ({"input_path": "text.json"}, ["not JSON"]),
    "a file that is no bundle": ({"input_path": "package.json"}, ["bundle"]),
    "UTF-16": ({"input_path": "utf16.json"}, ["UTF-16", "UTF-8"]),
    "a bundle that was cut": ({"input_path": "cut.json"}, ["bundle", "again"]),
    "a bundle that was changed": (
        {"input_path": "changed.json"},
        ["damaged or was changed", "Nothing was imported", "again"],
    ),
    "a bundle of the future": (
        {"input_path": "future.json"},
        ["version '2.0'", "Upgrade tribal-mcp"],
    ),
    "a compressed file that was cut": ({"input_path": "cut.json.gz"}, ["truncated", "again"]),
    "a bad entry, in a strict import": (
        {"input_path": "bad.json", "strict": True},
        ["entry 2", "confidence"],
    ),
    "vectors that do not fit": (
        {"input_path": "wide.json", "embedding_strategy": "keep"},
        ["16", "8", 'embedding_strategy="drop"'],
    ),
    "text that is not JSON": ({"bundle_json": "hello"}, ["not JSON", "Nothing was imported"]),
    "an object that is no bundle": ({"bundle_json": {"a": 1}}, ["bundle"]),
    "a list for a bundle": ({"bundle_json": [1]}, ["bundle_json must be JSON text or an object"]),
    "text that is too long": (
        {"bundle_json": SAMPLE + " " * 60_000},
        ["inline bundle", "TRIBAL_LIMIT_INLINE_BYTES", "input_path"],
    ),
}


def _lay_out(folder: Path) -> None:
    """The files that the cases name."""
    write_bundle(folder / "good.json", memories(3))
    good = (folder / "good.json").read_bytes()
    bad = json.loads(SAMPLE)
    bad["entries"][1]["confidence"] = 9.5
    files = {
        "changed.json": good.replace(b"Memory number 1", b"Memory number 7"),
        "cut.json": good[: len(good) // 2],
        "future.json": good.replace(b'"schema_version":"1.0"', b'"schema_version":"2.0"'),
        "cut.json.gz": gzip.compress(good)[:-20],
        "utf16.json": SAMPLE.encode("utf-16"),
        "bad.json": json.dumps(bad).encode(),
        "package.json": b'{"name": "x"}',
        "text.json": b"hello",
        "empty.json": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_bundle(folder / "wide.json", [memory(9, dimensions=16)], dimensions=16)
    (folder / "folder.json").mkdir()
    (folder / "link.json").symlink_to(folder.parent / "elsewhere.json")
    os.mkfifo(folder / "pipe.json")


async def test_invalid_input_is_refused_with_a_message_and_changes_nothing(
    era: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    _lay_out(folder)
    async with connected(folder, era, TRIBAL_LIMIT_INLINE_BYTES="100000") as client:
        await call(client, "tribal_import", input_path="good.json")
        state = await call(client, "tribal_stats")
        before = sorted(p.name for p in folder.iterdir())
        for tool, cases in (("tribal_export", EXPORTS), ("tribal_import", IMPORTS)):
            for name, (arguments, parts) in cases.items():
                with subtests.test(f"{tool}: {name}"):
                    result = await client.call_tool(tool, arguments)
                    message = text_of(result)
                    assert result.is_error
                    assert result.structured_content is None
                    assert [part for part in parts if part not in message] == []
                    assert not LEAKS.search(message)
                    assert message.endswith(".")
        with subtests.test("nothing has changed"):
            assert await call(client, "tribal_stats") == state
            assert sorted(p.name for p in folder.iterdir()) == before
            assert (folder / "package.json").read_text() == '{"name": "x"}'


async def test_null_means_not_given(era: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "good.json", memories(3))
    async with connected(tmp_path, era) as client:
        for tool in (await client.list_tools()).tools:
            required = tool.input_schema.get("required", [])
            nulls = {name: None for name in tool.input_schema["properties"] if name not in required}
            given = {"tribal_import": {"input_path": "good.json"}, "tribal_recall": {"query": "x"}}
            values = {name: ["a"] if name == "ids" else "a" for name in required}
            result = await client.call_tool(tool.name, nulls | values | given.get(tool.name, {}))
            assert "must be" not in text_of(result)
            assert "Nothing was done" not in text_of(result)
