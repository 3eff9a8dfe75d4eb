"""Claude Code's memory folders: what a simple reader gets wrong."""

from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_with
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry

NOTE = "---\nname: {0}\ndescription: about {0}\ntype: project\n---\n{1}\n"


def by_file(entries: list[MemoryEntry]) -> dict[str, MemoryEntry]:
    return {entry.metadata["file"]: entry for entry in entries}


def test_the_same_file_name_in_two_projects_gives_two_memories(tmp_path: Path) -> None:
    files = {f"-p{n}/memory/rule.md": NOTE.format("rule", "Same text.") for n in (1, 2)}
    _, entries, _ = read_sample(source_with(tmp_path / "projects", files))
    assert len({entry.id for entry in entries}) == 2
    assert {e.source_instance for e in entries} == {"claude-code:-p1", "claude-code:-p2"}


def test_a_project_gives_the_same_ids_alone_and_among_others(tmp_path: Path) -> None:
    files = {"-p1/memory/a.md": NOTE.format("a", "A."), "-p2/memory/b.md": NOTE.format("b", "B.")}
    root = tmp_path / "projects"
    _, entries, _ = read_sample(source_with(root, files))
    whole = {entry.id for entry in entries if entry.source_instance == "claude-code:-p1"}
    for folder in (root / "-p1", root / "-p1" / "memory"):
        _, alone, _ = read_sample(source_with(folder, {}))
        assert {entry.id for entry in alone} == whole


def test_an_edited_file_keeps_its_id(tmp_path: Path) -> None:
    root = tmp_path / "-p"
    _, (before,), _ = read_sample(source_with(root, {"memory/a.md": NOTE.format("a", "Old.")}))
    _, (after,), _ = read_sample(source_with(root, {"memory/a.md": NOTE.format("new", "New.")}))
    assert (before.id, before.content) == (after.id, "Old.")
    assert after.content == "New."


def test_links_find_file_names_and_names_with_other_separators(tmp_path: Path) -> None:
    files = {
        "feedback_test_style.md": NOTE.format("Test style", "One."),
        "b.md": NOTE.format("b", "See [[feedback-test-style]]."),
        "c.md": NOTE.format("c", "See [[test-style]]."),
        "d.md": NOTE.format("d", "```\n[[test-style]]\n```\nand `[[test-style]]`, [[gone]], [[d]]"),
    }
    found = by_file(read_sample(source_with(tmp_path / "m", files))[1])
    wanted = [found["feedback_test_style.md"].id]
    assert found["b.md"].related_to == found["c.md"].related_to == wanted
    assert found["d.md"].related_to == []


def test_links_stay_within_their_project(tmp_path: Path) -> None:
    files = {
        "-p1/memory/a.md": NOTE.format("a", "See [[b]]."),
        "-p2/memory/b.md": NOTE.format("b", "B."),
    }
    _, entries, _ = read_sample(source_with(tmp_path / "projects", files))
    assert all(entry.related_to == [] for entry in entries)


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("- [A](a.md) — hook\n- [B](b.md)\n", False),
        ("# Memory\n\n## Topics\n* [A](a.md)\n  with a second line\n", False),
        ("- [[a]] — hook\n", False),
        ("- [A](a.md)\n- Deploys run from `release` only.\n", True),
        ("The staging database is reset every Monday.\n", True),
        ("# Only a heading\n", True),
    ],
    ids=["links", "headings", "wiki links", "a fact among links", "prose", "heading"],
)
def test_memory_md_is_left_out_only_if_it_is_nothing_but_an_index(
    tmp_path: Path, text: str, is_kept: bool
) -> None:
    files = {"MEMORY.md": text, "a.md": NOTE.format("a", "A.")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "m", files))
    assert (len(entries), conversion.left_out.total()) == (1 + is_kept, 1 - is_kept)


