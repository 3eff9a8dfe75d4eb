"""A server with a few memories, shared by the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_client import HttpServer, serving
from tests.support.mcp_client import write_many

COUNT = 12
"""Memories in the store."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[HttpServer]:
    write_many(folder / "many.json", COUNT)
    (folder / "shared").mkdir()
    with serving(folder, TRIBAL_SYNC_DIR=str(folder / "shared")) as running:
        first = running.ask("POST", "/v1/import", (folder / "many.json").read_bytes())
        assert first.status == 200, first.body
        yield running
