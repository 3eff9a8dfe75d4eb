"""Has real MCP clients list and call every tool of the stdio server: `make clients`.

Each client is installed in an environment of its own, from its package index, and makes the same
calls with a new store; no model and no network is used. The results go to docs/clients.md. Not
part of the suite.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.mcp_client import SERVER, settings, write_many

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("CLIENT_ENVIRONMENTS", ROOT / ".clients"))
PAGE = ROOT / "docs" / "clients.md"
SCRIPTS = Path(__file__).parent / "scripts"
_NODE = "node@24"  # the inspector needs Node 22.19
_ERROR = None

CALLS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    (
        "tribal_remember",
        {"content": "Takes tea without milk.", "tags": ["home"]},
        {"created": True},
    ),
    ("tribal_remember", {"content": "Takes tea.", "tag": "home"}, _ERROR),
    ("tribal_recall", {}, {"total": 1}),
    ("tribal_recall", {"query": "tea", "count": 1}, {}),
    ("tribal_stats", {}, {"count": 1}),
    ("tribal_export", {"output_path": "all.json"}, {"memory_count": 1}),
    (
        "tribal_import",
        {"input_path": "some.json", "dry_run": True},
        {"imported": 3, "dry_run": True},
    ),
    ("tribal_import", {"input_path": "some.json"}, {"imported": 3, "dry_run": False}),
    ("tribal_import", {"input_path": "missing.json"}, _ERROR),
    ("tribal_reembed", {"all": True, "dry_run": True}, _ERROR),  # there is no model
    ("tribal_forget", {"ids": ["memory-0"], "dry_run": True}, {"dry_run": True}),
    ("tribal_forget", {"ids": ["memory-0"]}, {"forgotten": ["memory-0"]}),
    ("tribal_stats", {}, {"count": 3}),
    ("tribal_undo", {"dry_run": True}, {"dry_run": True}),
    ("tribal_undo", {}, {"operation": "forget"}),
    ("tribal_undo", {}, {"operation": "import"}),
    ("tribal_stats", {}, {"count": 1}),
]
"""The calls, each with what its result must contain, or `_ERROR`."""

Answers = dict[str, Any]
"""What a client prints: its version, the tools, and for each call: error, structure, text."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its name, where its packages are from, and how it makes the calls."""

    name: str
    packages: tuple[str, ...]
    run: Callable[["Client", dict[str, str]], Answers]
    script: str = ""

    @property
    def folder(self) -> Path:
        """Its environment."""
        return ENVIRONMENTS / self.name.replace(" ", "-")


