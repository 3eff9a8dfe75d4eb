"""claude-mem: observations and session summaries, from its database or its JSON exports."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.files.databases import database
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
    only_file,
    unlike,
)
from tribal_mcp.interchange.reading import items, parsed, read_time
from tribal_mcp.interchange.records import record_item, text_in
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "claude-mem.db"
_SESSION = "a session, which has no memory of its own"
_PROMPT = "a prompt of the user"
_EMPTY = "an observation or a summary without text"
_LISTS = {
    "observations": "observations",
    "summaries": "session_summaries",
    "sessions": "sdk_sessions",
    "prompts": "user_prompts",
}
"""The lists of an export, each with the table that holds the same records."""
_SESSION_IDS = ("memory_session_id", "sdk_session_id")
"""The present name of the column with the session, and the older one."""
_OBSERVATION = {"project", "type", "created_at_epoch"}
_SUMMARY_PARTS = {
    "request": "Request",
    "investigated": "Investigated",
    "learned": "Learned",
    "completed": "Completed",
    "next_steps": "Next steps",
    "notes": "Notes",
}
_MAPPED = ("text", "narrative", "title", "subtitle", "facts", "concepts", "concept", "project",
           "created_at", "created_at_epoch", *_SUMMARY_PARTS)  # fmt: skip
_LISTED = ("files_read", "files_modified", "files_edited")

Row = Mapping[str, Any]


class ClaudeMem(Format):
    """One memory for each observation, and one for each session summary."""

    name: ClassVar = "claude-mem"
    title: ClassVar = "a database or export of claude-mem"
    places: ClassVar = "`~/.claude-mem/claude-mem.db`, or a JSON export of its scripts"
    layout: ClassVar = "tables or JSON lists `observations` and `summaries` with memory_session_id"
    fields: ClassVar = {
        "title, subtitle, narrative or text, facts": "content, in that order",
        "request, investigated, learned, completed, next_steps, notes": "content of a summary",
        "concepts": "tags",
        "project": "source_instance; metadata.project",
        "created_at_epoch": "created_at, in milliseconds since 1970",
        "memory_session_id (once sdk_session_id), type, …": "metadata, under their own names",
    }
    leaves_out: ClassVar = (_SESSION, _PROMPT, _EMPTY)

    def recognise(self, source: Source) -> Evidence | None:
        """The columns of its table, or an export with its lists."""
        if (path := source.main(_NAME)) is None:
            return None
        if session := _session_column(source.tables(path)):
            return Evidence(CERTAIN, f"a table `observations` with `{session}`")
        peek = source.peek(path)
        if peek.kind == "object" and {"exportedAtEpoch", "observations"} <= peek.keys:
            return Evidence(CERTAIN, "`exportedAtEpoch` beside the list `observations`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each record of each list or table."""
        path = only_file(source, self, _NAME)
        tables = source.tables(path)
        if not tables:
            for name in _LISTS:
                for number, record in enumerate(items(source.origin, path, f"{name}.item"), 1):
                    yield _item(name, f"{name}, item {number:,}", record)
            return
        if not _session_column(tables):
            raise unlike(source, self)
        with database(source.origin, path) as db:
            for name, table in _LISTS.items():
                for row in db.rows(table) if table in tables else ():
                    yield _item(name, f"{table}, row {row.get('id')}", row)


def _session_column(tables: Mapping[str, list[str]]) -> str:
    """The column with the session; empty if there is no table of observations."""
    columns = tables.get("observations", ())
    found = next((name for name in _SESSION_IDS if name in columns), "")
    return found if {*columns} >= _OBSERVATION else ""


def _item(name: str, where: str, record: object) -> Item:
    if name in {"sessions", "prompts"}:
        return LeftOut(where, _SESSION if name == "sessions" else _PROMPT)
    return record_item(where, record, partial(_made, name))


def _made(name: str, where: str, row: Row) -> Item | MemoryEntry:
    content = _observation(row) if name == "observations" else _summary(row)
    return _memory(name, row, content) if content else LeftOut(where, _EMPTY)


def _observation(row: Row) -> str:
    facts = "\n".join(f"- {fact}" for fact in _texts(row, "facts"))
    parts = [_text(row, name) for name in ("title", "subtitle", "narrative", "text")]
    return "\n\n".join(filter(None, [*parts, facts]))


def _summary(row: Row) -> str:
    parts = {label: _text(row, name) for name, label in _SUMMARY_PARTS.items()}
    return "\n\n".join(f"{label}: {text}" for label, text in parts.items() if text)


def _text(row: Row, name: str) -> str:
    text = text_in(row, name)
    return text if text.strip() else ""


def _texts(row: Row, name: str) -> list[str]:
    """A list of texts, which the database keeps as JSON text."""
    value = row.get(name)
    if isinstance(value, str):
        value = parsed(value) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list | None) or not all(isinstance(v, str) for v in value or []):
        raise EntryError(f"{name} is not a list of texts")
    return [text for text in value or [] if text.strip()]


def _memory(name: str, row: Row, content: str) -> MemoryEntry:
    project = _text(row, "project")
    session = next((text for name in _SESSION_IDS if (text := _text(row, name))), "")
    identity = (session, str(row.get("id") or content))
    concepts = [*_texts(row, "concepts"), *filter(None, [_text(row, "concept")])]
    lists = {field: _texts(row, field) for field in _LISTED}
    return memory(
        derived_id(ClaudeMem.name, name, *identity),
        content,
        created=read_time(row.get("created_at_epoch") or row.get("created_at")),
        source_instance=f"claude-mem:{project}" if project else "claude-mem",
        source_type=MemorySource.AUTO_CAPTURE,
        tags=list(dict.fromkeys(concepts)),
        metadata={
            "kind": "observation" if name == "observations" else "summary",
            "project": project,
            "title": row.get("title"),
            **without(row, "id", *_MAPPED, *_LISTED),
            **lists,
        },
    )
