"""Bundles in the Open Knowledge Format 0.1 and 0.2: a folder of Markdown, one concept a file.

What an export writes, and an import of it finds edited, is in `okf_files`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any, BinaryIO, ClassVar, Literal
from unicodedata import normalize

from tribal_mcp.errors import EntryError
from tribal_mcp.files.published_folders import LIST, NEIGHBOURS, FolderKind, listed
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
    Stored,
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
    note_in,
    notes,
    read_text,
    stem,
    take_tags,
    take_text,
    visible,
)
from tribal_mcp.interchange.okf_files import (
    file_of,
    id_in,
    key_of,
    memory_of,
    name_of,
)
from tribal_mcp.interchange.okf_folder import INDEX_CONTENT, INDEX_FILE, folder_kind
from tribal_mcp.interchange.okf_vectors import VECTORS, ReadVectors, model_file, vector_file
from tribal_mcp.interchange.own_block import OWN_BLOCK, VECTOR
from tribal_mcp.interchange.reading import read_time, texts
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import digest
from tribal_mcp.stores.base import EDITED_SINCE, IMPORTED_FROM

_OWN_FIELDS = ("source_instance", "source_type", "supersedes", "context")
_FLAT = 10_000
"""Of more memories, the files are in subfolders."""
_NEIGHBOUR = "a README or a licence beside exported memories"
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
    marks_edits: ClassVar = True
    vectors_on_request: ClassVar = True
    written: ClassVar = (
        "a Markdown file for each memory, with all other fields in `x_tribal`; vectors on request. "
        "Import reads the folder back exactly, and [what was edited](markdown.md)"
    )
    loses: ClassVar = (VECTOR,)
    writes: ClassVar[Literal["folder"]] = "folder"
    leaves_out: ClassVar = (INDEX, _NEIGHBOUR, _LOG, NO_TEXT, NOT_MARKDOWN)

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
        if _is_export(source):
            for path in filter(NEIGHBOURS.fullmatch, concepts):
                yield LeftOut(path, _NEIGHBOUR)
            concepts = [path for path in concepts if not NEIGHBOURS.fullmatch(path)]
        links = cache(partial(_links, source, concepts))
        vectors = ReadVectors(source)
        for path in concepts:
            try:
                yield _item(source, path, links, vectors)
            except EntryError as error:
                yield RejectedEntry(path, str(error))
        vectors.finish()
        known = set(notes(source))
        for path in filter(visible, source.paths()):
            if is_reserved(path):
                yield LeftOut(path, _LOG if path.casefold().endswith("log.md") else INDEX)
            elif path not in known and not (vectors.model and path.startswith(VECTORS)):
                yield LeftOut(path, NOT_MARKDOWN)

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model of the vectors that an export has added."""
        return ReadVectors(source).model

    def removed(self, source: Source) -> Callable[[MemoryEntry], bool] | None:
        """The memories whose files an export has listed, and which are not there."""
        file = _list_of(source)
        if file is None:
            return None
        present = set(source.paths())
        with file, suppress(ValueError):
            paths = listed(file, self.name)
            missing = {key for path, key in paths if normalize("NFC", path) not in present}
            return lambda entry: key_of(entry.id) in missing
        return None

    def lost(self, entry: MemoryEntry) -> Iterator[str]:
        """Its vector, if those are not requested."""
        if entry.embedding is not None:
            yield VECTOR

    def write_folder(self, memories: Memories) -> Iterator[tuple[str, bytes]]:
        """One file for each memory; in subfolders if they are many."""
        yield INDEX_FILE, INDEX_CONTENT
        if memories.vectors and memories.model:
            yield model_file(memories.model)
        for entry in memories:
            folder = f"{key_of(entry.id)[:2]}/" if memories.count > _FLAT else ""
            yield folder + name_of(entry), file_of(entry)
            if memories.vectors and entry.embedding is not None:
                yield vector_file(entry)

    def folder_kind(self, stored: Callable[[], Stored] = Stored) -> FolderKind:
        """Files are known by the ids in their blocks, and an edit by the hash there."""
        return folder_kind(
            self.name, stored, lambda path, text: _memory(note_in(path, text), Links())
        )


def _list_of(source: Source) -> BinaryIO | None:
    """The list of the files that an export wrote; None if there is none."""
    with suppress(KeyError):
        return source.open(LIST)
    return None


def _is_export(source: Source) -> bool:
    file = _list_of(source)
    if file:
        file.close()
    return file is not None


def _item(
    source: Source, path: str, links: Callable[[], Links], vectors: ReadVectors
) -> Found | LeftOut:
    text = read_text(source, path, source.limits.line_bytes)
    own = memory_of(text)
    if own:
        entry, written_for = own
        extra = {IMPORTED_FROM: None, **entry.extra}  # it was not imported from this folder
        if digest(entry) != written_for:
            extra[EDITED_SINCE] = written_for
        return Found(path, vectors.added(replace(entry, extra=extra)))
    if len(text.encode()) > source.limits.content_bytes:
        raise EntryError(
            f"is larger than {source.limits.content_bytes:,} bytes (TRIBAL_LIMIT_CONTENT_BYTES)"
        )
    entry = _memory(note_in(path, text), links())
    return Found(path, entry) if entry.content.strip() else LeftOut(path, NO_TEXT)


def _links(source: Source, concepts: list[str]) -> Links:
    links = Links()
    for path in concepts:
        seen = beginning(source, path)
        own = id_in(seen.front)
        if own or has_text(seen, "description"):
            links.add(path, own or _id(path, first_values(seen, OWN_BLOCK)))
    return links


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
