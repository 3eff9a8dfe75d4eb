"""What the architecture promises; import-linter holds the direction of imports."""

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


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """The modules that it imports, also within functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}


def test_only_files_and_stores_open_paths() -> None:
    openers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", None)) in OPENING
        and "os.devnull" not in ast.unparse(node)
        and not ast.unparse(node.func).endswith(("source.open", "origin.open"))
        and getattr(node.func, "id", "") != "read_text"  # a function, no method of a path
        and not ast.unparse(node.func).startswith(("files(", "data_path("))  # data of packages
    } - {"embedding.model_files", "interchange.places"}  # fixed paths below the home folder
    assert {module.partition(".")[0] for module in openers} == {"files", "stores"}


def test_only_config_reads_the_environment() -> None:
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
    [
        "tribal_mcp",
        "tribal_mcp.mcp_server.server",
        "tribal_mcp.cli.main",
        "tribal_mcp.http_api.server",
    ],
)
def test_an_interface_starts_without_importing_chroma_and_numpy(module: str) -> None:
    code = f"import sys, {module}; print(*({{'chromadb', 'numpy'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]


def test_every_dependency_is_used_and_bounded_and_nothing_else_is_used() -> None:
    dependencies = PROJECT["dependencies"]
    used = {i.partition(".")[0] for path in MODULES for i in imports_of(path)}
    used -= {"tribal_mcp", "pydantic_core", "compression", *sys.stdlib_module_names}
    used -= {"pyarrow", "sentence_transformers", "kingfisher_sdk", "phonenumbers"}  # optional
    used -= {"pyrage", "cryptography"}  # optional, too
    declared = {re.split(r"[<>=;.]", line)[0].replace("-", "_") for line in dependencies}
    modules = {
        "PyStemmer": "Stemmer", "pysimdjson": "simdjson", "markdown_it_py": "markdown_it",
        "pyyaml": "yaml",
    }  # fmt: skip
    declared = {modules.get(name, name) for name in declared}
    assert used == declared
    assert [line for line in dependencies if not re.search("==|<", line)] == []
