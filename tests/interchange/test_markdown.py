"""Links, tags, list items and indexes of Markdown files."""

from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.markdown import (
    Links,
    Note,
    hashtags,
    heads,
    is_index,
    prose,
    visible,
)
from tribal_mcp.interchange.markdown_items import pieces


def linked(body: str, path: str = "note.md", *, loose: bool = False) -> list[str]:
    links = Links(loose=loose)
    for other in ("a.md", "Größe.md", "sub/b c.md", "sub/deep/a.md", "x.memory.md"):
        links.add(other, other, ["Alias One"] if other == "a.md" else [])
    return links.of(Note(path, {}, body), "own")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[[a]]", ["a.md"]),
        ("[[A|shown]] [[a#Heading]] [[a#^block]] ![[a]]", ["a.md"]),
        ("| [[a\\|shown]] | b |", ["a.md"]),
        ("[[alias one]]", ["a.md"]),
        ("[[b c]] [[sub/b c]] [[/sub/b c]]", ["sub/b c.md"]),
        ("[[deep/a]]", []),
        ("[x](a.md) [y](./a.md#z) [z](sub/b%20c.md) [w](<sub/b c.md>)", ["a.md", "sub/b c.md"]),
        ("[[Gro\u0308\u00dfe]] [x](Gr%C3%B6%C3%9Fe.md)", ["Größe.md"]),
        ("[x](https://example.com/a.md) [y](mailto:a.md) [z](../a.md)", []),
        ("[[x.memory]]", ["x.memory.md"]),
        ("[[]] [[ ]] [[#Heading]] [[|x]] [x]() [y](.) [z](..)", []),
        ("*[[a]]* **x [[b c]]**", ["a.md", "sub/b c.md"]),
    ],
)
def test_links_lead_to_notes(body: str, found: list[str]) -> None:
    assert linked(body) == found


@pytest.mark.parametrize(
    "body",
    [
        "`[[a]]` ``x ` [[a]]``",
        "```\n[[a]]\n```",
        "~~~md\n[x](a.md)\n~~~",
        "Text\n\n    [[a]]\n",
        "- item\n\n  ```\n  [[a]]\n  ```",
        r"\[\[a\]\]",
        "> ```\n> [[a]]\n> ```",
    ],
    ids=["inline", "fence", "tildes", "indented", "in an item", "escaped", "in a quote"],
)
def test_what_is_code_or_escaped_is_no_link(body: str) -> None:
    assert linked(body) == []


def test_a_link_prefers_the_note_beside_it() -> None:
    assert linked("[[a]]", "sub/deep/note.md") == ["sub/deep/a.md"]
    assert linked("[[a]]", "sub/note.md") == ["a.md"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#one #two/three, (#four) #five.", ["one", "two/three", "five"]),
        ("#日本語 #идея #हिन्दी #a_b-c", ["日本語", "идея", "हिन्दी", "a_b-c"]),
        ("#2026 #12 x#y http://z/#w # heading ## h", []),
        ("#y2026", ["y2026"]),
    ],
)
def test_tags_are_words_after_a_hash(text: str, tags: list[str]) -> None:
    assert hashtags(text) == tags


def test_tags_in_code_are_none() -> None:
    assert hashtags(prose("# Title\n\n`#a` #b \\#c\n\n```\n#d\n```\n")[0]) == ["b"]


ITEMS = """# Top

A paragraph
of two lines.

## Commands

Run these:

- first
  with a second line
  - inner
- [ ] second

1. third

Then start it:

```sh
serve
```

    indented code

> a quote

---

<!-- a comment -->

Last
====

end:
"""


def test_items_and_paragraphs_have_their_headings_and_introductions() -> None:
    found = [(p.line, p.context, p.text) for p in pieces(ITEMS)]
    assert found == [
        (3, "Top", "A paragraph\nof two lines."),
        (10, "Top > Commands > Run these:", "first\nwith a second line\n- inner"),
        (13, "Top > Commands > Run these:", "[ ] second"),
        (15, "Top > Commands > Run these:", "third"),
        (17, "Top > Commands", "Then start it:\n\n```sh\nserve\n```"),
        (23, "Top > Commands", "    indented code"),
        (25, "Top > Commands", "> a quote"),
        (29, "Top > Commands", "<!-- a comment -->"),
        (34, "Last", "end:"),
    ]


def test_a_paragraph_with_a_colon_is_kept_if_no_list_follows() -> None:
    assert [p.text for p in pieces("One:\n\nTwo:\n\n# H\n\nThree:\n\n- a\n\nFour")] == [
        "One:",
        "Two:",
        "a",
        "Four",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "- ", "-\n-\n", "#", "```", "***", "<!--", "[", "\t"])
def test_odd_texts_have_pieces_or_none(text: str) -> None:
    assert all(isinstance(piece.text, str) for piece in pieces(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- [A](a.md) - x\n", True),
        ("1. [[a]]\n\n# H\n", True),
        ("- [A](a.md)\n  more\n", True),
        ("# H\n", False),
        ("", False),
        ("- [ ] task\n", False),
        ("- [A](a.md)\n- a fact\n", False),
    ],
)
def test_an_index_has_only_links(text: str, expected: bool) -> None:
    assert is_index(text) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.md", True),
        (".a/b.md", False),
        ("a/.b/c.md", False),
        ("a/..b.md", False),
        ("a.b/c", True),
    ],
)
def test_hidden_parts_are_seen(path: str, expected: bool) -> None:
    assert visible(path) is expected


def test_the_beginning_of_a_file_that_is_no_text_is_empty() -> None:
    (head,) = heads(source_of(b"\xff\xfe\xff", "a.md"), ["a.md"])
    assert (head.front, head.values, head.body) == ("", {}, "")


def test_long_texts_are_read_in_parts_with_the_right_places() -> None:
    text = "# H\n\n" + "\n".join(f"- item {n}\n  more\n" for n in range(3000)) + "\n- [[a]]\n"
    found = list(pieces(text))
    assert [p.text for p in found[:-1]] == [f"item {n}\nmore" for n in range(3000)]
    assert {p.headings for p in found} == {("H",)}
    lines = text.split("\n")
    assert all(lines[p.line - 1].endswith(p.text.split("\n")[0]) for p in found)
    assert linked(text) == ["a.md"]


HOSTILE = {
    "many lines": "\n" * 300_000,
    "many items": "-\n" * 8_000,
    "many brackets": "[" * 5_000,
    "many links": "- " + "](" * 100_000,
    "many references": "@a" * 50_000 + " x",
    "many headings": "# keywords\n" + "\n" * 300_000,
    "many blocks": "---\n" * 8_000,
    "many begins": "<!-- tribal-mcp:begin\n" * 30_000,
    "many stars": "**a" * 20_000 + ":",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", ["MEMORY.md", "CLAUDE.md", "memory/2026-01-01.md", "note.md"])
def test_hostile_texts_take_no_time(tmp_path: Path, what: str, name: str) -> None:
    formats = {"MEMORY.md": "codex", "CLAUDE.md": "rules", "note.md": "obsidian"}
    files = {name: HOSTILE[what], "good.md": "x", "memory/2026-01-02.md": "- x"}
    if name == "MEMORY.md":
        files["memory_summary.md"] = "- x"
    if name == "CLAUDE.md":
        files["AGENTS.md"] = "- x"
    source = source_with(tmp_path / "f", files)
    conversion, _, _ = read_sample(source, format_name=formats.get(name, "openclaw"))
    assert conversion.found
