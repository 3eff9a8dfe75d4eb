"""Importing the sources of other systems: the plan, the counts, changes at the source, and undo."""

from pathlib import Path
from typing import Any

import pytest

from tests.interchange.samples import SAMPLES, sample_names
from tribal_mcp.config import load
from tribal_mcp.errors import BundleError, TribalError, UsageError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.services.results.bundles import ImportResult
from tribal_mcp.services.results.store import UndoResult

pytestmark = pytest.mark.anyio

LIST = "[2026-01-14] - Likes tea.\n[unknown] - Works in Helsinki.\n"


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Context:
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TRIBAL_EMBEDDER", "none")
    return Context(*load(), trusted=True)


async def imported(context: Context, path: Path, **arguments: Any) -> ImportResult:  # noqa: ANN401
    result = await run(context, "import", {"input_path": str(path), **arguments})
    assert isinstance(result, ImportResult)
    return result


async def memories(context: Context) -> dict[str, MemoryEntry]:
    async with context.store() as store:
        return await store.get_many(await store.list_ids())


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_every_sample_is_imported_once_and_undone(context: Context) -> None:
    for name in sample_names():
        before = await memories(context)
        plan = await imported(context, SAMPLES / name, dry_run=True)
        assert await memories(context) == before, name
        real = await imported(context, SAMPLES / name)
        assert real.found == real.total + real.left_out + real.deletions, name
        assert real.total == real.imported + real.overwritten + real.skipped + real.errors, name
        same = {"dry_run", "duration_ms", "restore_point", "changes", "next_step", "next_steps"}
        assert plan.model_dump(exclude=same) == real.model_dump(exclude=same), name
        after = await memories(context)
        again = await imported(context, SAMPLES / name)
        assert (again.imported, again.overwritten, again.deleted) == (0, 0, 0), name
        assert await memories(context) == after, name
        if real.restore_point:
            await run(context, "undo", {"point": real.restore_point})
        assert await memories(context) == before, name


async def test_a_result_names_the_format_and_why(context: Context, tmp_path: Path) -> None:
    result = await imported(context, written(tmp_path / "list.txt", LIST), dry_run=True)
    assert result.format == "dated-list"
    assert "a list of dated lines (dated-list): lines that begin with a date" in result.notes[0]


