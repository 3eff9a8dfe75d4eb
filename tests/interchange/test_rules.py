"""Files of rules for coding agents."""

from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.formats import recognise

NAMED = [
    "CLAUDE.md",
    "CLAUDE.local.md",
    "claude.md",
    "AGENTS.md",
    "GEMINI.md",
    ".cursorrules",
    "x.mdc",
    "copilot-instructions.md",
    "python.instructions.md",
]


@pytest.mark.parametrize("name", NAMED)
def test_a_single_file_is_known_by_its_name(name: str) -> None:
    found = recognise(source_of(b"# Rules\n\n- Use tabs.\n", name))
    assert found is not None
    assert found.format.name == "rules"


def test_the_same_text_under_another_name_is_unknown() -> None:
    assert recognise(source_of(b"# Rules\n\n- Use tabs.\n", "notes.md")) is None


def test_a_single_file_names_no_project() -> None:
    _, (entry,), _ = read_sample(source_of(b"- Use tabs.\n", "AGENTS.md"))
    assert entry.source_instance == "rules"


@pytest.mark.parametrize(
    "path",
    [
        ".cursor/rules/web/a.mdc",
        ".cursor/rules/a.md",
        ".windsurf/rules/a.md",
        ".claude/rules/a.md",
        ".github/copilot-instructions.md",
        ".clinerules/a.md",
    ],
)
def test_rules_in_hidden_folders_of_a_project_are_read(tmp_path: Path, path: str) -> None:
    files = {path: "- Use tabs.", "src/main.py": "x", "README.md": "# Shop", ".env": "SECRET=1"}
    conversion, entries, _ = read_sample(source_with(tmp_path / "shop", files, hidden=True))
    assert [entry.content for entry in entries] == ["Use tabs."]
    assert conversion.found == 1


def test_a_folder_of_rules_alone_is_known_by_the_folder_above_it(tmp_path: Path) -> None:
    source_with(tmp_path / ".windsurf", {"rules/style.md": "- Use tabs."})
    _, (entry,), _ = read_sample(source_with(tmp_path / ".windsurf" / "rules", {}))
    assert (entry.content, entry.source_instance) == ("Use tabs.", "rules")


def test_the_same_rule_in_two_projects_is_two_memories(tmp_path: Path) -> None:
    ids = {
        read_sample(source_with(tmp_path / name, {"CLAUDE.md": "- Use tabs."}))[1][0].id
        for name in ("shop", "blog")
    }
    assert len(ids) == 2


def test_a_rule_keeps_its_id_when_others_are_added_before_it(tmp_path: Path) -> None:
    before = read_sample(source_with(tmp_path / "shop", {"CLAUDE.md": "# S\n\n- Use tabs."}))[1]
    text = "# Other\n\n- New.\n\n# S\n\n- Newer.\n- Use tabs."
    after = read_sample(source_with(tmp_path / "shop", {"CLAUDE.md": text}))[1]
    assert before[0].id in {entry.id for entry in after}


def test_the_same_text_under_two_headings_is_two_memories(tmp_path: Path) -> None:
    text = "# Python\n\n- Use spaces.\n\n# Go\n\n- Use spaces.\n- Use spaces."
    conversion, entries, _ = read_sample(source_with(tmp_path / "shop", {"CLAUDE.md": text}))
    assert [entry.context for entry in entries] == ["Python", "Go"]
    assert conversion.left_out == {"the same record as an earlier one": 1}


def test_what_this_program_wrote_is_left_out_even_without_an_end(tmp_path: Path) -> None:
    ours = "<!-- tribal-mcp:begin -->\n# Memories\n\n- Ours.\n"
    text = f"# Top\n\n- Mine.\n\n{ours}<!-- tribal-mcp:end -->\n\n- Mine too.\n\n{ours}"
    conversion, entries, _ = read_sample(source_with(tmp_path / "shop", {"AGENTS.md": text}))
    assert [(e.content, e.context) for e in entries] == [("Mine.", "Top"), ("Mine too.", "Top")]
    assert conversion.left_out == {"text that this program wrote": 2}
    assert conversion.places["text that this program wrote"] == [
        "AGENTS.md, line 5",
        "AGENTS.md, line 13",
    ]


def test_unreadable_and_empty_files_are_named(tmp_path: Path) -> None:
    files = {"CLAUDE.md": "- a", "x/CLAUDE.md": "", "y/CLAUDE.md": "\0"}
    conversion, _, _ = read_sample(source_with(tmp_path / "shop", files))
    assert conversion.places == {"a file without text": ["x/CLAUDE.md"]}
    assert [str(r).split(":")[0] for r in conversion.rejected] == ["y/CLAUDE.md"]
