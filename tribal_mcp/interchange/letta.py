"""Letta: memory folders (MemFS) in both layouts, and agent files (.af) in both forms."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.origins import FileOrigin, Origin, decoded
from tribal_mcp.interchange import own_block
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Format,
    Found,
    Item,
    LeftOut,
    Memories,
    Options,
    attempt,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    INDEX,
    NO_TEXT,
    NOT_MARKDOWN,
    Links,
    Note,
    beginning,
    has_text,
    heads,
    is_index,
    names_of,
    note_in,
    note_items,
    notes,
    stem,
    take_tags,
    take_text,
    visible,
)
from tribal_mcp.interchange.own_notes import (
    index_line,
    is_theirs,
    note_text,
    summary_of,
    with_paths,
)
from tribal_mcp.interchange.reading import items, read_time, texts, whole_json
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry

_SYSTEM = re.compile(r"(?:.*/)?system/(?:.+/)?[^/]+\.md", re.DOTALL)
_BLOCK_KEYS = {"name", "label", "description", "limit", "read_only"}
_AGENT = re.compile(
    r"(?:.*/)?(?P<agent>agent-[0-9a-f][0-9a-f-]{7,})/(?:memory/)?(?P<rest>.+)", re.DOTALL
)
_IN_TEXT = re.compile(r'\s*"\s*\{(?:\\.|[^"\\])*?\\"(?:agents|agent_type|core_memory)\\"\s*:')
_RECORDS = (
    "blocks.item",
    "core_memory.item",
    "passages.item",
    "archival_memory.item",
    "agents.item.passages.item",
    "agents.item.archival_memory.item",
)
_MESSAGES = ("messages.item", "agents.item.messages.item")
_MESSAGE = "a message of a conversation"
_EMPTY = "a block or passage without text"
_SKILL = "a skill"


class Letta(Format):
    """One file a memory in a folder; one block or archival passage in an agent file."""

    name: ClassVar = "letta"
    title: ClassVar = "memory of a Letta agent"
    places: ClassVar = "~/.letta/agents/<agent>/memory, or an exported agent file (.af)"
    layout: ClassVar = (
        "Markdown files with `description` in `system/`, or with only `name` and `description` "
        "beside MEMORY.md; or JSON with `agents` and `blocks`"
    )
    fields: ClassVar = {
        "the text of a file; value of a block; text of a passage": "content",
        "description": "context",
        "tags of a passage": "tags",
        "created_at, updated_at": "created_at, updated_at",
        "links to other files": "related_to",
        "the agent": "source_instance",
        "name, label, limit, read_only, other values, the file": "metadata",
        "id, which counts within an agent file; embedding": "not read",
    }
    leaves_out: ClassVar = (INDEX, NO_TEXT, NOT_MARKDOWN, _SKILL, _EMPTY, _MESSAGE)
    writes: ClassVar = "folder"
    written: ClassVar = "a memory folder (MemFS): a file for each memory, and the index MEMORY.md"
    loses: ClassVar = (
        *dict.fromkeys(own_block.LOST.values()),
        own_block.OTHERS,
        own_block.NO_TEXT,
        own_block.VECTOR,
    )

    def recognise(self, source: Source) -> Evidence | None:
        """An agent file, or the files of a memory folder."""
        if source.file is not None and _is_agent_file(source, source.file):
            return Evidence(CERTAIN, "an agent with blocks of memory")
        found = notes(source)
        looked = heads(source, [path for path in found if not _is_skill(path)])
        ours = [seen for seen in looked if "description" in seen.values]
        ours = [seen for seen in ours if seen.values.keys() <= _BLOCK_KEYS]
        if any(_SYSTEM.fullmatch(seen.path) for seen in ours):
            return Evidence(CERTAIN, "blocks with `description` in `system/`")
        plain = [seen for seen in ours if seen.values.keys() == {"name", "description"}]
        indexes = [seen for seen in looked if _is_index(seen.path) and not seen.front]
        if plain and indexes and len(plain) + len(indexes) == len(looked):
            return Evidence(LIKELY, "MEMORY.md beside files with only `name` and `description`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each file of a folder; or each block, passage and message of an agent file."""
        if source.file is not None and _is_agent_file(source, source.file):
            yield from _agent_file(source, source.file)
        else:
            yield from _folder(source)

    def lost(self, entry: MemoryEntry) -> Iterator[str]:
        """All but the text, a description and a name."""
        path = next(path for path, _ in with_paths(Memories(lambda: iter([entry])), self.name))
        text = note_text(_values(path, entry), entry.content)
        plain = _read(note_in(path, decoded(text.encode())), "", path, Links())
        lost = dict.fromkeys(own_block.lost_without_block(entry, plain, self.name))
        if own_block.NO_TEXT not in lost and "[" in entry.content:
            lost[own_block.LINKS] = None
        yield from lost

    def write_folder(self, memories: Memories) -> Iterator[tuple[str, bytes]]:
        """The index, and one file for each memory."""
        memories = memories.with_text()
        yield "MEMORY.md", b"".join(_index_lines(with_paths(memories, self.name)))
        for path, entry in with_paths(memories, self.name):
            yield path, note_text(_values(path, entry), entry.content).encode()


