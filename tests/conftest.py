"""Fixtures for all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from platformdirs import user_cache_path

from tests.support.chroma_servers import RealServer, real_server
from tests.support.command_line import Ran, Tribal
from tribal_mcp.cli import main as cli
from tribal_mcp.stores.chroma.folder import ChromaFolder

SLOW = {
    *("http_api", "mcp_server", "worker"),
    *(
        "test_backups",
        "test_bombs",
        "test_change_model",
        "test_chroma_server",
        "test_chroma_server_failures",
    ),
    *("test_contract", "test_copy_between_servers", "test_copy_store", "test_demo", "test_guide"),
    "test_hnsw_labels",  # some of its damaged pickles take long, on Python 3.13 over a minute
    *(
        "test_path_races",
        "test_publishing",
        "test_readme",
        "test_recall",
        "test_recall_quality",
        "test_carriers",
        "test_schedules",
        "test_reembed",
    ),
    *("test_programs", "test_search", "test_since", "test_two_folders", "test_two_stores"),
}
"""Packages and modules of tests that start many processes or take long; see `make quick`."""

CACHE = user_cache_path()
"""The compiled rules for secrets are kept from one run to the next: they take seconds to make."""

# `make fuzz` uses the profile `full`; the short one tries the same examples each time.
hypothesis.settings.register_profile("short", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.register_profile("full", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("short")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests."""
    for item in items:
        if SLOW & {part.removesuffix(".py") for part in item.path.parts}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings and files of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("TRIBAL_", "CHROMA_", "CLAUDE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


@pytest.fixture(scope="module", autouse=True)
def _closed_folders() -> Iterator[None]:
    """Close what the tests of a module left open: a process may open only so many files."""
    yield
    ChromaFolder.close_all()


@pytest.fixture
def tribal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tribal:
    """Run `tribal-mcp …` in its own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "store"))

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tribal-mcp", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert end.value.code is None or isinstance(end.value.code, int)
        return Ran(end.value.code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real Chroma server for all tests that leave it alive; each uses collections of its own."""
    with real_server(tmp_path_factory.mktemp("server") / "chroma") as server:
        yield server
