"""The snippets in the README and the docs run, their tables are complete, their links work."""

import ast
import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import memory
from tribal_mcp import open_store
from tribal_mcp.config import HttpSettings, Settings
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import create_embedding_metadata

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_snippets_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def go() -> None:
        async with open_store("memories-folder") as store:
            await store.set_identity(create_embedding_metadata("all-MiniLM-L6-v2", 384))
            await store.upsert([memory(n, 384, tags=["work", "preferences"]) for n in range(10)])
        names: dict[str, Any] = {}
        for snippet in snippets(page, "python"):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            result = eval(compile(snippet, page.name, "exec", flags=flags), names)  # noqa: S307
            if inspect.isawaitable(result):
                await result

    asyncio.run(go())


def test_the_settings_page_lists_every_setting_and_limit_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(TRIBAL_\w+)` \|\s*`?([^|`]*?)`?\s*\|", SETTINGS, re.MULTILINE))
    defaults = {
        **{f"TRIBAL_{n}".upper(): f.default for n, f in Settings.model_fields.items()},
        **{f"TRIBAL_HTTP_{n}".upper(): f.default for n, f in HttpSettings.model_fields.items()},
        **{f"TRIBAL_LIMIT_{n}".upper(): f.default for n, f in Limits.model_fields.items()},
    }
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        if default and isinstance(default, str | int | float):
            assert rows[name] == (default if isinstance(default, str) else f"{default:.0f}")


def test_the_configuration_block_equals_the_example_file() -> None:
    [block] = snippets(ROOT / "README.md", "json")
    example = json.loads((ROOT / "claude_config.example.json").read_text())
    assert json.loads(block) == example


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_an_existing_file_and_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            linked = page.parent / name if name else page
            assert linked.exists(), target
            assert not anchor or anchor in headings(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`([\w/]+/\w+\.py)`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "tribal_mcp" / name).exists(), name


def test_the_list_of_decisions_has_every_record_with_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = [
        (path.name[:4], path.name, path.read_text().partition("\n")[0][len("# 0000: ") :])
        for path in sorted(folder.glob("0*.md"))
    ]
    assert records == re.findall(r"^\| \[(\d+)\]\((.*)\) \| (.*) \|$", index, re.MULTILINE)
