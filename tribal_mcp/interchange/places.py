"""Where other systems keep their memories by default."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import orjson

from tribal_mcp.config import foreign_variable

_MOST = 50
"""Paths that one pattern may find."""
_SETTINGS_BYTES = 1 << 20


class Place(NamedTuple):
    """Where a system keeps memories: a pattern below a folder, which a variable may move."""

    system: str
    folder: str
    pattern: str
    variable: str = ""


PLACES = (
    Place("Claude Code", ".claude", "projects", "CLAUDE_CONFIG_DIR"),
    Place("Claude Code", ".claude", "CLAUDE.md", "CLAUDE_CONFIG_DIR"),
    Place("Codex", ".codex", "memories", "CODEX_HOME"),
    Place("Codex", ".codex", "AGENTS.md", "CODEX_HOME"),
    Place("OpenClaw", ".openclaw", "workspace*"),
    Place(
        "MCP reference server",
        ".npm/_npx",
        "*/node_modules/@modelcontextprotocol/server-memory/dist/memory.json*",
    ),
    Place("mcp-memory-service", ".local/share/mcp-memory", "sqlite_vec.db"),
    Place("mcp-memory-service", "Library/Application Support/mcp-memory", "sqlite_vec.db"),
    Place("claude-mem", ".claude-mem", "claude-mem.db"),
    Place("basic-memory", ".", "basic-memory"),
    Place("MemPalace", ".mempalace", "palace"),
    Place("Letta", ".letta/agents", "*/memory"),
    Place("downloads", "Downloads", "*.zip"),
    Place("downloads", "Downloads", "conversations*.json"),
    Place("downloads", "Downloads", "Takeout"),
)
"""By system, below the home folder."""

_VAULTS = (
    ".config/obsidian/obsidian.json",
    "Library/Application Support/obsidian/obsidian.json",
)


def existing(home: Path) -> Iterator[tuple[str, Path]]:
    """The places that exist: the system, and the path of a file or folder."""
    for place in PLACES:
        moved = foreign_variable(place.variable) if place.variable else ""
        folder = Path(moved) if moved else home / place.folder
        for path in islice(sorted(folder.glob(place.pattern)), _MOST):
            yield place.system, path
    for settings in _VAULTS:
        for vault in _vaults(home / settings):
            if vault.is_dir():
                yield "Obsidian", vault


def _vaults(settings: Path) -> list[Path]:
    """The vaults that Obsidian's settings list; none if they can't be read."""
    try:
        with settings.open("rb") as file:
            listed = orjson.loads(file.read(_SETTINGS_BYTES))["vaults"].values()
        return [Path(vault["path"]) for vault in listed]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
