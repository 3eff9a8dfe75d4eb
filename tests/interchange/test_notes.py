"""Notes of basic-memory, Obsidian vaults and concepts in MIF."""

from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import UNDATED


def name_of(folder: Path, files: dict[str, str]) -> str | None:
    found = recognise(source_with(folder, files))
    return found.format.name if found else None


def by_file(folder: Path, files: dict[str, str]) -> dict[str, MemoryEntry]:
    entries = read_sample(source_with(folder, files))[1]
    return {entry.metadata["file"]: entry for entry in entries}


def basic(title: str, text: str) -> str:
    return f"---\ntitle: '{title}'\ntype: note\npermalink: main/{title.lower()}\n---\n\n{text}"


def test_a_note_of_basic_memory_keeps_its_id_when_it_is_moved(tmp_path: Path) -> None:
    before = by_file(tmp_path / "one", {"a.md": basic("A", "x")})["a.md"]
    after = by_file(tmp_path / "two", {"b/c.md": basic("A", "y")})["b/c.md"]
    assert before.id == after.id


def test_titles_permalinks_and_paths_are_names_in_basic_memory(tmp_path: Path) -> None:
    files = {
        "x/a- b-c.md": basic("A: b/c?", "Text"),
        "b.md": basic("B", "- uses [[A: b/c?]]"),
        "c.md": basic("C", "in prose [[main/a: b/c?]]"),
        "d.md": basic("D", "- uses [[x/a- b-c|shown]] (context)"),
        "e.md": basic("E", "- uses [[Nothing]]"),
    }
    found = by_file(tmp_path / "notes", files)
    wanted = [found["x/a- b-c.md"].id]
    assert [found[f"{n}.md"].related_to for n in "bcd"] == [wanted] * 3
    assert found["e.md"].related_to == []


def test_only_observations_of_basic_memory_give_tags(tmp_path: Path) -> None:
    text = (
        "- [fact] One #a\n- Two #b\n- [ ] task\n```\n- [fact] Three #c\n```\n- [考え] Four #d (x)"
    )
    found = by_file(tmp_path / "notes", {"a.md": basic("A", text)})["a.md"]
    assert found.tags == ["a", "d"]
    assert found.content == text


def test_posts_with_web_permalinks_are_not_basic_memory(tmp_path: Path) -> None:
    post = "---\ntitle: A\ntype: post\npermalink: /2026/a/\n---\nText"
    assert name_of(tmp_path / "posts", {"a.md": post}) == "obsidian"


def test_a_vault_with_few_notes_of_basic_memory_is_a_vault(tmp_path: Path) -> None:
    files = {"a.md": basic("A", "x"), "b.md": "B", "c.md": "C"}
    assert name_of(tmp_path / "vault", files) == "obsidian"


def test_names_of_notes_in_a_vault_are_found_in_any_case_and_by_alias(tmp_path: Path) -> None:
    files = {
        "People/Ada.md": "---\naliases: [Countess]\n---\nx",
        "Bob.md": "---\nalias: Robert\n---\nx",
        "note.md": "[[ada]] [[countess|C]] [[ROBERT]] [[People/Ada#Work]]",
    }
    found = by_file(tmp_path / "vault", files)
    assert found["note.md"].related_to == [found["People/Ada.md"].id, found["Bob.md"].id]


def test_links_in_the_properties_of_a_note_are_found(tmp_path: Path) -> None:
    files = {
        "a.md": '---\nup: "[[b]]"\nrelated:\n  - "[[c|C]]"\n  - 5\n---\nx',
        "b.md": "B",
        "c.md": "C",
    }
    found = by_file(tmp_path / "vault", files)
    assert found["a.md"].related_to == [found["b.md"].id, found["c.md"].id]


def test_a_link_to_a_note_without_text_leads_nowhere(tmp_path: Path) -> None:
    files = {
        "a.md": "[[b]] [[c]] [[d]]",
        "b.md": "",
        "c.md": "---\ntags: [x]\n---\n\n",
        "d.md": "D",
    }
    found = by_file(tmp_path / "vault", files)
    assert found["a.md"].related_to == [found["d.md"].id]


def test_two_vaults_may_have_notes_of_the_same_name(tmp_path: Path) -> None:
    ids = {by_file(tmp_path / name, {"Inbox.md": "x"})["Inbox.md"].id for name in ("a", "b")}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("values", "created", "updated"),
    [
        ("created: 2026-02-03\nmodified: 2026-02-04", "2026-02-03", "2026-02-04"),
        ("date: 2026-02-03T10:00:00", "2026-02-03", "2026-02-03"),
        ("created: last week\ndate: 2026-02-03", "2026-02-03", "2026-02-03"),
        ("created: last week", None, "1970-01-01"),
        ("created: [1, 2]", None, "1970-01-01"),
    ],
)
def test_dates_of_a_note_are_its_own_or_unknown(
    tmp_path: Path, values: str, created: str | None, updated: str
) -> None:
    found = by_file(tmp_path / "vault", {"a.md": f"---\n{values}\n---\nx"})["a.md"]
    assert found.extra.get(UNDATED, False) is (created is None)
    assert created is None or found.created_at.date().isoformat() == created
    assert found.updated_at.date().isoformat() == updated
    assert ("last week" in values) == (found.metadata.get("created") == "last week")


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ("tags: a, b", ["a", "b"]),
        ("tags: [a, '#b', 2026]", ["a", "b", "2026"]),
        ("tag: a", ["a"]),
        ("tags:", []),
        ("tags:\n  - a\n  - a", ["a"]),
        ("tags:\n  -\n  - a", ["a"]),
        ("title: a: b\ntags:\n  - a\n- 'b'", ["a", "b"]),
    ],
)
def test_tags_of_a_note_are_read_in_each_spelling(
    tmp_path: Path, values: str, tags: list[str]
) -> None:
    found = by_file(tmp_path / "vault", {"a.md": f"---\n{values}\n---\nx"})["a.md"]
    assert found.tags == tags