def _index_lines(files: Iterable[tuple[str, MemoryEntry]]) -> Iterator[bytes]:
    yield b"# Memory\n\n"
    for path, entry in files:
        yield f"{index_line(path, entry)}\n".encode()


def _values(path: str, entry: MemoryEntry) -> dict[str, Any]:
    """The frontmatter, of which Letta allows only these two."""
    name = entry.metadata.get("name") if is_theirs(entry, Letta.name) else None
    return {
        "name": name if isinstance(name, str) else stem(path).rpartition("/")[2],
        "description": entry.context or summary_of(entry.content),
    }


def _is_agent_file(source: Source, path: str) -> bool:
    seen = source.peek(path)
    if seen.kind == "object":
        agents = seen.value.get("agents")
        first = agents[0] if isinstance(agents, list) and agents else None
        return (isinstance(first, dict) and "agent_type" in first) or bool(
            seen.keys >= {"agent_type", "core_memory"}
        )
    return seen.kind == "text" and bool(_IN_TEXT.match(seen.text[: 1 << 16]))


def _is_index(path: str) -> bool:
    return path.rpartition("/")[2] == "MEMORY.md"


def _is_skill(path: str) -> bool:
    return f"/{path}".rpartition("/skills/")[1] != ""


def _folder(source: Source) -> Iterator[Item]:
    found = notes(source)
    known = set(found)
    memories = [path for path in found if not _is_skill(path)]
    links: dict[str, Links] = {}
    for path in memories:
        agent, rest = _place(source, path)
        seen = beginning(source, path)
        names = names_of(seen, "name")
        memory_id = derived_id(Letta.name, agent, stem(rest))
        known_to = links.setdefault(agent, Links())
        if has_text(seen) and not (_is_index(rest) and is_index(seen.body.strip("\n"))):
            known_to.add(rest, memory_id, names)
    make = partial(_memory, source=source, links=links)
    for item in note_items(source, memories, make):
        if isinstance(item, Found) and _is_index(item.where) and is_index(item.entry.content):
            yield LeftOut(item.where, INDEX)
        else:
            yield item
    for path in filter(visible, source.paths()):
        if path not in known:
            yield LeftOut(path, NOT_MARKDOWN)
        elif _is_skill(path):
            yield LeftOut(path, _SKILL)


def _place(source: Source, path: str) -> tuple[str, str]:
    """The agent whose memory a file is, if the path names it, and the path in its memory."""
    match = _AGENT.fullmatch(f"{source.parent}/{source.name}/{path}")
    return (match["agent"], match["rest"]) if match else ("", path.removeprefix("memory/"))


