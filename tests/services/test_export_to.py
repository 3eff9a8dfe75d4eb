"""Exporting in another system's format: what is lost, where it may go, and the way back."""

import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.interchange.samples import SAMPLES
from tests.interchange.test_writing import WRITABLE
from tribal_mcp.config import load
from tribal_mcp.errors import PathNotAllowed, UsageError
from tribal_mcp.interchange.base import Format
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.services.results.bundles import ExportResult

pytestmark = pytest.mark.anyio


def context_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(folder))
    monkeypatch.setenv("TRIBAL_EMBEDDER", "none")
    return Context(*load(), trusted=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with memories of several origins, in the part of a folder that is copied."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    with pytest.MonkeyPatch.context() as environment:
        made = context_of(folder, environment)
        for sample in ("mem0-get_all.json", "pam-1.0", "claude-import-memory.txt"):
            anyio.run(run, made, "import", {"input_path": str(SAMPLES / sample)})
    return folder


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, filled: Path) -> Context:
    shutil.copytree(filled, tmp_path / "data")
    return context_of(tmp_path / "data", monkeypatch)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def exported(context: Context, path: Path, name: str, **arguments: Any) -> ExportResult:  # noqa: ANN401
    result = await run(context, "export", {"output_path": str(path), "format": name, **arguments})
    assert isinstance(result, ExportResult)
    return result


async def memories(context: Context) -> dict[str, MemoryEntry]:
    async with context.store() as store:
        return await store.get_many(await store.list_ids())


def target(made: Format, folder: Path) -> Path:
    return folder / ("out" + (made.suffixes[0] if made.writes == "file" else ""))


@pytest.mark.parametrize("made", WRITABLE, ids=lambda made: made.name)
async def test_an_export_is_imported_home_without_a_change(
    context: Context, tmp_path: Path, made: Format
) -> None:
    before = await memories(context)
    path = target(made, tmp_path)
    result = await exported(context, path, made.name)
    assert result.memory_count == len(before)
    assert result.bytes > 0
    if {lost.what for lost in result.lost} <= {"its vector"}:
        home = await run(context, "import", {"input_path": str(path)})
        assert (home.imported, home.overwritten) == (0, 0)  # type: ignore[attr-defined]
        assert await memories(context) == before


@pytest.mark.parametrize("made", WRITABLE, ids=lambda made: made.name)
async def test_a_dry_run_lists_what_would_be_lost_and_writes_nothing(
    context: Context, tmp_path: Path, made: Format
) -> None:
    before = files_in(tmp_path)
    plan = await exported(context, target(made, tmp_path), made.name, dry_run=True)
    assert files_in(tmp_path) == before
    real = await exported(context, target(made, tmp_path), made.name)
    assert plan.lost == real.lost
    assert (plan.dry_run, real.dry_run) == (True, False)


async def test_lost_vectors_are_counted_with_examples(context: Context, tmp_path: Path) -> None:
    result = await exported(context, tmp_path / "out.csv", "csv")
    (lost,) = result.lost
    assert (lost.what, lost.memories, len(lost.examples)) == ("its vector", 5, 3)


async def test_deletions_are_counted_as_lost(context: Context, tmp_path: Path) -> None:
    first = next(iter(await memories(context)))
    await run(context, "forget", {"ids": [first]})
    result = await exported(context, tmp_path / "out.parquet", "parquet")
    assert [(lost.what, lost.examples) for lost in result.lost] == [
        ("that it was deleted", [first])
    ]


async def test_an_existing_file_is_replaced_on_request_if_it_has_the_format(
    context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "out.csv"
    await exported(context, path, "csv")
    with pytest.raises(UsageError, match="already exists"):
        await exported(context, path, "csv")
    await exported(context, path, "csv", overwrite=True, tags=["skill"])
    for other in ("text,name\nmine,1\n", '{"results": []}', "", "id,x_tribal\n1,\n"):
        path.write_text(other)
        with pytest.raises(PathNotAllowed, match="not a CSV table"):
            await exported(context, path, "csv", overwrite=True)
        assert path.read_text() == other


async def test_an_unknown_format_or_suffix_is_refused_before_anything_is_read(
    context: Context, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"'nope' does not exist\. These can be written: .*csv"):
        await exported(context, tmp_path / "x.csv", "nope")
    with pytest.raises(UsageError, match="'chatgpt' can be read, but not written"):
        await exported(context, tmp_path / "x.json", "chatgpt")
    with pytest.raises(UsageError, match=r"Use \.csv"):
        await exported(context, tmp_path / "x.json", "csv")
    with pytest.raises(UsageError, match="dry_run needs a format"):
        await run(context, "export", {"output_path": str(tmp_path / "x.json"), "dry_run": True})


@pytest.mark.usefixtures("context")
async def test_untrusted_callers_write_only_to_allowed_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_BUNDLE_DIRS", str(tmp_path / "allowed"))
    (tmp_path / "allowed").mkdir()
    limited = Context(*load())
    with pytest.raises(PathNotAllowed):
        await exported(limited, tmp_path / "out.csv", "csv")
    await exported(limited, tmp_path / "allowed" / "out.csv", "csv")
    dated = await run(limited, "export", {"format": "mem0"})
    assert isinstance(dated, ExportResult)
    again = await run(limited, "import", {"input_path": dated.output_path})
    assert again.identical == dated.memory_count  # type: ignore[attr-defined]


async def test_a_digest_changes_only_its_part_of_a_file_of_rules(
    context: Context, tmp_path: Path
) -> None:
    path = written(tmp_path / "CLAUDE.md", "# Rules\n\n- Use tabs.\n")
    with pytest.raises(UsageError, match="already exists"):
        await exported(context, path, "rules")
    await exported(context, path, "rules", overwrite=True)
    first = path.read_text()
    assert first.startswith("# Rules\n\n- Use tabs.\n\n<!-- tribal-mcp:begin")
    path.write_text(f"{first}\n- More.\n")
    await exported(context, path, "rules", overwrite=True, tags=["skill"])
    text = path.read_text()
    assert text.endswith("<!-- tribal-mcp:end -->\n\n- More.\n")
    assert len(text) < len(first)
    back = await run(context, "import", {"input_path": str(path), "dry_run": True})
    assert back.total == 2  # type: ignore[attr-defined]


async def test_a_digest_is_not_written_into_other_files(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path / "README.md", "# Read me\n")
    with pytest.raises(PathNotAllowed, match="is not rules for coding agents"):
        await exported(context, path, "rules", overwrite=True)
    assert path.read_text() == "# Read me\n"


async def test_a_folder_of_files_can_be_one_archive(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "notes.zip"
    before = await memories(context)
    await exported(context, path, "basic-memory")
    home = await run(context, "import", {"input_path": str(path)})
    assert home.identical == len(before)  # type: ignore[attr-defined]
    first = path.read_bytes()
    await exported(context, path, "basic-memory", overwrite=True)
    assert path.read_bytes() == first