def test_settings_and_waste_of_a_vault_are_not_read(tmp_path: Path) -> None:
    files = {"a.md": "x", ".obsidian/app.json": "{}", ".trash/old.md": "old", "p.pdf": "x"}
    conversion, entries, _ = read_sample(source_with(tmp_path / "vault", files, hidden=True))
    assert [entry.content for entry in entries] == ["x"]
    assert conversion.left_out == {"a file that is not Markdown": 1}


def test_a_vault_with_a_file_of_rules_is_a_vault_and_a_project_with_a_readme_is_not(
    tmp_path: Path,
) -> None:
    notes = {f"{number}.md": "A note." for number in range(9)}
    assert name_of(tmp_path / "vault", {**notes, "CLAUDE.md": "- Rule."}) == "obsidian"
    assert name_of(tmp_path / "shop", {"README.md": "# Shop", "CLAUDE.md": "- Rule."}) == "rules"


def test_one_note_of_another_kind_does_not_decide_for_a_vault(tmp_path: Path) -> None:
    notes = {f"{number}.md": "A note." for number in range(9)}
    for text in (
        "---\nname: a\ndescription: b\ntype: project\n---\nx",
        "---\ntype: Book\nsources: [x]\n---\nx",
        mif("a"),
        basic("A", "x"),
    ):
        assert name_of(tmp_path / "vault", {**notes, "one.md": text}) == "obsidian"


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "# Shop", "src/a.py": "", "src/b.py": "", "src/c.py": ""},
        {"a.txt": "text", "b.txt": "text"},
        {"a.md": "", "b.md": "\n"},
        {"photo.png": "x"},
        {},
    ],
    ids=["source code", "text files", "empty notes", "photos", "nothing"],
)
def test_other_folders_are_not_claimed(tmp_path: Path, files: dict[str, str]) -> None:
    assert name_of(tmp_path / "folder", files) is None


def test_a_single_note_is_claimed_only_with_frontmatter() -> None:
    assert recognise(source_of(b"# Title\n\nText\n", "a.md")) is None
    assert recognise(source_of(b"---\na: 1\n---\nText\n", "a.yaml")) is None
    found = recognise(source_of(b"---\ntags: [a]\n---\nText\n", "a.md"))
    assert found is not None
    assert found.format.name == "obsidian"


def mif(values: str, text: str = "Text") -> str:
    return f"---\nid: {values}\ntype: semantic\ncreated: 2026-01-01T00:00:00Z\n---\n\n{text}"


def test_relations_of_mif_are_found_by_id_path_title_and_file_name(tmp_path: Path) -> None:
    relations = "relationships:\n- {type: relates-to, target: /x/b.memory.md}\n- {type: y}\n- z"
    files = {
        "a.md": mif(f"a\n{relations}", "- relates-to [[c-id]]\n- relates-to [[D title]]"),
        "x/b.memory.md": mif("b-id"),
        "c.md": mif("c-id", "- relates-to [[b]]"),
        "d.md": mif("d-id\ntitle: D title", "- Supersedes [[c-id]]"),
    }
    found = by_file(tmp_path / "mif", files)
    assert found["a.md"].related_to == ["b-id", "c-id", "d-id"]
    assert found["c.md"].related_to == ["b-id"]
    assert found["d.md"].supersedes == "c-id"


def test_an_id_of_mif_may_be_a_number(tmp_path: Path) -> None:
    files = {"a.md": mif("20260101"), "b.md": mif("b", "- relates-to [[a]]")}
    found = by_file(tmp_path / "mif", files)
    assert found["a.md"].id == "20260101"
    assert found["b.md"].related_to == ["20260101"]


def test_two_concepts_with_one_id_are_not_mixed(tmp_path: Path) -> None:
    files = {"a.md": mif("same", "One"), "b.md": mif("same", "Two")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "mif", files))
    assert [entry.content for entry in entries] == ["One"]
    assert [str(r).split(" ")[0] for r in conversion.rejected] == ["b.md"]


@pytest.mark.parametrize("confidence", ["high", "2", ".nan", "[1]"])
def test_a_confidence_that_is_none_rejects_the_concept(tmp_path: Path, confidence: str) -> None:
    files = {"a.md": mif(f"a\nprovenance: {{confidence: {confidence}}}"), "b.md": mif("b")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "mif", files))
    assert ([entry.id for entry in entries], conversion.rejected_count) == (["b"], 1)


def test_an_okf_bundle_of_mif_concepts_is_mif(tmp_path: Path) -> None:
    files = {"index.md": '---\nokf_version: "0.2"\n---\n', "a.md": mif("a\nnamespace: _semantic")}
    assert name_of(tmp_path / "mif", files) == "mif"
