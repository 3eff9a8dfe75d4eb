"""claude.ai exports: memories, memories of projects and memory files; conversations on request.

Until August 2026 an export was one archive with a file for each kind. Since then it is a manifest
and an archive for each kind, which may lie packed or unpacked in a folder.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.archives import UnpackedOrigin
from tribal_mcp.interchange.base import (
    CERTAIN,
    MESSAGE,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    attempt,
    derived_id,
    memory,
)
from tribal_mcp.interchange.reading import documents, object_of, read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import kind_of

_NAME = "claude"
_KIND = re.compile(r"(memories|projects|conversations|users)(?:-\d+)?(?:\.json|\.zip)?")
_ARCHIVE = re.compile(r"(?:.*/)?(?:memories|projects|conversations|users)-\d+\.zip", re.IGNORECASE)
_PARTS = {"conversations_memory", "project_memories", "memory_files"}
_DATES = {"created_at", "updated_at"}
_LOOKED_AT = 10
"""How many files are looked at to recognise an export."""

_PROJECT = "a project, of which only the name is read"
_OTHER = "a file or a record that holds no memories"
_EMPTY = "a memory or a message without text"
_NONE = "a conversation without messages"


class Claude(Format):
    """An archive, a folder of archives, or single files of them."""

    name: ClassVar = _NAME
    title: ClassVar = "a claude.ai export"
    places: ClassVar = "the zip files from claude.ai: Settings, Privacy, Export data"
    layout: ClassVar = (
        "JSON with `conversations_memory`, `project_memories` or `memory_files`, or a list of "
        "conversations with `chat_messages`; in a folder or an archive also in memories-000.zip"
    )
    fields: ClassVar = {
        "conversations_memory, project_memories, content of memory_files": "content",
        "the name of the project, or its uuid": "source_instance",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "account_uuid, path, project uuid": "metadata",
        "text of a message": "content; name of the conversation, sender and files: metadata",
        "summary": "content",
    }
    leaves_out: ClassVar = (MESSAGE, _PROJECT, _OTHER, _EMPTY, _NONE)

    def recognise(self, source: Source) -> Evidence | None:
        """Memories or conversations as only claude.ai writes them."""
        try:
            with _unpacked(source) as unpacked:
                return _evidence(unpacked)
        except BundleError:  # a damaged archive, in a folder that may be anything
            return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:
        """Each memory, project and message."""
        with _unpacked(source) as unpacked:
            kinds = {path: _kind(unpacked, path) for path in unpacked.paths()}
            names = _project_names(unpacked, [p for p, kind in kinds.items() if kind == "projects"])
            for path, kind in kinds.items():
                if kind is None:
                    yield LeftOut(path, _OTHER)
                    continue
                for number, value in enumerate(documents(unpacked.origin, path), 1):
                    yield from _record(kind, f"{path}, item {number:,}", value, names, options)

    def is_message(self, entry: MemoryEntry) -> bool:
        """It has a conversation."""
        return "conversation_uuid" in entry.metadata


@contextmanager
def _unpacked(source: Source) -> Iterator[Source]:
    """The source with the members of the archives in it."""
    archives = list(filter(_ARCHIVE.fullmatch, source.paths()))
    if not archives:
        yield source
        return
    with closing(UnpackedOrigin(source.origin, archives)) as origin:
        yield Source(origin)


def _evidence(source: Source) -> Evidence | None:
    paths = [p for p in source.ending(".json") if _named_kind(p)] or list(source.paths())
    for path in sorted(paths, key=lambda p: _named_kind(p) != "memories")[:_LOOKED_AT]:
        keys = source.peek(path).keys
        if "conversations_memory" in keys or len(_PARTS & keys) > 1:
            return Evidence(CERTAIN, "JSON with `conversations_memory` or `project_memories`")
        if {"uuid", "chat_messages"} <= keys:
            return Evidence(CERTAIN, "conversations with `chat_messages`")
    return None


def _named_kind(path: str) -> str | None:
    for part in path.casefold().split("/"):
        if found := _KIND.fullmatch(part):
            return found[1]
    return None


def _kind(source: Source, path: str) -> str | None:
    """What a file holds, by the names of its folder and archive, else by its content."""
    if not path.casefold().endswith(".json") and source.file is None:
        return None
    if kind := _named_kind(path) or _named_kind(source.name):
        return kind
    keys = source.peek(path).keys
    if keys & _PARTS:
        return "memories"
    if "chat_messages" in keys:
        return "conversations"
    return "projects" if {"uuid", "name", "docs"} <= keys else None


def _project_names(source: Source, paths: list[str]) -> dict[str, str]:
    names = {}
    for path in paths:
        for value in documents(source.origin, path):
            if isinstance(value, dict):
                uuid, name = value.get("uuid"), value.get("name")
                if isinstance(uuid, str) and isinstance(name, str) and name:
                    names[uuid] = name
    return names


def _record(
    kind: str, where: str, value: object, names: dict[str, str], options: Options
) -> Iterator[Item]:
    """What one record of a file holds."""
    try:
        record = object_of(value, "a record")
        if kind == "projects":
            yield LeftOut(where, _PROJECT)
        elif kind == "memories":
            yield from _memories(where, record, names)
        elif kind == "conversations":
            yield from _conversation(where, record, options)
        else:
            yield LeftOut(where, _OTHER)
    except EntryError as error:
        yield RejectedEntry(where, str(error))


def _memories(where: str, record: dict[str, Any], names: dict[str, str]) -> Iterator[Item]:
    account = record.get("account_uuid")
    projects = object_of(record.get("project_memories") or {}, "project_memories")
    more = {key: value for key, value in record.items() if key not in _PARTS | _DATES}
    if not _PARTS & record.keys():
        yield LeftOut(where, _OTHER)
    if "conversations_memory" in record:
        place = f"{where}, conversations_memory"
        yield _memory(place, (account,), record["conversations_memory"], record, more)
    for uuid, text in projects.items():
        name = names.get(uuid)
        metadata = {"project_uuid": uuid, "project_name": name, **more}
        place = f"{where}, project {uuid:.40}"
        yield _memory(
            place, (account, uuid), text, record, metadata, instance=f"{_NAME}:{name or uuid}"
        )
    for number, value in enumerate(_list(record.get("memory_files") or [], "memory_files"), 1):
        place = f"{where}, memory file {number:,}"
        try:
            file = object_of(value, "a memory file")
        except EntryError as error:
            yield RejectedEntry(place, str(error))
            continue
        metadata = {key: v for key, v in file.items() if key not in {"content"} | _DATES}
        key = (account, "file", file.get("path"))
        yield _memory(place, key, file.get("content"), file, {**metadata, "account_uuid": account})


def _conversation(where: str, record: dict[str, Any], options: Options) -> Iterator[Item]:
    messages = _list(record.get("chat_messages"), "chat_messages")
    if not messages and not record.get("summary"):
        yield LeftOut(where, _NONE)
    conversation = record.get("uuid")
    about = {"conversation_uuid": conversation, "conversation_name": record.get("name")}
    if summary := record.get("summary"):
        place = f"{where}, summary"
        if options.conversations:
            yield _memory(place, (conversation, "summary"), summary, record, about)
        else:
            yield LeftOut(place, MESSAGE)
    for number, value in enumerate(messages, 1):
        place = f"{where}, message {number:,}"
        if not options.conversations:
            yield LeftOut(place, MESSAGE)
            continue
        try:
            message = object_of(value, "a message")
        except EntryError as error:
            yield RejectedEntry(place, str(error))
            continue
        more = {key: message.get(key) for key in ("sender", "attachments", "files")}
        key = (conversation, message.get("uuid"))
        yield _memory(place, key, _text(message), message, {**about, **more})


def _memory(
    where: str,
    key: tuple[object, ...],
    text: object,
    dated: dict[str, Any],
    metadata: dict[str, Any],
    *,
    instance: str = _NAME,
) -> Item:
    """A memory with the dates of the record `dated`."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return LeftOut(where, _EMPTY)
    return attempt(
        where,
        lambda: memory(
            derived_id(_NAME, *map(str, key)),
            text,  # type: ignore[arg-type]  # checked with all others
            created=read_time(dated.get("created_at")),
            updated=read_time(dated.get("updated_at")),
            metadata=metadata,
            source_instance=instance,
        ),
    )


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise EntryError(f"{what} is {kind_of(value)}, not a list")
    return value


def _text(message: dict[str, Any]) -> str:
    """What was said, without thinking, tools and files."""
    blocks = message.get("content")
    blocks = blocks if isinstance(blocks, list) else []
    texts = [b.get("text") for b in blocks if isinstance(b, dict) and b.get("type") == "text"]
    found = "\n\n".join(text for text in texts if isinstance(text, str) and text)
    whole = message.get("text")
    return found or (whole if isinstance(whole, str) else "")