def _run(
    command: list[str], given: str = "", cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=given, cwd=cwd, env=env, capture_output=True, text=True, check=False,
        timeout=900,
    )  # fmt: skip


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise SystemExit(f"{done.args} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def _given(env: dict[str, str]) -> str:
    return json.dumps({"env": env, "calls": [call[:2] for call in CALLS]})


def with_python(client: Client, env: dict[str, str]) -> Answers:
    """The answers of a client written in Python."""
    python = client.folder / "bin" / "python"
    if not (client.folder / ".ready").exists():
        shutil.rmtree(client.folder, ignore_errors=True)
        _checked(_run([sys.executable, "-m", "venv", "--without-pip", str(client.folder)]))
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
        _checked(_run([*install, *client.packages]))
        (client.folder / ".ready").touch()
    script = str(SCRIPTS / client.script)
    answers: Answers = json.loads(_checked(_run([str(python), script, SERVER], _given(env))))
    return answers


def _node(client: Client) -> dict[str, str]:
    """The environment variables with which the client's own Node runs; installs it once."""
    path = f"{client.folder / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path}
    if not (client.folder / ".ready").exists():
        shutil.rmtree(client.folder, ignore_errors=True)
        client.folder.mkdir(parents=True)
        (client.folder / "package.json").write_text("{}")
        for package in client.packages:
            install = ["npm", "install", "--no-audit", "--no-fund", package]
            _checked(_run(install, cwd=client.folder, env=variables))
        (client.folder / ".ready").touch()
    return variables


def with_typescript(client: Client, env: dict[str, str]) -> Answers:
    """The answers of the TypeScript SDK."""
    variables = _node(client)
    script = client.folder / client.script  # beside the packages that it imports
    shutil.copy(SCRIPTS / client.script, script)
    command = ["node", str(script), SERVER]
    said = _checked(_run(command, _given(env), cwd=client.folder, env=variables))
    answers: Answers = json.loads(said)
    return answers


def with_inspector(client: Client, env: dict[str, str]) -> Answers:
    """The answers of the inspector on the command line, which starts a server for each call."""
    variables = _node(client)
    settings = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    begin = ["mcp-inspector", "--cli", *settings, SERVER, "--method"]
    listed = _checked(_run([*begin, "tools/list", "--strict"], cwd=client.folder, env=variables))
    results = []
    for name, arguments, _ in CALLS:
        pairs = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in arguments.items()
        ]
        given = ["--tool-name", name, *(["--tool-arg", *pairs] if pairs else [])]
        done = _run([*begin, "tools/call", *given], cwd=client.folder, env=variables)
        try:
            found = json.loads(done.stdout)
            found = found.get("result", found)
        except ValueError:  # it refuses some arguments itself
            found = {"isError": True, "content": [{"text": done.stderr}]}
        is_error = bool(found.get("isError")) or done.returncode != 0
        results.append([is_error, found.get("structuredContent"), found["content"][0]["text"]])
    package = client.folder / "node_modules/@modelcontextprotocol/inspector/package.json"
    return {
        "version": json.loads(package.read_text())["version"],
        "tools": [tool["name"] for tool in json.loads(listed)["tools"]],
        "results": results,
        "remark": "`--strict` finds nothing; a new server for each call",
    }


CLIENTS = (
    Client("MCP inspector", (_NODE, "@modelcontextprotocol/inspector@2"), with_inspector),
    Client(
        "TypeScript SDK", (_NODE, "@modelcontextprotocol/client"), with_typescript,
        "client_typescript.mjs",
    ),
    Client("fastmcp", ("fastmcp",), with_python, "client_fastmcp.py"),
    Client("openai-agents", ("openai-agents",), with_python, "client_openai_agents.py"),
    Client("pydantic-ai", ("pydantic-ai-slim[mcp]",), with_python, "client_pydantic_ai.py"),
)  # fmt: skip


def problems(answers: Answers) -> list[str]:
    """What is wrong with the answers; nothing if every tool was listed and every call right."""
    found = []
    if missing := {name for name, _, _ in CALLS} ^ set(answers["tools"]):
        found.append(f"the tools differ: {sorted(missing)}")
    for (name, arguments, expected), answer in zip(CALLS, answers["results"], strict=True):
        is_error, structured, text = answer
        if is_error != (expected is _ERROR):
            found.append(f"{name}({arguments}): {text[:200]}")
        elif expected is not None:
            result = structured or json.loads(text)
            if any(result[key] != value for key, value in expected.items()):
                found.append(f"{name}({arguments}): {result}"[:300])
    return found


def main() -> None:
    """Run every client, and write the page."""
    rows = []
    failed = False
    for client in CLIENTS:
        with TemporaryDirectory() as folder:
            write_many(Path(folder) / "some.json", 3)
            env = {"HOME": folder, "PATH": os.environ["PATH"], **settings(Path(folder))}
            answers = client.run(client, env)
        wrong = problems(answers)
        failed = failed or bool(wrong)
        calls = f"{len(answers['tools'])} tools, {len(CALLS)} calls"
        result = "; ".join(wrong) if wrong else f"{calls}: as expected"
        rows.append((client.name, answers["version"], result, answers.get("remark", "")))
        print(*rows[-1], sep=" | ", flush=True)  # noqa: T201 - the output of this script
    text = PAGE.read_text()
    begin, end = text.index("| client |"), text.rindex("\n|")
    rest = text[end + 1 :].partition("\n")[2]
    head = "| client | version | result | remarks |\n|---|---|---|---|\n"
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    PAGE.write_text(f"{text[:begin]}{head}{table}{rest}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
