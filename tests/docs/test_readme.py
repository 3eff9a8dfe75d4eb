"""The commands in the README and the docs exist and print what the pages show."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import anyio
import pytest

from examples.demo import fill
from tribal_mcp.cli import main as cli
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FORMAT = ROOT / "docs" / "bundle-format.md"
OTHER_PROGRAMS = {"cd", "curl", "export", "git", "rsync", "uv"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def in_shell(page: Path) -> list[list[str]]:
    """Return the commands in a page's shell blocks, split into words."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    lines = [re.sub(r"^\w+=\$\(", "", line) for line in lines]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def _timeless(output: str) -> str:
    """Replace the names of restore points, which contain the time."""
    return re.sub(r"\d{8}-\d{6}-\d{6}", "POINT", output.strip())


def test_the_session_in_the_readme_shows_the_real_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIBAL_DATA_DIR", "first")
    anyio.run(fill, Path("first"))
    [session] = blocks(README, "console")
    steps = re.findall(r"^\$ tribal-mcp (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(steps) == 4
    for command, expected in steps:
        if "# on the other machine" in command:
            monkeypatch.setenv("TRIBAL_DATA_DIR", "second")
        monkeypatch.setattr(sys, "argv", ["tribal-mcp", *shlex.split(command, comments=True)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        assert _timeless(capsys.readouterr().out) == _timeless(expected)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_command_on_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *rest in in_shell(page):
        if program == "make":
            assert rest[0] in targets
        else:
            assert program.rpartition("/")[2] in {"tribal-mcp", *OTHER_PROGRAMS}
    assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets


def test_the_table_of_tools_lists_every_tool_with_every_argument() -> None:
    described = json.loads((ROOT / "tests" / "data" / "tools.json").read_text())
    expected = {
        tool["name"]: sorted(tool["inputSchema"].get("properties", {}))
        for tool in described["tools"]
    }
    rows = re.findall(r"^\| `(tribal_\w+)` \|([^|]*)\|", README.read_text(), re.MULTILINE)
    assert {tool: sorted(re.findall(r"`(\w+)`", cell)) for tool, cell in rows} == expected


def test_continuous_integration_runs_the_test_command_from_the_readme() -> None:
    assert ["make", "test"] in in_shell(README)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_example_configuration_and_each_client_name_the_installed_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [installed] = project["scripts"]
    example = json.loads((ROOT / "claude_config.example.json").read_text())
    server = example["mcpServers"]["tribal"]
    assert Path(server["command"]).name == installed
    assert server["args"] == []
    text = README.read_text()
    lines = re.findall(r"^\| [\w ]+ \| `((?:claude|codex|gemini) .*)` \|$", text, re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"claude", "codex", "gemini"}
    assert all(line.split()[-1] == installed for line in lines)
    [added] = re.findall(r"--add-mcp '(.*?)'", text)
    assert json.loads(added)["command"] == installed


def test_the_readme_is_short_and_advises_no_name_of_the_package_index() -> None:
    assert len(README.read_text().splitlines()) <= 150
    for page in PAGES:
        installs = re.findall(r"(?:pipx|pip|tool) install ([^`\n]*)", page.read_text())
        assert not any(re.match(r"'?tribal", what) for what in installs), page.name


def test_the_example_bundle_on_the_format_page_is_read_and_written_unchanged() -> None:
    [text] = blocks(FORMAT, "json")
    reader = BundleReader(BytesIO(text.rstrip("\n").encode()))
    assert reader.verify(strict=True).notes == []
    entries = PortableBundle.from_dict(json.loads(text)).entries
    out = BytesIO()
    writer = BundleWriter(out, reader.manifest)
    writer.write(entries)
    writer.finish()
    assert out.getvalue().decode() == text.rstrip("\n")


def test_the_shell_command_on_the_format_page_computes_the_checksum(tmp_path: Path) -> None:
    [text] = blocks(FORMAT, "json")
    (tmp_path / "bundle.json").write_text(text)
    [command] = blocks(FORMAT, "bash")
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.split()[0] == json.loads(text)["integrity"]["sha256"]
