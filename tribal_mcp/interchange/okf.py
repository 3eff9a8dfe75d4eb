"""Bundles in the Open Knowledge Format 0.1 and 0.2: a folder of Markdown, one concept a file."""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
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
    Links,
    Note,
    beginning,
    first_values,
    has_text,
    head,
    heads,
    is_reserved,
    note_items,
    notes,
    stem,
    take_tags,
    take_text,
    visible,
)
from tribal_mcp.interchange.reading import read_time, texts
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

OWN_BLOCK = "x_tribal"
"""The key of what this program adds: fields of a memory that OKF has no place for."""
_OWN_FIELDS = ("source_instance", "source_type", "supersedes", "context")
_LOG = "log.md: the history of the bundle"
_SHARE = 3
"""One of three notes, or more, must have a field of OKF's."""
_TRUST = {"generated", "verified", "sources", "stale_after", "usage_window", OWN_BLOCK}


class Okf(Format):
    """One file a memory; `index.md` and `log.md` are none."""

    name: ClassVar = "okf"
    title: ClassVar = "a bundle in the Open Knowledge Format"
    places: ClassVar = "the folder or zip archive that the exporting program wrote"
    layout: ClassVar = (
        "Markdown files with `type` and `generated`, `verified` or `sources`, or an index.md with "
        "`okf_version`"
    )
    fields: ClassVar = {
        "the text": "content",
        "description": "context",
        "tags": "tags",
        "generated.at, or timestamp in OKF 0.1": "updated_at",
        "links to concepts, and sources within the bundle": "related_to",
        "x_tribal": "the fields of a memory with the same names",
        "type, title, resource, status, all other values, and the file": "metadata",
    }
    leaves_out: ClassVar = (INDEX, _LOG, NO_TEXT, NOT_MARKDOWN)

    def recognise(self, source: Source) -> Evidence | None:
        """An index with `okf_version`, or concepts with a field of OKF's."""
        found = notes(source)
        if any("okf_version" in head(p, source.opening(p)).values for p in _indexes(found)[:9]):
            return Evidence(CERTAIN, "index.md with `okf_version`")
        looked = heads(source, [path for path in found if not is_reserved(path)])
        typed = [seen for seen in looked if "type" in seen.values]
        trusted = sum(bool(_TRUST & seen.values.keys()) for seen in typed)
        if trusted and trusted >= len(looked) / _SHARE:
            return Evidence(LIKELY, "frontmatter with `type` and `generated` or `sources`")
        described = [seen for seen in typed if {"title", "description"} <= seen.values.keys()]
        if _indexes(found) and described and len(typed) == len(looked):
            return Evidence(LIKELY, "index.md, and frontmatter with `type`, `title`, `description`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each concept, then the other files."""
        concepts = [path for path in notes(source) if not is_reserved(path)]
        links = Links()
        for path in concepts:
            seen = beginning(source, path)
            if has_text(seen, "description"):
                links.add(path, _id(path, first_values(seen, OWN_BLOCK)))
        yield from note_items(source, concepts, partial(_memory, links=links))
        known = set(concepts)
        for path in filter(visible, source.paths()):
            if is_reserved(path):
                yield LeftOut(path, _LOG if path.casefold().endswith("log.md") else INDEX)
            elif path not in known:
                yield LeftOut(path, NOT_MARKDOWN)


def _indexes(paths: list[str]) -> list[str]:
    return [path for path in paths if path.casefold().rpartition("/")[2] == "index.md"]


def _own(values: dict[str, Any]) -> dict[str, Any]:
    own = values.get(OWN_BLOCK)
    return own if isinstance(own, dict) else {}


def _id(path: str, values: dict[str, Any]) -> str:
    found = _own(values).get("id")
    return found if isinstance(found, str) and found else derived_id(Okf.name, stem(path))


def _memory(note: Note, links: Links) -> MemoryEntry:
    values = dict(note.values)
    memory_id = _id(note.path, values)
    own = {key: value for key, value in _own(values).items() if value is not None}
    take_text(own, "id")
    confidence = own.pop("confidence", 1.0)
    generated = values.get("generated")
    legacy = None if generated else values.pop("timestamp", None)
    updated = read_time(generated.get("at") if isinstance(generated, dict) else legacy)
    description = take_text(values, "description")
    fields: dict[str, Any] = {"source_instance": "okf", "context": description}
    fields |= {key: text for key in _OWN_FIELDS if (text := take_text(own, key))}
    linked = texts(own.pop("related_to", None))
    linked += links.of(note, memory_id, _paths(values.get("sources")))
    created = read_time(own.pop("created_at", None))
    updated = read_time(own.pop("updated_at", None)) or updated
    own_metadata = own.pop("metadata", {})
    if not isinstance(own_metadata, dict):
        raise EntryError(f"its {OWN_BLOCK}.metadata is not a mapping")
    return memory(
        memory_id,
        note.body or description or "",
        created=created,
        updated=updated,
        confidence=confidence,
        tags=take_tags(values, "tags"),
        related_to=list(dict.fromkeys(linked)),
        metadata={"file": note.path, **values, OWN_BLOCK: own or None, **own_metadata},
        **fields,
    )


def _paths(sources: object) -> list[str]:
    """The resources of `sources` that may be paths in the bundle."""
    listed = sources if isinstance(sources, list) else []
    found = [entry.get("resource") for entry in listed if isinstance(entry, dict)]
    return [path for path in found if isinstance(path, str) and path.endswith(".md")]
