"""What holds for every format, on every sample."""

import json
import random
from pathlib import Path

import pytest

from tests.interchange.samples import (
    EXPECTED,
    SAMPLES,
    outcome,
    read_sample,
    sample_names,
    source_at,
    source_of,
)
from tribal_mcp.interchange.base import REPEATED, Format
from tribal_mcp.interchange.formats import BUILT_IN, formats, recognise


@pytest.mark.parametrize("name", sample_names())
def test_each_sample_is_read_as_expected(name: str) -> None:
    expected = json.loads((SAMPLES / f"{name}{EXPECTED}").read_text(encoding="utf-8"))
    assert outcome(*read_sample(source_at(SAMPLES / name))) == expected


@pytest.mark.parametrize("name", sample_names())
def test_every_record_is_accounted_for_with_a_documented_reason(name: str) -> None:
    conversion, entries, _ = read_sample(source_at(SAMPLES / name))
    assert conversion.found == (
        len(entries) + conversion.deleted + conversion.left_out.total() + conversion.rejected_count
    )
    assert set(conversion.left_out) <= {*conversion.format.leaves_out, REPEATED}


@pytest.mark.parametrize("name", sample_names())
def test_reading_twice_gives_the_same_bundle(name: str) -> None:
    assert read_sample(source_at(SAMPLES / name))[2] == read_sample(source_at(SAMPLES / name))[2]


@pytest.mark.parametrize("name", sample_names())
def test_a_sample_is_recognised_under_another_name(name: str, tmp_path: Path) -> None:
    sample = SAMPLES / name
    if sample.is_dir():
        pytest.skip("the names of files in a folder are part of the format")
    renamed = tmp_path / "x.bin"
    renamed.write_bytes(sample.read_bytes())
    found, expected = recognise(source_at(renamed)), recognise(source_at(sample))
    assert found is not None
    assert expected is not None
    assert found.format.name == expected.format.name


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_a_format_is_documented(kind: type[Format]) -> None:
    assert kind.name == kind.name.lower().replace(" ", "-")
    assert all(getattr(kind, name) for name in ("title", "places", "layout", "fields"))


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_a_format_has_a_sample(kind: type[Format]) -> None:
    expected = [SAMPLES / f"{name}{EXPECTED}" for name in sample_names()]
    assert any(json.loads(path.read_text())["format"] == kind.name for path in expected)


_NOTHING = {
    "empty": b"",
    "spaces": b"  \n\n",
    "empty object": b"{}",
    "empty list": b"[]",
    "numbers": b"[1, 2, 3]",
    "nested lists": b"[[[[]]]]",
    "package.json": b'{"name": "x", "version": "1.0.0", "dependencies": {"y": "^1"}}',
    "GeoJSON": b'{"type": "FeatureCollection", "features": []}',
    "log": b"2026-01-01 12:00:00 INFO started\n2026-01-01 12:00:01 INFO stopped\n",
    "prose": b"It was a bright cold day in April, and the clocks were striking thirteen.\n",
    "source": b"import os\n\nprint(os.getcwd())\n",
    "half a document": b'{"memories": [{"id": "1", "con',
    "HTML": b"<!DOCTYPE html><html><body><p>Hello</p></body></html>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "ELF": b"\x7fELF" + bytes(300),
    "UTF-16": "name: text".encode("utf-16"),
}


@pytest.mark.parametrize("name", _NOTHING)
def test_no_format_claims_a_file_of_another_kind(name: str) -> None:
    assert recognise(source_of(_NOTHING[name])) is None


def test_no_format_claims_random_bytes() -> None:
    chance = random.Random(15)  # noqa: S311 - test data
    for size in (1, 16, 4096, 100_000):
        assert recognise(source_of(chance.randbytes(size))) is None


def test_names_of_formats_are_unique() -> None:
    assert len(formats()) >= len(BUILT_IN)
