"""What a command imports before its work: most of the time that a short command takes."""

import gc
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from pydantic import BaseModel

from tests.support.examples import memories
from tests.support.mcp_client import write_bundle
from tribal_mcp.cli.main import app, main
from tribal_mcp.http_api import server
from tribal_mcp.mcp_server import stdio
from tribal_mcp.services import requests, results

SLOW_TO_IMPORT = {
    "chromadb", "grpc", "httpx", "ijson", "markdown_it", "mcp", "numpy", "onnxruntime",
    "pydantic_settings", "rich", "starlette", "tokenizers", "yaml",
}  # fmt: skip
RESULTS = [f"{results.__name__}.{found.name}" for found in iter_modules(results.__path__)]
PROGRAM = """
import sys
from tribal_mcp.cli.main import main
try:
    main()
finally:
    print("\\nimported", *sys.modules)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write_bundle(folder / "some.json", memories(3))
    imported(folder, "import", str(folder / "some.json"))
    return folder


def imported(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "TRIBAL_DATA_DIR": str(folder / "store")},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("\nimported ")[2].split())


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("where",), set()),
        (("stats",), set()),
        (("list",), set()),
        (("recall", "memory"), set()),
        (("history",), set()),
        (("show", "memory-1"), {"numpy"}),
        (("export", "out.json"), {"numpy"}),
        (("import", "some.json", "--dry-run"), {"numpy", "ijson"}),
        (("import", "some.json"), {"numpy", "ijson"}),  # every memory is there already
    ],
    ids=lambda value: " ".join(value) if type(value) is tuple else "",
)
def test_a_command_imports_only_what_it_needs_of_what_is_slow_to_import(
    store: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], needed: set[str]
) -> None:
    monkeypatch.chdir(store)
    assert imported(store, *arguments) & SLOW_TO_IMPORT == needed


def test_the_validators_of_requests_and_results_are_built_when_they_are_used() -> None:
    modules = [requests, *map(import_module, RESULTS)]
    models = [m for module in modules for m in vars(module).values() if isinstance(m, type)]
    found = [m for m in models if issubclass(m, BaseModel) and m is not BaseModel]
    assert len(found) > 30
    assert [m.__name__ for m in found if not m.model_config.get("defer_build")] == []


def test_a_command_imports_only_the_results_that_it_may_return(store: Path) -> None:
    found = imported(store, "list") & {*RESULTS}
    assert [name.rpartition(".")[2] for name in found] == ["memories"]


def test_a_write_imports_chroma_without_grpc(store: Path) -> None:
    found = imported(store, "remember", "a text")
    assert "chromadb.api.rust" in found
    assert "grpc" not in found


def test_a_help_page_does_not_import_the_use_cases(store: Path) -> None:
    for command in ("--help", *(f"{name} --help" for name in list(app.commands)[:2])):
        found = imported(store, *command.split())
        assert not [name for name in found if name.startswith("tribal_mcp.services")]
        assert "pydantic" not in found


def test_servers_look_for_garbage_as_often_as_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = gc.get_threshold(), list[int]()
    monkeypatch.setattr(stdio, "serve_stdio", lambda: seen.append(gc.get_threshold()[0]))
    monkeypatch.setattr(server, "serve_http", lambda *_: seen.append(gc.get_threshold()[0]))
    try:
        for arguments in ([], ["serve"]):
            monkeypatch.setattr(sys, "argv", ["tribal-mcp", *arguments])
            with pytest.raises(SystemExit):
                main()
    finally:
        gc.set_threshold(*before)
    assert len(seen) == 2
    assert max(seen) < 10_000
