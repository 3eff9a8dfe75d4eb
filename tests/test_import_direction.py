"""The house keeps its shape: who may import whom, and who alone may do what."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tribal_mcp"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "portability.limits": 0,
    "config": 1,
    "portability": 2,
    "stores": 3,
    "embedding": 3,
    "open_folder": 3,
    "files": 3,
    "spool": 3,
    "services": 4,
    "tables": 5,
    "tables_memory": 5,
    "terminal": 5,
    "mcp_tool": 5,
    "mcp_memory": 5,
    "command": 5,
    "cli_memory": 5,
    "cli": 6,
    "mcp_server": 6,
    "http_api": 6,
}
DOORS = {"cli", "mcp_server", "http_api"}
STARTERS = {
    ("cli", "mcp_server"),
    ("__main__", "cli"),
    ("cli", "http_api.serving"),
    ("http_api.app", "mcp_server"),
}
"""`tribal-mcp` without a command is the server, and `serve` has the same tools under `/mcp`."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> int:
    while module not in FLOORS and "." in module:
        module = module.rpartition(".")[0]
    return FLOORS[module]


def imports_of(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """The modules that it imports, those within functions too, and those for its types."""
    tree = ast.parse(path.read_text())
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if at_run_time and node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    found = {i.removeprefix("tribal_mcp.") for i in imports_of(path) if i.startswith("tribal_mcp.")}
    return {i for i in found if (PACKAGE / (i.replace(".", "/") + ".py")).exists()}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_floor_and_below(path: Path) -> None:
    module = name_of(path)
    if module in ("", "__init__", "__main__"):
        return
    for imported in ours(path):
        if (module, imported) in STARTERS:
            continue
        assert floor_of(imported) <= floor_of(module), f"{module} imports {imported}"
        doors = {module.partition(".")[0], imported.partition(".")[0]}
        assert len(doors & DOORS) < 2, f"{module} imports {imported}"


def importers_of(thing: str, *, at_run_time: bool = False) -> set[str]:
    return {
        name_of(path)
        for path in MODULES
        if any(
            i == thing or i.startswith(f"{thing}.")
            for i in imports_of(path, at_run_time=at_run_time)
        )
    }


KEEPERS = {
    "chromadb": {"stores.chroma_folder", "embedding.by_chroma"},
    "tribal_mcp.open_folder": {"files", "spool"},
    "pydantic_settings": {"config"},
    "httpx": {"stores.server_http", "embedding.over_http"},
}


@pytest.mark.parametrize("thing", KEEPERS)
def test_only_its_keeper_imports(thing: str) -> None:
    assert importers_of(thing, at_run_time=True) == KEEPERS[thing]


def test_only_the_stores_and_the_embedders_know_the_types_of_chroma() -> None:
    rooms = {module.partition(".")[0] for module in importers_of("chromadb")}
    assert rooms == {"stores", "embedding"}


OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}


def test_only_the_files_and_the_stores_open_anything_by_its_path() -> None:
    openers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", None)) in OPENING
    }
    assert {module.partition(".")[0] for module in openers} == {"open_folder", "stores"}


def test_only_the_configuration_reads_the_environment() -> None:
    readers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert readers == {"config"}


@pytest.mark.parametrize(
    "module",
    ["tribal_mcp", "tribal_mcp.mcp_server", "tribal_mcp.cli", "tribal_mcp.http_api.serving"],
)
def test_a_door_opens_without_chroma_and_numpy(module: str) -> None:
    code = f"import sys, {module}; print(*({{'chromadb', 'numpy'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]


def test_every_dependency_is_used_and_bounded_and_nothing_else_is_used() -> None:
    dependencies = PROJECT["dependencies"]
    used = {i.partition(".")[0] for path in MODULES for i in imports_of(path)}
    used -= {"tribal_mcp", "compression", *sys.stdlib_module_names}
    declared = {re.split(r"[<>=;.]", line)[0].replace("-", "_") for line in dependencies}
    declared = {name.removeprefix("py") if name == "pysimdjson" else name for name in declared}
    assert used == declared
    assert [line for line in dependencies if not re.search("==|<", line)] == []
