"""A folder of Markdown notes that no other format claims, such as an Obsidian vault."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from tribal_mcp.interchange.base import (
    FALLBACK,
    POSSIBLE,
    Evidence,
    Format,
    Item,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    NO_TEXT,
    NOT_MARKDOWN,
    SUFFIXES,
    Links,
    Note,
    beginning,
    has_text,
    hashtags,
    is_single,
    names_of,
    not_markdown,
    note_items,
    notes,
    take_tags,
    take_time,
    visible,
)
from tribal_mcp.interchange.rules import rule_files
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_MANY = 5
"""With more notes than this for each file of rules, a folder is a vault, not a project."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ATTACHMENTS = re.compile(
    r".+\.(?:png|jpe?g|gif|webp|svg|bmp|avif|heic|pdf|mp[34]|m4a|wav|flac|ogg|webm|mov|canvas|base"
    r"|excalidraw|css|zip|docx?|xlsx?|pptx?)",
    re.IGNORECASE | re.DOTALL,
)


class Obsidian(Format):
    """One note a memory."""

    name: ClassVar = "obsidian"
    title: ClassVar = "a folder of Markdown notes, such as an Obsidian vault"
    places: ClassVar = "the folder of the vault"
    layout: ClassVar = "a folder of mostly Markdown files, or a note with frontmatter"
    fields: ClassVar = {
        "the text": "content",
        "the name of the file": "context",
        "tags, tag, and #tags in the text": "tags",
        "[[note]], [[note|alias]], ![[note]], Markdown links": "related_to",
        "created, date, created_at; the day in the name of a daily note": "created_at",
        "updated, modified, updated_at": "updated_at",
        "the name of the folder": "source_instance",
        "aliases, other values, the file": "metadata",
    }
    leaves_out: ClassVar = (NO_TEXT, NOT_MARKDOWN)

    def recognise(self, source: Source) -> Evidence | None:
        """Mostly Markdown; of files that are no attachments, at least half."""
        found = [path for path in notes(source) if path.casefold().endswith(SUFFIXES)]
        if is_single(source):
            is_note = found and source.opening(found[0]).startswith("---\n")
            return Evidence(FALLBACK, "Markdown with frontmatter") if is_note else None
        others = [path for path in source.paths() if visible(path) and not _is_attachment(path)]
        if not found or len(found) < len(others) / 2:
            return None
        if not any(source.opening(path).strip() for path in found[:20]):
            return None
        is_more = len(found) > _MANY * len(rule_files(source))
        certainty = POSSIBLE + 1 if is_more and rule_files(source) else FALLBACK
        return Evidence(certainty, "a folder of Markdown files")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each note, then the attachments."""
        found = notes(source)
        vault = "" if is_single(source) else source.name.removesuffix(".zip")
        links = Links()
        for path in found:
            seen = beginning(source, path)
            if has_text(seen):
                names = names_of(seen, "aliases", "alias")
                links.add(path, derived_id(self.name, vault, path), names)
        yield from note_items(source, found, partial(_memory, vault=vault, links=links))
        yield from not_markdown(source, set(found))


def _is_attachment(path: str) -> bool:
    return bool(_ATTACHMENTS.fullmatch(path))


def _memory(note: Note, vault: str, links: Links) -> MemoryEntry:
    values = dict(note.values)
    memory_id = derived_id(Obsidian.name, vault, note.path)
    tags = take_tags(values, "tags", "tag")
    if "#" in note.body:
        tags += hashtags(note.prose[0])
    created = take_time(values, "created", "created_at", "date created", "date")
    return memory(
        memory_id,
        note.body,
        context=note.stem,
        created=created or _day(note.stem),
        updated=take_time(values, "updated", "modified", "updated_at", "date modified"),
        tags=list(dict.fromkeys(tags)),
        related_to=links.of(note, memory_id),
        source_instance=f"obsidian:{vault}" if vault else "obsidian",
        metadata={"file": note.path, **values},
    )


def _day(name: str) -> datetime | None:
    """The day of a daily note."""
    with suppress(ValueError):
        if _DAY.fullmatch(name):
            return datetime.fromisoformat(name).replace(tzinfo=UTC)
    return None
