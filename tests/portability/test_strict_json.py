"""The fast JSON parser is never more lenient than the slow one; both are strict."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.examples import memory
from tribal_mcp.errors import EntryError
from tribal_mcp.portability import vectors
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.portability.strict_json import NotJSON, check, parse, parse_line
from tribal_mcp.portability.vectors import same_vector

NESTING = 6

REFUSED = {
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b"[-Infinity]", "-Infinity is not JSON"),
    "a number out of range for a float": (b'{"a": 1e999}', "out of range for a float"),
    "an integer beyond 64 bits": (b'{"a": 9223372036854775808}', "beyond 64 bits"),
    "an integer of 5,000 digits": (b'{"a": -' + b"9" * 5000 + b"}", "beyond 64 bits"),
    "a duplicate key": (b'{"a":1,"a":1}', "duplicate key 'a'"),
    "a duplicate key in another spelling": (b'{"a":1,"\\u0061":1}', "duplicate key 'a'"),
    "a duplicate key before a space": (b'{"a":1,"a" :1}', "duplicate key 'a'"),
    "a nested duplicate key": (b'{"x":[{"a":1,"a":1}]}', "duplicate key 'a'"),
    "a duplicate key of a vector": (b'{"embedding":[1.0],"embedding":[2.0]}', "duplicate key"),
    "a duplicate key beside a string that passes like a key": (
        b'{"a":1,"a":1,"b":"\\":"}',
        "duplicate key 'a'",
    ),
    "a lone surrogate": (b'{"a":"\\ud800"}', "lone surrogate"),
    "a lone low surrogate": (b'{"a":"\\udc00\\ud800"}', "lone surrogate"),
    "a lone surrogate in a key": (b'{"\\ud800":1}', "lone surrogate"),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
    "a byte that is not UTF-8": (b'{"a":"\xff"}', "byte 7 is not UTF-8"),
    "nested too deep": (b"[" * 7 + b"]" * 7, "nested too deep"),
    "nested 100,000 levels deep": (b"[" * 100_000 + b"]" * 100_000, "TRIBAL_LIMIT_NESTING"),
    "100,000 nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "TRIBAL_LIMIT_NESTING"),
    "a trailing comma": (b"[1,]", "not JSON"),
    "a comment": (b"[1] // one", "not JSON"),
    "two values": (b"{} {}", "not JSON"),
    "single quotes": (b"{'a': 1}", "not JSON"),
    "a leading zero": (b"[01]", "not JSON"),
    "a control character": (b'["\n"]', "not JSON"),
    "no value": (b"", "not JSON"),
    "half a value": (b'{"a": [1, 2', "not JSON"),
    "a vector beyond 64 bits": (b'{"embedding":[18446744073709551616]}', "beyond 64 bits"),
    "very many values": (b'{"a":[' + b"0," * 200_001 + b"0]}", "200,003 JSON values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_parsers_refuse_what_json_loads_accepts(case: str) -> None:
    text, reason = REFUSED[case]
    for read in (parse, parse_line):
        with pytest.raises(EntryError, match=reason):
            read(text, NESTING)


TAKEN = {
    "a pair of surrogates": b'{"a":"\\ud83d\\ude00"}',
    "64 bits": b'{"a":[9223372036854775807,-9223372036854775808]}',
    "a string that passes like a key": b'{"a":"\\"a\\":{[","b":[]}',
    "a vector in the metadata": b'{"metadata":{"embedding":[1.0,2.0]},"embedding":[true]}',
    "a vector under a longer key": b'{"my\\"embedding":[1.0],"embedding":null}',
    "a vector with true": b'{"embedding":[1.0,true]}',
    "a vector with false": b'{"embedding":[1.0,false]}',
    "a vector with a null": b'{"embedding":[1.0,null]}',
    "a vector of texts": b'{"embedding":["]",1.0]}',
    "white space": b' {"a" : [ 1 , 2 ] }\r\n',
    "a list instead of an object": b"[1, 2.5, null]",
    "6 levels": b"[[[[[[]]]]]]",
    "numbers that look alike": b'{"a":[1,1.0,1e0,-0,-0.0]}',
}


@pytest.mark.parametrize("case", TAKEN)
def test_both_parsers_read_strict_json_alike(case: str) -> None:
    text = TAKEN[case]
    expected = json.loads(text)
    assert repr(parse(text, NESTING)) == repr(expected)
    assert parse_line(text, NESTING) == expected


def test_a_line_of_our_writer_has_its_vector_as_an_array() -> None:
    entry = memory(1, dimensions=384)
    value = parse_line(dump_entry(entry), NESTING)
    assert isinstance(value["embedding"], np.ndarray)
    assert same_vector(value["embedding"], entry.embedding)
    assert not value["embedding"].flags.writeable


def test_invalid_json_and_json_that_is_not_strict_raise_different_errors() -> None:
    with pytest.raises(NotJSON) as caught:
        parse(b'{\n"a": 1,\n\n"b" 2}', NESTING)
    assert caught.value.line == 4
    with pytest.raises(EntryError) as strict:
        parse(b"[NaN]", NESTING)
    assert not isinstance(strict.value, NotJSON)


@pytest.mark.parametrize(
    "value", [float("nan"), (1,), {1: 2}, b"x", 2**63, [[[[[[[]]]]]]], {"a": {"\ud800"}}, "\udfff"]
)
def test_a_value_that_json_cant_carry_is_refused(value: object) -> None:
    with pytest.raises(EntryError):
        check([value, {"a": value}], NESTING)


# Pieces that make JSON or, mostly, invalid JSON when joined at random.
PIECES = st.sampled_from(
    [
        *[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"embedding"',
            '"embedding":[',
            ',"embedding":[',
            '"\\u0061"',
            '"',
            "\\",
            '\\"',
        ],
        *[
            '"\\ud800"',
            '"\\ud83d\\ude00"',
            '"x":1',
            '"a":1',
            "1",
            "-0",
            "1.5",
            "1e400",
            "1e39",
            "9223372036854775808",
        ],
        *[
            "true",
            "false",
            "null",
            "NaN",
            "Infinity",
            '{"a":1}',
            "[1,2]",
            "[0.5,0.25]",
            "[1.0,true]",
            '":"',
            "é",
            "\x00",
            "ÿ",
        ],
        *(" ", "\n", '" :', "]}", "],", '"embedding": ['),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "embedding", '"embedding']), inner, max_size=4)
        | st.lists(st.floats(width=32), max_size=4).map(lambda v: {"embedding": v})
    ),
    max_leaves=12,
)


def _texts() -> st.SearchStrategy[str]:
    def spoiled(text: str, piece: str, at: int, length: int) -> str:
        at %= len(text) + 1
        return text[:at] + piece + text[at + length :]

    layouts = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}])
    dumped = st.builds(lambda v, how: json.dumps(v, **how), VALUES, layouts)
    objects = st.builds(lambda v, how: json.dumps({"a": v}, **how), VALUES, layouts)
    return (
        dumped
        | objects
        | st.builds(spoiled, objects, PIECES, st.integers(0), st.integers(0, 3))
        | st.lists(PIECES, max_size=14).map(lambda parts: "{" + "".join(parts) + "}")
    )


def _outcome(read: Callable[[bytes, int], object], text: bytes) -> object:
    try:
        return read(text, NESTING)
    except EntryError as error:
        return EntryError, str(error)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """With vectors as float32 lists, however they were read."""
    return {**value, "embedding": np.array(value["embedding"], dtype=np.float32).tolist()}


@settings(max_examples=800)
@given(_texts())
@example('{"embedding":[1.5,-0.1,1,9e37]}')
@example('{"embedding":[1e39]}')
@example('{"a":1,"embedding":[1.5')
@example('{"a":1,"embedding":[1.5}')
@example('{"embedding":[18446744073709551616]}')
@example('{"embedding":[true],"a":1}')
@example('{"embedding":[null,1.5]}')
@example('{"embedding":[1.5,false]}')
@example('{"embedding":[]}')
@example('{"embedding":[1.0,2.0],"a":{"embedding":[1.0]}}')
@example('{"a":{"embedding":[1.0]},"embedding": [true]}')
@example('{"\\u0065mbedding":[true],"x":{"embedding":[1.0]}}')
def test_both_parsers_give_the_same_result_for_any_text(text: str) -> None:
    data = text.encode(errors="surrogatepass")
    _compare(_outcome(parse_line, data), _outcome(parse, data))
    with mock.patch.object(vectors, "_per_thread", SimpleNamespace(parser=None)):
        _compare(_outcome(parse_line, data), _outcome(parse, data))


def _compare(fast: object, slow: object) -> None:
    if repr(fast) != repr(slow):
        assert isinstance(fast, dict)
        assert isinstance(slow, dict)
        assert isinstance(fast["embedding"], np.ndarray)
        assert {type(number) for number in slow["embedding"]} <= {int, float}
        assert repr(_plain(fast)) == repr(_plain(slow))