def test_other_folders_of_claude_code_are_not_read(tmp_path: Path) -> None:
    files = {
        "projects/-p/memory/a.md": NOTE.format("a", "A."),
        "plugins/x/memory/b.md": "B.",
        "CLAUDE.md": "- C.",
    }
    _, entries, _ = read_sample(source_with(tmp_path / "claude", files))
    assert [(e.content, e.source_instance) for e in entries] == [("A.", "claude-code:-p")]


def test_transcripts_above_the_memory_folders_are_not_read(tmp_path: Path) -> None:
    files = {"-p/memory/a.md": NOTE.format("a", "A."), "-p/1.jsonl": "{}\n", "-p/notes.md": "x"}
    conversion, _, _ = read_sample(source_with(tmp_path / "projects", files))
    assert (conversion.found, conversion.entries) == (1, 1)


def test_an_empty_file_and_one_of_another_kind_are_left_out(tmp_path: Path) -> None:
    files = {"a.md": NOTE.format("a", "A."), "empty.md": "", "data.csv": "1,2\n"}
    conversion, _, _ = read_sample(source_with(tmp_path / "m", files))
    assert conversion.left_out == {
        "a file without text": 1,
        "a file that is not Markdown": 1,
    }
    assert conversion.places["a file without text"] == ["empty.md"]


BAD = {
    "a bad date": "---\nname: a\nmodified: yesterday\n---\nText",
    "a list as a date": "---\nname: a\nmodified: [1]\n---\nText",
    "not a number": "---\nname: a\nx: .nan\n---\nText",
    "binary data": "---\nname: a\nx: !!binary aGk=\n---\nText",
    "half a list": "---\n- a\nb: c\n---\nText",
    "a NUL byte": "Text\0",
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_read_is_rejected_by_name(tmp_path: Path, what: str) -> None:
    files = {"-p/memory/bad.md": BAD[what], "-p/memory/good.md": NOTE.format("good", "Good.")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "projects", files))
    assert [entry.content for entry in entries] == ["Good."]
    assert [str(r).split(":")[0] for r in conversion.rejected] == ["-p/memory/bad.md"]


@pytest.mark.parametrize(
    "value",
    ["&x 1", "!!python/object/apply:os.system [id]", "[" * 3000, "b: c"],
    ids=["an anchor", "a tag of Python", "deep nesting", "a second colon"],
)
def test_values_that_are_no_plain_yaml_are_kept_as_text(tmp_path: Path, value: str) -> None:
    text = f"---\nname: *x\noriginSessionId: s\nx: {value}\n---\nText"
    _, (entry,), _ = read_sample(source_with(tmp_path / "m", {"a.md": text}))
    assert entry.metadata["x"] == value
    assert entry.content == "Text"


def test_values_of_unexpected_types_are_kept(tmp_path: Path) -> None:
    text = (
        "---\nname: 7\ndescription: [a]\ntype: {b: c}\nmetadata: text\noriginSessionId: x\n---\nT"
    )
    _, (entry,), _ = read_sample(source_with(tmp_path / "m", {"a.md": text}))
    assert entry.metadata["description"] == ["a"]
    assert entry.metadata["type"] == {"b": "c"}
    assert entry.metadata["metadata"] == "text"
    assert (entry.context, entry.tags) == (None, [])


def test_a_folder_of_skills_is_not_one_of_memories(tmp_path: Path) -> None:
    source = source_with(
        tmp_path / "skills", {"x/SKILL.md": "---\nname: x\ndescription: y\n---\nT"}
    )
    found = recognise(source)
    assert found is None or found.format.name != "claude-code"


def test_the_index_of_a_team_is_left_out(tmp_path: Path) -> None:
    files = {"team/MEMORY.md": "- [A](a.md)\n", "team/a.md": NOTE.format("a", "A.")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "memory", files))
    assert len(entries) == 1
    assert conversion.left_out.total() == 1


def test_a_link_to_the_index_leads_nowhere(tmp_path: Path) -> None:
    files = {"MEMORY.md": "- [A](a.md)\n", "a.md": NOTE.format("a", "See [[MEMORY]].")}
    _, (entry,), _ = read_sample(source_with(tmp_path / "memory", files))
    assert entry.related_to == []
