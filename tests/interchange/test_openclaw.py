"""OpenClaw's workspace."""

import io
import zipfile
from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.stores.base import UNDATED


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("2026-09-01.md", "2026-09-01"),
        ("2026-09-01-vendor-call.md", "2026-09-01"),
        ("2026-09-01_1430.md", "2026-09-01"),
        ("2026-02-30.md", None),
        ("2026-13-01-slug.md", None),
        ("topics.md", None),
    ],
)
def test_the_day_in_the_name_dates_a_note_if_there_is_such_a_day(
    tmp_path: Path, name: str, day: str | None
) -> None:
    files = {f"memory/{name}": "- A fact.", "memory/2026-01-01.md": "", "MEMORY.md": ""}
    _, (entry,), _ = read_sample(source_with(tmp_path / "workspace", files))
    assert entry.extra.get(UNDATED, False) is (day is None)
    assert day is None or entry.created_at.isoformat() == f"{day}T00:00:00+00:00"


def test_the_same_fact_on_two_days_is_two_memories(tmp_path: Path) -> None:
    files = {f"memory/2026-09-0{day}.md": "- A fact." for day in (1, 2)}
    _, entries, _ = read_sample(source_with(tmp_path / "workspace", files))
    assert len({entry.id for entry in entries}) == 2


def test_fields_that_are_not_filled_in_are_left_out(tmp_path: Path) -> None:
    text = "_(Who are they?)_\n\n"
    text += "- **Name:** Ada\n- **Pronouns:** _(optional)_\n- **Notes:**\n- **Why:** *(a)* b\n"
    files = {"USER.md": text, "memory/2026-09-01.md": "- x"}
    _, entries, _ = read_sample(source_with(tmp_path / "workspace", files))
    assert [e.content for e in entries] == ["**Name:** Ada", "**Why:** *(a)* b", "x"]


def test_a_workspace_in_its_folder_is_known(tmp_path: Path) -> None:
    files = {"workspace/MEMORY.md": "- a", "workspace/memory/2026-09-01.md": "- b"}
    found = recognise(source_with(tmp_path / ".openclaw", files))
    assert found is not None
    assert found.format.name == "openclaw"


def test_the_folder_above_the_workspace_gives_the_same_memories(tmp_path: Path) -> None:
    files = {"MEMORY.md": "- a", "memory/2026-09-01.md": "- b"}
    _, alone, _ = read_sample(source_with(tmp_path / "workspace", files))
    above = {f"workspace/{path}": text for path, text in files.items()}
    _, entries, _ = read_sample(source_with(tmp_path / ".openclaw", above))
    assert entries == alone


def test_workspaces_of_two_agents_are_not_mixed(tmp_path: Path) -> None:
    files = {"MEMORY.md": "- a", "memory/2026-09-01.md": "- b"}
    _, first, _ = read_sample(source_with(tmp_path / "workspace", files))
    _, second, _ = read_sample(source_with(tmp_path / "workspace-bob", files))
    assert {e.id for e in first}.isdisjoint(e.id for e in second)
    assert {e.source_instance for e in second} == {"openclaw:bob"}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    _, zipped, _ = read_sample(source_of(data.getvalue(), "workspace-bob.zip"))
    assert zipped == second


def test_a_workspace_without_daily_notes_is_known_by_its_other_files(tmp_path: Path) -> None:
    files = {"USER.md": "- a", "IDENTITY.md": "- b", "SOUL.md": "c", "AGENTS.md": "- d"}
    found = recognise(source_with(tmp_path / "workspace", files))
    assert found is not None
    assert found.format.name == "openclaw"
    assert found.others[0].name == "rules"


def test_a_vault_with_a_folder_named_memory_is_a_vault(tmp_path: Path) -> None:
    files = {"memory/2026-09-01.md": "a", "b.md": "b", "c.md": "c"}
    found = recognise(source_with(tmp_path / "vault", files))
    assert found is not None
    assert found.format.name == "obsidian"
