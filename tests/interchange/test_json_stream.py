"""Values at a place in a JSON file."""

import io
import json
from typing import Any

import pytest

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange import json_stream
from tribal_mcp.interchange.json_stream import values


def read(text: str | bytes, place: str = "item") -> list[Any]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(values(io.BytesIO(data), "a.json", place.split(".") if place else ()))


DOCUMENT = {"a": [1, {"b": ["x", "y"]}], "é": None, "c": {"d": [5.5]}, "e": [[], [2], [3, 4]]}


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 18])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("", [DOCUMENT]),
        ("a.item", DOCUMENT["a"]),
        ("c.d.item", [5.5]),
        ("e.item.item", [2, 3, 4]),
        ("é", [None]),
        ("nothing.item", []),
        ("item", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_are_found_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, block: int, place: str, expected: list[object]
) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK", block)
    for text in (json.dumps(DOCUMENT, ensure_ascii=False), json.dumps(DOCUMENT, indent=1)):
        assert read(text, place) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_names_the_encoding(encoding: str) -> None:
    assert read('["é"]'.encode(encoding)) == ["é"]


def test_a_key_given_twice_is_an_error_of_its_value_only() -> None:
    first, second = read('[{"a": 1, "a": 2}, 3]')
    assert isinstance(first, EntryError)
    assert second == 3


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "[", "[1", "[1,", "[1 2]", "[1]]", '[1] "x"', "[NaN]", "[-Infinity]", '["a',
        "[tru]",
        '{"a": 1', '{"a" 1}', "{1: 2}", '{"a": [1}', "[" * 100_000, '{"a":' * 100_000, b'["\xff"]',
        b"\xff\xfe[", "[" + "9" * 5000 + "]", '["\\x"]', "[1,]", '{"a":1,}',
    ],
    ids=lambda text: str(text[:12]),
)  # fmt: skip
@pytest.mark.parametrize("place", ["item", "a.item", ""])
def test_text_that_is_not_json_is_refused(text: str | bytes, place: str) -> None:
    with pytest.raises(BundleError, match=r"'a\.json'"):
        read(text, place)


def test_a_record_larger_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "RECORD_CHARS", 1000)
    monkeypatch.setattr(json_stream, "_BLOCK", 100)
    assert len(read(json.dumps(["x" * 500] * 20))) == 20
    with pytest.raises(BundleError, match="larger than"):
        read(json.dumps(["x" * 5000]))
