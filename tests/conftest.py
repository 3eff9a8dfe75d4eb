"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chroma_servers import RealServer, real_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no file of the person who runs the tests is reached."""
    for name in list(os.environ):
        if name.startswith(("TRIBAL_", "CHROMA_", "CLAUDE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real Chroma server for all tests that leave it alive; each uses collections of its own."""
    with real_server(tmp_path_factory.mktemp("server") / "chroma") as server:
        yield server
