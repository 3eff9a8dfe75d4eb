"""Concepts in the Modeled Information Format as Markdown, of its levels 1 to 3."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
)
from tribal_mcp.interchange.markdown import (
    INDEX,
    NO_TEXT,
    NOT_MARKDOWN,
    Head,
    Links,
    Note,
    beginning,
    first_values,
    has_text,
    heads,
    is_reserved,
    names_of,
    note_items,
    notes,
    stem,
    take_tags,
    take_text,
    visible,
)
from tribal_mcp.interchange.reading import read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry

_TYPES = {"semantic", "episodic", "procedural"}
_SHARE = 3
"""One of three notes, or more, must be a concept."""
_SUPERSEDES = re.compile(r"^- supersedes \[\[([^\[\]|]+)", re.MULTILINE | re.IGNORECASE)
_SOURCES = {
    "user_explicit": MemorySource.USER_EXPLICIT,
    "agent_inferred": MemorySource.AUTO_CAPTURE,
}


class Mif(Format):
    """One file a memory, with the id that the file gives it."""

    name: ClassVar = "mif"
    title: ClassVar = "concepts in the Modeled Information Format (MIF), as Markdown"
    places: ClassVar = "the folder or file that the exporting program wrote"
    layout: ClassVar = (
        "Markdown files with `id`, `created` and a `type` of semantic, episodic or procedural"
    )
    fields: ClassVar = {
        "id": "id",
        "the text": "content",
        "summary": "context",
        "created, modified": "created_at, updated_at",
        "tags": "tags",
        "relationships, [[id]], Markdown links": "related_to; supersedes",
        "provenance.confidence": "confidence",
        "provenance.source_type": "source_type",
        "title, namespace, aliases, temporal, provenance, other values, the file": "metadata",
    }
    leaves_out: ClassVar = (INDEX, NO_TEXT, NOT_MARKDOWN)

    def recognise(self, source: Source) -> Evidence | None:
        """A note with MIF's required values. Its folders may be bundles of OKF, too."""
        looked = heads(source, notes(source))
        ours = sum(map(_is_ours, looked))
        if ours and ours >= len(looked) / _SHARE:
            return Evidence(CERTAIN + 1, "frontmatter with `id`, `created` and a `type` of MIF's")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each concept, then the other files."""
        all_notes = notes(source)
        found = [path for path in all_notes if not is_reserved(path)]
        links = Links()
        for path in found:
            seen = beginning(source, path)
            names = [*names_of(seen, "id", "title", "aliases"), _name(path)]
            if has_text(seen):
                links.add(path, _id(path, first_values(seen, "id").get("id")), names)
        yield from note_items(source, found, partial(_memory, links=links))
        for path in sorted({*filter(visible, source.paths())}.difference(found)):
            yield LeftOut(path, INDEX if is_reserved(path) else NOT_MARKDOWN)


def _is_ours(seen: Head) -> bool:
    return seen.values.keys() >= {"id", "created"} and seen.values.get("type") in _TYPES


def _name(path: str) -> str:
    return stem(path).rpartition("/")[2].removesuffix(".memory")


def _id(path: str, own: object) -> str:
    own = str(own) if isinstance(own, int) and not isinstance(own, bool) else own
    return own if isinstance(own, str) and own else derived_id(Mif.name, stem(path))


def _memory(note: Note, links: Links) -> MemoryEntry:
    values = dict(note.values)
    memory_id = _id(note.path, values.pop("id", None))
    provenance = values.get("provenance")
    said: Mapping[str, Any] = provenance if isinstance(provenance, dict) else {}
    confidence = said.get("confidence")
    source_type = said.get("source_type", said.get("sourceType"))
    related = values.get("relationships")
    listed = [r for r in related if isinstance(r, dict)] if isinstance(related, list) else []
    listed = [r for r in listed if isinstance(r.get("target"), str)]
    targets = [r["target"] for r in listed]
    replaced = [r["target"] for r in listed if r.get("type") == "supersedes"]
    replaced += _SUPERSEDES.findall(note.body)
    supersedes = [found for target in replaced if (found := links.find(target, note.path))]
    return memory(
        memory_id,
        note.body,
        context=take_text(values, "summary"),
        created=read_time(values.pop("created", None)),
        updated=read_time(values.pop("modified", None)),
        tags=take_tags(values, "tags"),
        related_to=links.of(note, memory_id, targets),
        supersedes=supersedes[0] if supersedes else None,
        confidence=1.0 if confidence is None else confidence,
        source_type=_SOURCES.get(str(source_type), MemorySource.UNKNOWN),
        source_instance="mif",
        metadata={"file": note.path, **values},
    )
