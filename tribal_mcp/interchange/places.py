"""Where other systems keep their memories by default."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

_PLACES: tuple[tuple[str, str, str], ...] = (
    ("Claude Code", "CLAUDE_CONFIG_DIR", "~/.claude/projects"),
    ("Claude Code", "CLAUDE_CONFIG_DIR", "~/.claude/CLAUDE.md"),
    ("Codex", "CODEX_HOME", "~/.codex/memories"),
    ("Codex", "CODEX_HOME", "~/.codex/AGENTS.md"),
    ("OpenClaw", "", "~/.openclaw/workspace"),
    ("reference memory server", "", "~/.npm/_npx/*/node_modules/@modelcontextprotocol/server-memory/dist/memory.json*"),
    ("mcp-memory-service", "", "~/.local/share/mcp-memory/sqlite_vec.db"),
    ("mcp-memory-service", "", "~/Library/Application Support/mcp-memory/sqlite_vec.db"),
    ("claude-mem", "", "~/.claude-mem/claude-mem.db"),
    ("basic-memory", "", "~/basic-memory"),
    ("MemPalace", "", "~/.mempalace/palace"),
    ("Letta", "", "~/.letta/agents/*/memory"),
    ("a download", "", "~/Downloads/*.zip"),
    ("a download", "", "~/Downloads/conversations.json"),
    ("a download", "", "~/Downloads/Takeout"),
)
"""The system; the variable that moves the folder after `~/`; and the path, or a pattern."""
