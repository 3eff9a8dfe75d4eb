"""Memories as Markdown in git: exported, edited in a branch, merged and imported back."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.examples import memory
from tribal_mcp import open_store
from tribal_mcp.config import Settings
from tribal_mcp.errors import ImportConflict, PathNotAllowed, UsageError
from tribal_mcp.files.published_folders import LIST
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.services.results.bundles import ImportResult

pytestmark = pytest.mark.anyio

ENTRIES = [
    memory(1, content="Deploys on Fridays are forbidden.\n\nSee the runbook.", tags=["ops"]),
    memory(2, content="Prefers dark mode.", related_to=["memory-1"], metadata={"n": 1}),
    memory(3, content="The database is PostgreSQL 17.", supersedes="memory-2"),
]


class Folder:
    """A store, and the folder of its export."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "notes"
        self.context = Context(Settings(data_dir=base / "store"), Limits(), trusted=True)

    async def write(self, *entries: MemoryEntry) -> None:
        async with open_store(self.base / "store") as store:
            await store.upsert(list(entries))

    async def delete(self, memory_id: str) -> None:
        async with open_store(self.base / "store") as store:
            await store.delete([memory_id])

    async def memories(self) -> dict[str, MemoryEntry]:
        async with open_store(self.base / "store") as store:
            return await store.get_many(await store.list_ids())

    async def export(self, **arguments: Any) -> Any:  # noqa: ANN401
        given = {"output_path": str(self.path), "format": "okf", **arguments}
        return await run(self.context, "export", given)

    async def imported(self, **arguments: Any) -> ImportResult:  # noqa: ANN401
        result = await run(self.context, "import", {"input_path": str(self.path), **arguments})
        assert isinstance(result, ImportResult)
        return result

    def file(self, text: str) -> Path:
        """The file in which a text stands."""
        [found] = [path for path in self.path.rglob("*.md") if text in path.read_text()]
        return found

    def edit(self, old: str, new: str) -> None:
        path = self.file(old)
        path.write_text(path.read_text().replace(old, new))

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],  # noqa: S607
            cwd=self.path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    """A store with three memories, exported."""
    made = Folder(tmp_path)
    await made.write(*ENTRIES)
    await made.export()
    return made


def changed_lines(diff: str) -> list[str]:
    """The changed lines of a diff, with times and hashes replaced."""
    lines = [line for line in diff.split("\n") if re.match(r"[+-](?![+-]{2} )", line)]
    return [re.sub(r"2\d{3}-[^\"]*|sha256:\w+", "…", line) for line in lines]


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
async def test_an_edit_in_a_branch_comes_back_and_the_diff_is_the_edit(folder: Folder) -> None:
    folder.git("init", "-q", "-b", "main")
    folder.git("add", ".")
    folder.git("commit", "-qm", "export")
    await folder.export()
    assert folder.git("status", "--short") == ""

    folder.git("checkout", "-qb", "edit")
    folder.edit("Fridays", "Fridays and Mondays")
    folder.git("commit", "-qam", "edit")
    folder.git("checkout", "-q", "main")
    folder.git("merge", "-q", "edit")
    before = await folder.memories()
    plan = await folder.imported(dry_run=True)
    assert [(c.action, c.id, c.reason) for c in plan.changes] == [
        ("overwrite", "memory-1", "edited since the export")
    ]
    result = await folder.imported()
    assert (result.overwritten, result.skipped, result.imported) == (1, 2, 0)

    after = await folder.memories()
    assert (
        after["memory-1"].content
        == "Deploys on Fridays and Mondays are forbidden.\n\nSee the runbook."
    )
    assert after["memory-1"].updated_at > before["memory-1"].updated_at
    assert after["memory-1"].created_at == before["memory-1"].created_at
    assert after["memory-1"].embedding is None
    assert {i: e for i, e in after.items() if i != "memory-1"} == {
        i: e for i, e in before.items() if i != "memory-1"
    }

    await folder.export()
    assert changed_lines(folder.git("diff", "HEAD~1")) == [
        '-generated: {"by": "tribal-mcp", "at": "…"}',
        '+generated: {"by": "tribal-mcp", "at": "…"}',
        '-  hash: "…"',
        '+  hash: "…"',
        "-Deploys on Fridays are forbidden.",
        "+Deploys on Fridays and Mondays are forbidden.",
    ]
    await run(folder.context, "undo", {"point": result.restore_point})
    assert await folder.memories() == before


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
async def test_exports_in_two_branches_merge_without_a_conflict(folder: Folder) -> None:
    folder.git("init", "-q", "-b", "main")
    folder.git("add", ".")
    folder.git("commit", "-qm", "export")
    other = Folder(folder.base / "other")
    other.base.mkdir()
    await other.write(*ENTRIES, memory(4))
    shutil.copytree(folder.path, other.path)
    await other.export()
    other.git("checkout", "-qb", "other")
    other.git("add", ".")
    other.git("commit", "-qm", "one more")
    await folder.write(memory(5))
    await folder.export()
    folder.git("add", ".")
    folder.git("commit", "-qm", "another one")
    folder.git("pull", "-q", "--no-rebase", "--no-edit", str(other.path), "other")
    assert (await folder.imported()).imported == 1
    await folder.export()
    assert folder.git("status", "--short") == ""
    assert (await folder.imported()).missing == 0


