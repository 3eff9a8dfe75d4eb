"""Finding the memories of other systems on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interchange.samples import SAMPLES
from tests.support.mcp_client import connected
from tribal_mcp.config import load
from tribal_mcp.errors import NotPermitted
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.services.results.maintenance import DiscoverResult

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(SAMPLES / "claude-code-memory", home / ".claude" / "projects" / "p" / "memory")
    (home / "Downloads").mkdir()
    shutil.copy(SAMPLES / "chatgpt-export-2026.zip", home / "Downloads" / "export.zip")
    (home / "Downloads" / "photos.zip").write_bytes(b"PK\x03\x04 no archive")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "data"))
    return home


def files(folder: Path) -> Iterator[tuple[Path, bytes, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes(), path.stat().st_mtime_ns


async def discovered(*, trusted: bool = True) -> DiscoverResult:
    result = await run(Context(*load(), trusted=trusted), "discover", {})
    assert isinstance(result, DiscoverResult)
    return result


async def test_discover_lists_each_source_and_what_of_it_is_imported(home: Path) -> None:
    before = list(files(home))
    first, chatgpt, broken = (await discovered()).sources
    assert (first.system, first.format, first.count, first.imported) == (
        "Claude Code", "claude-code", 3, 0,
    )  # fmt: skip
    assert first.newest.startswith("2026-09-03")
    assert (chatgpt.format, chatgpt.count) == ("chatgpt", 4)
    assert "photos.zip" in broken.path
    assert "damaged" in broken.problem
    await run(Context(*load(), trusted=True), "import", {"input_path": first.path})
    result = await discovered()
    assert [source.imported for source in result.sources] == [3, 0, 0]
    assert [step.arguments["input_path"] for step in result.next_steps] == [chatgpt.path]
    assert list(files(home)) == before


@pytest.mark.usefixtures("home")
async def test_discover_finds_the_workspace_of_each_agent(home: Path) -> None:
    for name in ("workspace", "workspace-bob"):
        folder = home / ".openclaw" / name / "memory"
        folder.mkdir(parents=True)
        (folder / "2026-09-01.md").write_text("- A fact.\n")
    found = [s for s in (await discovered()).sources if s.system == "OpenClaw"]
    assert [(Path(s.path).name, s.count) for s in found] == [("workspace", 1), ("workspace-bob", 1)]


async def test_discover_writes_nothing(tmp_path: Path) -> None:
    await discovered()
    assert not list(files(tmp_path / "data"))


async def test_discover_says_that_there_is_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home.parent / "nobody"))
    result = await discovered()
    assert (result.sources, result.notes) == (
        [], ["Found no memories of other systems at their usual places."],
    )  # fmt: skip


@pytest.mark.usefixtures("home")
async def test_only_the_command_line_may_look_outside_the_allowed_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotPermitted, match="Set TRIBAL_DISCOVER=true to allow it"):
        await discovered(trusted=False)
    monkeypatch.setenv("TRIBAL_DISCOVER", "true")
    assert len((await discovered(trusted=False)).sources) == 3


@pytest.mark.parametrize("allowed", ["true", "false"])
async def test_a_resource_lists_the_sources_only_if_that_is_allowed(
    allowed: str, home: Path, tmp_path: Path
) -> None:
    more = {"TRIBAL_DISCOVER": allowed, "HOME": str(home)}
    async with connected(tmp_path, **more) as client:
        listed = {str(one.uri) for one in (await client.list_resources()).resources}
        assert ("tribal://sources" in listed) is (allowed == "true")
        if allowed == "true":
            read = await client.read_resource("tribal://sources")
            assert '"system": "Claude Code"' in str(read.contents[0])