def _memory(note: Note, source: Source, links: dict[str, Links]) -> MemoryEntry:
    agent, rest = _place(source, note.path)
    return _read(note, agent, rest, links[agent])


def _read(note: Note, agent: str, rest: str, links: Links) -> MemoryEntry:
    values = dict(note.values)
    memory_id = derived_id(Letta.name, agent, stem(rest))
    return memory(
        memory_id,
        note.body,
        context=take_text(values, "description"),
        tags=take_tags(values, "tags"),
        related_to=links.of(replace(note, path=rest), memory_id),
        source_instance=f"letta:{agent}" if agent else "letta",
        metadata={"file": rest, **values},
    )


def _agent_file(source: Source, path: str) -> Iterator[Item]:
    """The blocks, passages and messages of an agent file, each record read by itself."""
    origin = _inner(source, path)
    owners = _owners(origin, path)
    for prefix in _RECORDS:
        for number, record in enumerate(items(origin, path, prefix), 1):
            yield _record(f"{prefix.removesuffix('.item')}, item {number:,}", record, owners)
    for prefix in _MESSAGES:
        for number, _ in enumerate(items(origin, path, prefix), 1):
            yield LeftOut(f"{prefix.removesuffix('.item')}, item {number:,}", _MESSAGE)


def _inner(source: Source, path: str) -> Origin:
    """The agent file; if it is a JSON text that holds JSON, what it holds."""
    if source.peek(path).kind == "object":
        return source.origin
    text = whole_json(source.origin, path)
    if not isinstance(text, str):
        raise BundleError(f"{path!r:.80} is no agent file.")
    data = text.encode("utf-8", "replace")
    return FileOrigin(path, io.BytesIO(data), source.limits)


def _owners(origin: Origin, path: str) -> dict[object, str]:
    """The name of the agent that each block belongs to, by the block's id; of others, by None."""
    names = [name for name in items(origin, path, "agents.item.name") if isinstance(name, str)]
    owners: dict[object, str] = {}
    for name, blocks in zip(names, items(origin, path, "agents.item.block_ids"), strict=False):
        for block in blocks if isinstance(blocks, list) else ():
            owners.setdefault(str(block), name)
    names += [name for name in items(origin, path, "name") if isinstance(name, str)]
    owners[None] = names[0] if len(names) == 1 else ""
    return owners


def _record(where: str, record: object, owners: dict[object, str]) -> Item:
    """A block, which has a value, or a passage."""
    if not isinstance(record, dict):
        reason = str(record) if isinstance(record, EntryError) else "is not an object"
        return RejectedEntry(where, reason)
    values = {key: value for key, value in record.items() if key not in ("embedding", "id")}
    name = next((key for key in ("value", "text", "content") if key in values), "text")
    text = values.pop(name, None)
    if text is None or (isinstance(text, str) and not text.strip()):
        return LeftOut(where, _EMPTY)
    if not isinstance(text, str):
        return RejectedEntry(where, f"its {name} is not text")
    owner = owners.get(str(record.get("id")), owners[None])
    label = values.get("label")
    created = record.get("created_at")
    key = (
        [label] if isinstance(label, str) and label else [text, *map(str, filter(None, [created]))]
    )
    return attempt(where, _entry, derived_id(Letta.name, owner, name, *key), text, values, owner)


def _entry(memory_id: str, text: str, values: dict[str, Any], owner: str) -> MemoryEntry:
    created = read_time(values.pop("created_at", None))
    return memory(
        memory_id,
        text,
        context=take_text(values, "description"),
        created=created,
        updated=read_time(values.pop("updated_at", None)),
        tags=texts(values.pop("tags", None)),
        source_instance=f"letta:{owner}" if owner else "letta",
        metadata={key: v for key, v in values.items() if v is not False and v != {}},
    )
