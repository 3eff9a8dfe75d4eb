"""The YAML before a Markdown text."""

import pytest

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.frontmatter import split_frontmatter, yaml_values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("true", True),
        ("2026-01-05", "2026-01-05"),
        ("12:30:45", "12:30:45"),
        ("010", 10),
        ("1_000", "1_000"),
        ("-1.5e3", -1500.0),
        ("1e5", 100000.0),
        ("~", None),
        ("", None),
        ('"5"', "5"),
        ("[a, 2]", ["a", 2]),
        ("!!timestamp 2026-01-05", "2026-01-05"),
        ("a b", "a b"),
    ],
)
def test_values_are_read_as_yaml_1_2_with_dates_as_text(text: str, value: object) -> None:
    found = yaml_values(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\na: 2", "twice"),
        ("a: {b: 1, b: 2}", "twice"),
        ("a: !!python/name:os.system", "not valid"),
        ("- a", "not a mapping"),
        ("1: a", "not a mapping"),
        ("? [a]\n: b", "not valid"),
        ("a: [", "not valid"),
        ("a: " + "9" * 5000, "not valid"),
        ("a: !!int x", "not valid"),
        ("a: !!float x", "not valid"),
        ("a: !!bool x", "not valid"),
        ("a: " + "x" * 70_000, "too long"),
        ("a: " + "[" * 60_000, "too deeply"),
        ("a:\n " + "- " * 20_000 + "x", "too deeply"),
    ],
    ids=[
        "an alias",
        "a key twice",
        "a key twice within",
        "a tag of Python",
        "a list",
        "a number as key",
        "a list as key",
        "half a list",
        "a huge number",
        "a wrong int",
        "a wrong float",
        "a wrong bool",
        "too long",
        "nested lists",
        "nested items",
    ],
)
def test_what_is_no_mapping_of_plain_values_is_refused(text: str, problem: str) -> None:
    with pytest.raises(EntryError, match=problem):
        yaml_values(text)


@pytest.mark.parametrize(
    ("text", "values", "body"),
    [
        ("---\na: 1\n---\nText", {"a": 1}, "Text"),
        ("---\n---\nText", {}, "Text"),
        ("---\na: 1\n---", {"a": 1}, ""),
        ("---  \na: b: c\n---\nText", {"a": "b: c"}, "Text"),
        ("---\na: b: c\nd:\n  e: f: g\n---\nText", {"a": "b: c", "d": {"e": "f: g"}}, "Text"),
        ("---\na: b: c\n  and so on\ne: f\n---\nx", {"a": "b: c and so on", "e": "f"}, "x"),
        ("---\na: b: c\nd:\n- e: f: g\n---\nx", {"a": "b: c", "d": ["e: f: g"]}, "x"),
        ("Text\n---\na: 1\n---\n", {}, "Text\n---\na: 1\n---\n"),
        ("---\nProse between rules.\n---\nText", {}, "---\nProse between rules.\n---\nText"),
        ("---\na: 1\nText", {}, "---\na: 1\nText"),
    ],
    ids=[
        "usual",
        "empty",
        "none after",
        "colons",
        "nested",
        "lines",
        "list",
        "later",
        "rules",
        "not closed",
    ],
)
def test_frontmatter_is_split_from_the_text(
    text: str, values: dict[str, object], body: str
) -> None:
    assert split_frontmatter(text) == (values, body)