async def test_a_changed_record_replaces_its_memory(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    note = written(folder / "tea.md", "---\nname: tea\ntype: user\noriginSessionId: 1\n---\nTea.\n")
    await imported(context, folder)
    note.write_text("---\nname: tea\ntype: user\noriginSessionId: 1\n---\nCoffee.\n")
    plan = await imported(context, folder, dry_run=True)
    assert (plan.overwritten, plan.changes[0].reason) == (1, "changed in the source")
    result = await imported(context, folder)
    assert [m.content.strip() for m in (await memories(context)).values()] == ["Coffee."]
    await run(context, "undo", {"point": result.restore_point})
    assert [m.content.strip() for m in (await memories(context)).values()] == ["Tea."]


async def test_a_changed_record_is_kept_if_that_is_asked_for(
    context: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    note = written(folder / "tea.md", "---\nname: tea\ntype: user\noriginSessionId: 1\n---\nTea.\n")
    await imported(context, folder)
    note.write_text("---\nname: tea\ntype: user\noriginSessionId: 1\n---\nCoffee.\n")
    result = await imported(context, folder, conflict_resolution="skip")
    assert (result.overwritten, result.skipped) == (0, 1)


async def test_a_record_deleted_at_the_source_is_reported_and_deleted_on_request(
    context: Context, tmp_path: Path
) -> None:
    source = written(tmp_path / "list.txt", LIST)
    await run(context, "remember", {"content": "Not from the list."})
    await imported(context, source)
    source.write_text(LIST.partition("\n")[0])
    result = await imported(context, source)
    assert (result.missing, result.deleted) == (1, 0)
    assert result.next_steps[0].arguments["mirror_deletions"] is True
    assert len(await memories(context)) == 3
    plan = await imported(context, source, mirror_deletions=True, dry_run=True)
    assert (plan.missing, plan.deleted) == (1, 1)
    assert len(await memories(context)) == 3
    result = await imported(context, source, mirror_deletions=True)
    assert (result.missing, result.deleted) == (1, 1)
    left = {memory.content for memory in (await memories(context)).values()}
    assert left == {"Likes tea.", "Not from the list."}
    undone = await run(context, "undo", {"point": result.restore_point})
    assert isinstance(undone, UndoResult)
    assert undone.brought_back == 1


async def test_a_table_in_another_encoding_is_refused_with_the_encoding(
    context: Context, tmp_path: Path
) -> None:
    source = tmp_path / "notes.csv"
    source.write_bytes("text;date\nGrüße;2026-05-17\n".encode("cp1252"))
    with pytest.raises(BundleError, match="save it as UTF-8"):
        await imported(context, source)


async def test_deletions_are_not_mirrored_while_a_record_cannot_be_read(
    context: Context, tmp_path: Path
) -> None:
    source = written(tmp_path / "notes.csv", "id,text,date\n1,one,2026-05-17\n2,two,2026-05-18\n")
    await imported(context, source)
    source.write_text("id,text,date\n1,one,2026-05-17\n2,two,18.05.2026\n")
    with pytest.raises(UsageError, match=r"1 record can't be read \(line 3: .*not known"):
        await imported(context, source, mirror_deletions=True)
    assert len(await memories(context)) == 2


@pytest.mark.parametrize("name", ["chatgpt-export-2026", "claude-conversations.json"])
async def test_messages_that_are_not_read_again_are_not_missing(
    context: Context, name: str
) -> None:
    first = await imported(context, SAMPLES / name, conversations=True)
    result = await imported(context, SAMPLES / name, mirror_deletions=True)
    assert first.imported > result.skipped
    assert (result.missing, result.deleted) == (0, 0)


async def test_nothing_is_missing_in_another_source_of_the_same_kind(
    context: Context, tmp_path: Path
) -> None:
    await imported(context, written(tmp_path / "claude.txt", LIST))
    other = written(tmp_path / "chatgpt.txt", "[2026-03-01] - Rides a bicycle.\n")
    result = await imported(context, other)
    assert (result.imported, result.missing) == (1, 0)
    assert not any("mirror_deletions" in step.arguments for step in result.next_steps)


async def test_a_memory_deleted_here_is_not_imported_again(
    context: Context, tmp_path: Path
) -> None:
    source = written(tmp_path / "list.txt", LIST)
    await imported(context, source)
    await run(context, "forget", {"ids": list(await memories(context))})
    result = await imported(context, source)
    assert (result.imported, result.forgotten) == (0, 2)
    assert (await imported(context, source, restore_deleted=True)).brought_back == 2


async def test_the_scope_of_what_is_imported_can_be_changed(
    context: Context, tmp_path: Path
) -> None:
    source = written(tmp_path / "list.txt", LIST)
    scope = {"add_tags": ["old laptop", "list"], "map_tags": ["list=", "x=y"], "instance": "laptop"}
    await imported(context, source, **scope)
    for memory in (await memories(context)).values():
        assert (memory.tags, memory.source_instance) == (["old laptop", "list"], "laptop")
    result = await imported(context, source, **scope)
    assert (result.identical, result.missing) == (2, 0)


async def test_the_scope_of_a_bundle_can_be_changed(context: Context, tmp_path: Path) -> None:
    await run(context, "remember", {"content": "Likes tea.", "tags": ["work"]})
    bundle = tmp_path / "bundle.json"
    await run(context, "export", {"output_path": str(bundle)})
    await run(context, "forget", {"ids": list(await memories(context))})
    await imported(context, bundle, restore_deleted=True, map_tags=["work=job"], instance="desktop")
    (memory,) = (await memories(context)).values()
    assert (memory.tags, memory.source_instance) == (["job"], "desktop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "nonsense"}, "There is no format 'nonsense'. The formats are"),
        ({"map_tags": ["work"]}, "must be two names with = between them"),
        ({"map_tags": ["a=b", "a=c"]}, "none may be given twice"),
        ({"conflict_resolution": "mirror"}, "can't be made equal to a list of dated lines"),
    ],
    ids=["an unknown format", "no equals sign", "a tag twice", "mirror"],
)
async def test_options_that_do_not_fit_are_refused(
    context: Context, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await imported(context, written(tmp_path / "list.txt", LIST), **arguments)
    assert not await memories(context)


async def test_an_unknown_file_is_refused_with_what_was_looked_for(
    context: Context, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"none of the other known formats.*claude-code"):
        await imported(context, written(tmp_path / "x.bin", "nothing"))


async def test_a_strict_import_of_a_source_with_a_bad_record_changes_nothing(
    context: Context, tmp_path: Path
) -> None:
    source = written(tmp_path / "list.txt", LIST + "[2026-02-30] - Never.\n")
    with pytest.raises(BundleError, match=r"line 3: '2026-02-30' is not a date"):
        await imported(context, source, strict=True)
    result = await imported(context, source)
    assert (result.imported, result.errors) == (2, 1)
    assert result.error_details == ["line 3: '2026-02-30' is not a date"]


async def test_a_path_outside_the_allowed_folders_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TRIBAL_BUNDLE_DIRS", str(tmp_path / "bundles"))
    (tmp_path / "bundles").mkdir()
    for name in ("list.txt", "bundles/../list.txt"):
        written(tmp_path / "list.txt", LIST)
        with pytest.raises(TribalError, match="outside the allowed folders"):
            await imported(Context(*load()), tmp_path / name)


async def test_a_source_with_only_conversations_says_how_to_import_them(context: Context) -> None:
    result = await imported(context, SAMPLES / "chatgpt-conversations.json")
    assert (result.imported, result.left_out) == (0, 2)
    (step,) = result.next_steps
    assert "only conversations" in step.text
    result = await imported(context, Path(step.arguments["input_path"]), conversations=True)
    assert (result.imported, result.left_out) == (2, 0)


async def test_the_fields_of_a_table_are_mapped_if_they_can_not_be_guessed(
    context: Context, tmp_path: Path
) -> None:
    table = written(tmp_path / "facts.csv", "fact,when\nLikes tea.,2026-01-14\nLikes cake.,\n")
    with pytest.raises(BundleError, match="a CSV table with the fields `fact`, `when`") as refused:
        await imported(context, table)
    assert refused.value.next_steps[0].arguments["mapping"] == ["content=FIELD"]
    mapping = ["content=fact", "created_at=when"]
    plan = await imported(context, table, mapping=mapping, dry_run=True)
    assert (plan.format, plan.imported) == ("csv", 2)
    await imported(context, table, mapping=mapping)
    dates = {m.content: m.created_at.year for m in (await memories(context)).values()}
    assert dates == {"Likes tea.": 2026, "Likes cake.": 1970}
    assert (await imported(context, table, mapping=mapping)).identical == 2


@pytest.mark.parametrize(
    ("name", "text", "mapping", "message"),
    [
        ("facts.csv", "fact,when\na,b\n", ["content=facts"], "no field 'facts' in the source"),
        ("facts.csv", "fact,when\na,b\n", ["conten=fact"], "'conten' is not a field"),
        ("facts.csv", "fact,when\na,b\n", ["created_at=when"], "Map a field to content"),
        ("list.txt", LIST, ["content=fact"], "can't be mapped: it is no table"),
    ],
    ids=["no such column", "no such field", "no content", "no table"],
)
async def test_a_mapping_that_does_not_fit_is_refused(  # noqa: PLR0917 - one row of a table
    context: Context, tmp_path: Path, name: str, text: str, mapping: list[str], message: str
) -> None:
    with pytest.raises(TribalError, match=message):
        await imported(context, written(tmp_path / name, text), mapping=mapping)
    assert not await memories(context)


@pytest.mark.parametrize(
    "text",
    [
        '{"manifest": null, "entries": [{"id": "1", "content": "a", "created_at": "2026-01-01"}]}',
        '{"manifest": 1, "entries": [{"content": "a"}]}',
        '{"manifest": {"schema_version": "9.9"}}\n{"content": "a"}\n',
    ],
    ids=["null", "a number", "an unknown version"],
)
async def test_a_damaged_bundle_is_not_read_as_another_format(
    context: Context, tmp_path: Path, text: str
) -> None:
    with pytest.raises(BundleError, match=r"manifest|version"):
        await imported(context, written(tmp_path / "bundle.json", text))
    assert not await memories(context)
