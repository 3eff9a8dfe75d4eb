"""The architecture page lists the packages and files that exist, and names real functions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tribal_mcp"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def listed() -> set[str]:
    """The paths in the tree, relative to the package; directories end in a slash."""
    [tree] = re.findall(r"```text\ntribal_mcp/\n(.*?)```", PAGE, re.DOTALL)
    paths = set()
    parents: list[str] = []
    for line in tree.splitlines():
        indent, name, sentence = re.fullmatch(r"((?:  )+)(\S+) +(\S.*)", line).groups()  # type: ignore[union-attr]
        assert sentence
        parents[len(indent) // 2 - 1 :] = [name]
        paths.add("".join(parents))
    return paths


def existing() -> set[str]:
    """The packages and modules; a package's `__init__` is the package itself."""
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    packages = {f"{path.parent}/" for path in modules if path.parent != Path()}
    return packages | {str(path) for path in modules if not path.name.startswith("__")}


def test_every_path_in_the_tree_exists() -> None:
    assert sorted(listed() - existing()) == []


def test_every_package_and_top_level_module_is_in_the_tree() -> None:
    required = {path for path in existing() if path.endswith("/") or "/" not in path}
    assert sorted(required - listed()) == []


def test_a_package_that_lists_a_file_lists_all_its_files() -> None:
    described = {path.rpartition("/")[0] for path in listed() if not path.endswith("/")}
    required = {path for path in existing() if path.rpartition("/")[0] in described}
    assert sorted(required - listed()) == []


@pytest.mark.parametrize(
    ("name", "module"), re.findall(r"`([\w.]+)`\s+\(`([\w/]+\.py)`\)", PAGE), ids=lambda name: name
)
def test_every_function_that_the_data_flows_name_is_in_its_module(name: str, module: str) -> None:
    text = (PACKAGE / module).read_text()
    for part in name.split("."):
        assert re.search(rf"^\s*(?:async )?(?:def|class) {part}\b", text, re.MULTILINE), part