async def test_one_changed_memory_changes_one_file(folder: Folder) -> None:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    await folder.write(replace(ENTRIES[0], content="A quite different text."))
    await folder.export()
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert [path for path in before if before[path] != after[path]] == [
        folder.file("A quite different text.")
    ]


async def test_an_import_of_an_untouched_folder_changes_nothing(folder: Folder) -> None:
    before = await folder.memories()
    result = await folder.imported()
    assert (result.identical, result.missing, result.restore_point) == (3, 0, "")
    assert await folder.memories() == before


async def test_an_empty_store_gets_all_of_it(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    other.path = folder.path
    await other.imported()
    assert await other.memories() == {
        i: replace(e, embedding=None) for i, e in (await folder.memories()).items()
    }


async def test_vectors_travel_on_request(folder: Folder, tmp_path: Path) -> None:
    await folder.export(vectors=True)
    assert len(list((folder.path / "vectors").rglob("*.json"))) == 4
    folder.edit("dark mode", "light mode")
    other = Folder(tmp_path / "other")
    other.path = folder.path
    await other.imported()
    found = await other.memories()
    assert found["memory-2"].embedding is None
    assert found["memory-3"] == (await folder.memories())["memory-3"]
    await folder.imported()
    await folder.export()
    assert not (folder.path / "vectors").exists()


async def test_an_imported_edit_is_not_imported_again_and_may_be_exported(folder: Folder) -> None:
    folder.edit("dark mode", "light mode")
    with pytest.raises(UsageError, match="1 file holds something"):
        await folder.export()
    await folder.imported()
    first = await folder.memories()
    again = await folder.imported()
    assert (again.identical, again.overwritten, again.conflicts) == (3, 0, 0)
    assert await folder.memories() == first
    await folder.export()
    assert (await folder.imported()).identical == 3


async def test_the_vector_stays_with_its_text(folder: Folder) -> None:
    before = await folder.memories()
    folder.edit('tags: ["ops"]', 'tags: ["ops", "policy"]')
    await folder.imported()
    after = (await folder.memories())["memory-1"]
    assert after.tags == ["ops", "policy"]
    assert np.array_equal(after.embedding, before["memory-1"].embedding)  # type: ignore[arg-type]


async def test_a_new_file_is_a_new_memory_with_links(folder: Folder) -> None:
    linked = folder.file("dark mode").name
    (folder.path / "ci.md").write_text(f"Our CI is slow, see [this]({linked}).\n")
    result = await folder.imported()
    assert (result.imported, result.identical) == (1, 3)
    [new] = [e for e in (await folder.memories()).values() if e.content.startswith("Our CI")]
    assert new.related_to == ["memory-2"]
    await folder.export()
    assert folder.file("Our CI").name == "ci.md"
    folder.edit("slow", "fast")
    result = await folder.imported()
    assert (result.overwritten, result.imported) == (1, 0)
    assert "fast" in (await folder.memories())[new.id].content


async def test_a_new_file_may_be_edited_before_the_next_export(folder: Folder) -> None:
    (folder.path / "ci.md").write_text("Our CI is slow.\n")
    await folder.imported()
    folder.edit("slow", "fast")
    with pytest.raises(UsageError, match=r"an edit: 'ci\.md'"):
        await folder.export()
    assert (await folder.imported()).overwritten == 1


async def test_a_new_file_that_was_not_imported_stays(folder: Folder) -> None:
    (folder.path / "ci.md").write_text("Our CI is slow.\n")
    result = await folder.export()
    assert (folder.path / "ci.md").read_text() == "Our CI is slow.\n"
    assert any("1 of others left alone" in note for note in result.notes)


async def test_a_deleted_file_is_a_deletion_on_request(folder: Folder) -> None:
    await folder.write(memory(7, content="Never exported."))
    folder.file("dark mode").unlink()
    result = await folder.imported()
    assert (result.missing, result.deleted) == (1, 0)
    assert any(step.arguments.get("mirror_deletions") for step in result.next_steps)
    plan = await folder.imported(mirror_deletions=True, dry_run=True)
    assert [(c.action, c.id) for c in plan.changes] == [("delete", "memory-2")]
    result = await folder.imported(mirror_deletions=True)
    assert result.deleted == 1
    assert sorted(await folder.memories()) == ["memory-1", "memory-3", "memory-7"]
    await run(folder.context, "undo", {"point": result.restore_point})
    assert sorted(await folder.memories()) == ["memory-1", "memory-2", "memory-3", "memory-7"]


async def test_a_renamed_file_is_the_same_memory_and_keeps_its_name(folder: Folder) -> None:
    (folder.path / "ui").mkdir()
    folder.file("dark mode").rename(folder.path / "ui/theme.md")
    result = await folder.imported(mirror_deletions=True)
    assert (result.identical, result.deleted) == (3, 0)
    await folder.export()
    assert folder.file("dark mode") == folder.path / "ui/theme.md"


async def test_a_file_that_was_not_edited_does_not_undo_a_change_in_the_store(
    folder: Folder,
) -> None:
    await folder.write(newer(ENTRIES[1], content="Prefers light mode."))
    result = await folder.imported()
    assert (result.older, result.overwritten) == (1, 0)
    assert (await folder.memories())["memory-2"].content == "Prefers light mode."


def newer(entry: MemoryEntry, **changes: Any) -> MemoryEntry:  # noqa: ANN401
    return replace(entry, updated_at=entry.updated_at.replace(year=2026, month=11), **changes)


@pytest.fixture
async def conflict(folder: Folder) -> Folder:
    """A folder with a memory that was edited there and changed in the store."""
    await folder.write(newer(ENTRIES[1], content="Prefers light mode."))
    folder.edit("dark mode", "no colours at all")
    return folder


async def test_a_change_on_both_sides_is_shown_and_changes_nothing(conflict: Folder) -> None:
    plan = await conflict.imported(dry_run=True)
    [change] = plan.changes
    assert (change.id, change.action) == ("memory-2", "skip")
    assert change.reason.startswith("conflict: edited since the export")
    result = await conflict.imported()
    assert (result.conflicts, result.overwritten, result.skipped) == (1, 0, 3)
    assert (await conflict.memories())["memory-2"].content == "Prefers light mode."
    strategies = [s.arguments.get("conflict_resolution", s.action) for s in result.next_steps]
    assert strategies == ["keep_both", "overwrite", "export"]
    await run(conflict.context, "export", dict(result.next_steps[-1].arguments))
    assert (await conflict.imported()).identical == 3


async def test_overwrite_takes_the_version_of_the_folder(conflict: Folder) -> None:
    stored = (await conflict.memories())["memory-2"]
    result = await conflict.imported(conflict_resolution="overwrite")
    after = (await conflict.memories())["memory-2"]
    assert after.content == "Prefers no colours at all."
    assert after.updated_at > stored.updated_at
    assert after.embedding is None
    assert result.restore_point


async def test_keep_both_stores_the_version_of_the_folder_beside_it(conflict: Folder) -> None:
    conflict.edit("PostgreSQL 17", "PostgreSQL 18")
    for added in (1, 0):
        result = await conflict.imported(conflict_resolution="keep_both")
        assert (result.kept_both, result.overwritten) == (added, added)
    texts = sorted(entry.content for entry in (await conflict.memories()).values())
    assert texts == [
        "Deploys on Fridays are forbidden.\n\nSee the runbook.",
        "Prefers light mode.",
        "Prefers no colours at all.",
        "The database is PostgreSQL 18.",
    ]


async def test_fail_refuses_the_import_only_if_both_sides_changed(conflict: Folder) -> None:
    with pytest.raises(ImportConflict, match="memory-2"):
        await conflict.imported(conflict_resolution="fail")
    await conflict.write(ENTRIES[1])
    assert (await conflict.imported(conflict_resolution="fail")).overwritten == 1


async def test_skip_keeps_the_stored_memory(folder: Folder) -> None:
    folder.edit("dark mode", "light mode")
    assert (await folder.imported(conflict_resolution="skip")).overwritten == 0


async def test_an_edit_of_a_memory_that_was_deleted_here_restores_it_on_request(
    folder: Folder,
) -> None:
    await folder.delete("memory-2")
    folder.edit("dark mode", "light mode")
    assert (await folder.imported()).forgotten == 1
    result = await folder.imported(restore_deleted=True)
    assert result.brought_back == 1
    assert (await folder.memories())["memory-2"].content == "Prefers light mode."


async def test_an_unresolved_conflict_of_git_is_an_error_and_nothing_is_deleted(
    folder: Folder,
) -> None:
    folder.edit("dark mode", "\n<<<<<<< ours\ndark\n=======\nlight\n>>>>>>> theirs\n")
    result = await folder.imported()
    assert (result.errors, result.identical) == (1, 2)
    assert "conflict markers" in result.error_details[0]
    with pytest.raises(UsageError, match="can't be read"):
        await folder.imported(mirror_deletions=True)


async def test_a_copied_file_is_an_error_that_names_both(folder: Folder) -> None:
    shutil.copy(folder.file("dark mode"), folder.path / "copy.md")
    folder.path.joinpath("copy.md").write_text(
        folder.path.joinpath("copy.md").read_text().replace("dark", "light")
    )
    result = await folder.imported()
    assert result.errors == 1


async def test_without_the_list_the_files_are_still_known(folder: Folder) -> None:
    (folder.path / LIST).unlink()
    result = await folder.export()
    assert "0 files written, 4 unchanged." in result.notes


async def test_without_the_hidden_folder_nothing_is_overwritten(folder: Folder) -> None:
    shutil.rmtree((folder.path / LIST).parent)
    with pytest.raises(PathNotAllowed, match="was not written by an export"):
        await folder.export()


async def test_a_caller_without_rights_to_hidden_files_gets_the_same(folder: Folder) -> None:
    settings = Settings(data_dir=folder.base / "store", bundle_dirs=str(folder.base))
    folder.context = Context(settings, Limits())
    assert "0 files written, 4 unchanged." in (await folder.export()).notes
    folder.file("dark mode").unlink()
    assert (await folder.imported(mirror_deletions=True)).deleted == 1


@pytest.fixture
async def colleague(folder: Folder, tmp_path: Path) -> Folder:
    """Another store, into which the folder was imported."""
    other = Folder(tmp_path / "other")
    other.path = folder.path
    await other.imported()
    return other


async def test_an_export_of_another_store_deletes_no_memories_that_it_never_had(
    folder: Folder, colleague: Folder
) -> None:
    await folder.write(memory(9))
    await folder.export()
    with pytest.raises(UsageError, match="1 file holds something that this store does not have"):
        await colleague.export()
    await colleague.imported()
    assert "0 files written, 5 unchanged." in (await colleague.export()).notes


async def test_an_export_of_another_store_replaces_no_newer_version(
    folder: Folder, colleague: Folder
) -> None:
    await folder.write(newer(ENTRIES[1], content="Prefers light mode."))
    await folder.export()
    with pytest.raises(UsageError, match="1 file holds something that this store does not have"):
        await colleague.export()
    assert (await colleague.imported()).overwritten == 1
    assert "0 files written, 4 unchanged." in (await colleague.export()).notes


async def test_others_learn_which_memories_were_deleted(folder: Folder, colleague: Folder) -> None:
    await folder.delete("memory-2")
    await folder.export()
    assert "0 files written, 3 unchanged." in (await folder.export()).notes
    assert (await colleague.imported()).missing == 1
    assert (await colleague.imported(mirror_deletions=True)).deleted == 1
    assert sorted(await colleague.memories()) == ["memory-1", "memory-3"]
    assert "0 files written, 3 unchanged." in (await colleague.export()).notes


async def test_an_incremental_export_is_not_written_to_a_folder(folder: Folder) -> None:
    with pytest.raises(UsageError, match="incremental"):
        await folder.export(since="2026-01-01")
    assert len(list(folder.path.glob("*-*.md"))) == 3


async def test_the_history_names_the_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    folder.edit("dark mode", "light mode")
    await run(folder.context, "import", {"input_path": "."})
    history = await run(folder.context, "history", {})
    assert history.model_dump()["operations"][0]["source"] == "notes"


async def test_a_memory_that_is_no_longer_selected_is_not_deleted_elsewhere(
    folder: Folder, colleague: Folder
) -> None:
    await folder.export(tags=["ops"], allow_smaller=True)
    assert len(list(folder.path.glob("*-*.md"))) == 1
    assert (await colleague.imported()).missing == 0
