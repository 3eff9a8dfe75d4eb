"""ChatGPT exports: saved memories and custom instructions, and conversations on request.

An export has no file of saved memories. They are in the conversations: messages to `bio` save one
each, and `model_editable_context` messages hold the whole list at that time. The newest list
decides what is still saved; messages to `bio` count from there on. (Over 300 lines: the order of
these rules is the format.)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    MESSAGE,
    REPEATED,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    attempt,
    derived_id,
    memory,
)
from tribal_mcp.interchange.dated_list import dated_entries
from tribal_mcp.interchange.reading import items, object_of, read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.limits import MIB
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "chatgpt"
_FILE = re.compile(r"conversations(-\d+)?\.json")
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
_FENCED = re.compile(r"```(.*)```", re.DOTALL)
_FORGET = re.compile(r"\s*forget(?:\s+(?:that|about)\b|(?=[\s:]))[\s:]*", re.IGNORECASE)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_SAVED_BYTES = 64 * MIB
_LOOKED_AT = 5
"""How many files are looked at to recognise an export, since the first may be empty."""

_SYSTEM = "a system or tool message"
_BRANCH = "a message on a branch that was edited away"
_OLDER = "an older list of saved memories, or older custom instructions"
_UNLISTED = "a saved memory that the newest list no longer has, or that was deleted on request"
_FORGETTING = "a request to forget a memory"
_EMPTY = "a message without text"
_NONE = "a conversation without messages"

_INSTRUCTIONS = {
    "about_user_message": ("user_profile", "Custom instructions: about the user"),
    "about_model_message": ("user_instructions", "Custom instructions: how to respond"),
}


class ChatGPT(Format):
    """Conversations in one file or in shards, in a folder or a zip archive."""

    name: ClassVar = _NAME
    title: ClassVar = "a ChatGPT export"
    places: ClassVar = "the zip file from ChatGPT: Settings, Data controls, Export data"
    layout: ClassVar = "conversations.json or conversations-000.json: a list with `mapping`"
    fields: ClassVar = {
        "parts of a message to bio": "content",
        "model_set_context": "content and created_at of each listed memory",
        "about_user_message, about_model_message": "content; context names the instruction",
        "create_time": "created_at",
        "update_time": "updated_at",
        "conversation_id, title, author.role, model_slug": "metadata",
    }
    leaves_out: ClassVar = (
        MESSAGE, _SYSTEM, _BRANCH, _OLDER, _UNLISTED, _FORGETTING, _EMPTY, _NONE,
    )  # fmt: skip

    def recognise(self, source: Source) -> Evidence | None:
        """A list of conversations with `mapping`."""
        for path in _files(source)[:_LOOKED_AT]:
            mapping = source.peek(path).first
            mapping = mapping.get("mapping") if isinstance(mapping, dict) else None
            if source.peek(path).kind == "array" and isinstance(mapping, dict):
                return Evidence(CERTAIN, "a list of conversations with `mapping`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:
        """Each message as it comes, then what is saved."""
        memories = _Memories()
        for path in _files(source):
            for number, value in enumerate(items(source.origin, path), 1):
                where = f"{path}, conversation {number:,}"
                try:
                    conversation = _Conversation(where, value)
                except EntryError as error:
                    yield RejectedEntry(where, str(error))
                else:
                    yield from conversation.read(memories, options)
        yield from memories.items()

    def is_message(self, entry: MemoryEntry) -> bool:
        """It has the role of who wrote it."""
        return "role" in entry.metadata


def _files(source: Source) -> list[str]:
    if source.file is not None:
        return [source.file]
    return [path for path in source.paths() if _FILE.fullmatch(path.rsplit("/", 1)[-1].casefold())]


class _Conversation:
    """One conversation.

    Args:
        where: its place.
        value: its JSON value.

    Raises:
        EntryError: it is not a conversation.
    """

    def __init__(self, where: str, value: object) -> None:
        self._where = where
        self._value = object_of(value, "a conversation")
        self._nodes = object_of(self._value.get("mapping"), "mapping")
        self._metadata = {
            "conversation_id": self._value.get("conversation_id") or self._value.get("id"),
            "title": self._value.get("title"),
        }

    def read(self, memories: "_Memories", options: Options) -> Iterator[Item]:
        """What becomes of each message; `memories` receives those that are or hold memories."""
        branch = self._branch()
        times = self._times(branch)
        is_empty = True
        for key, node in self._nodes.items():
            if isinstance(node, dict) and node.get("message") is None:
                continue  # the root
            is_empty = False
            where = f"{self._where}, message {key:.40}"
            if key not in times:
                yield LeftOut(where, _BRANCH)
                continue
            try:
                message = object_of(object_of(node, "a node")["message"], "a message")
                item = self._item(_Place(where, key, times[key]), message, memories, options)
            except EntryError as error:
                yield RejectedEntry(where, str(error))
            else:
                if item:
                    yield item
        if is_empty:
            yield LeftOut(self._where, _NONE)

    def _branch(self) -> list[str]:
        """The keys from the root to the current message."""
        key = self._value.get("current_node")
        if not isinstance(key, str) or key not in self._nodes:
            key = self._newest_leaf()
        branch: dict[str, None] = {}
        while isinstance(key, str) and key in self._nodes and key not in branch:
            branch[key] = None
            node = self._nodes[key]
            key = node.get("parent") if isinstance(node, dict) else None
        return list(branch)[::-1]

    def _newest_leaf(self) -> str | None:
        leaves = [
            key
            for key, node in self._nodes.items()
            if isinstance(node, dict) and not node.get("children")
        ]
        return max(
            reversed(leaves), key=lambda k: _time(self._nodes[k]) or _BEFORE_ALL, default=None
        )

    def _times(self, branch: list[str]) -> dict[str, datetime]:
        """When each message of the branch was sent, as far as it can be told from others.

        Only for the order of lists and messages: a message with a list often has no time.
        """
        later = _lenient(self._value.get("create_time")) or _lenient(self._value.get("update_time"))
        times = {}
        for key in reversed(branch):
            own = _time(self._nodes[key])
            times[key] = own or later or _BEFORE_ALL
            later = own or later
        return times

    def _item(
        self, place: "_Place", message: dict[str, Any], memories: "_Memories", options: Options
    ) -> Item | None:
        """What becomes of a message; None if `memories` has it."""
        content = object_of(message.get("content"), "its content")
        author = object_of(message.get("author"), "its author")
        role, kind = author.get("role"), content.get("content_type")
        if kind == "user_editable_context":
            return memories.instruct(place, message, content)
        if kind == "model_editable_context":
            return memories.replace_list(place, content.get("model_set_context"))
        if role == "assistant" and message.get("recipient") == "bio":
            return memories.save(place, _text(content), message, self._metadata)
        if role not in ("user", "assistant") or message.get("recipient") not in (None, "all"):
            return LeftOut(place.where, _SYSTEM)
        return self._said(place, role, _text(content), message, options)

    def _said(
        self, place: "_Place", role: str, text: str, message: dict[str, Any], options: Options
    ) -> Item:
        if not options.conversations:
            return LeftOut(place.where, MESSAGE)
        if not text.strip():
            return LeftOut(place.where, _EMPTY)
        return attempt(place.where, self._message, place.key, role, text, message)

    def _message(self, key: str, role: str, text: str, message: dict[str, Any]) -> MemoryEntry:
        metadata = message.get("metadata")
        model = metadata.get("model_slug") if isinstance(metadata, dict) else None
        return memory(
            derived_id(_NAME, str(self._metadata["conversation_id"]), key),
            text,
            created=read_time(message.get("create_time")),
            updated=read_time(message.get("update_time")),
            metadata={**self._metadata, "role": role, "model_slug": model},
            source_instance=_NAME,
        )


class _Place(NamedTuple):
    where: str
    key: str
    time: datetime
    """For the order only."""


class _Saved(NamedTuple):
    place: _Place
    text: str
    created: datetime | None
    metadata: dict[str, Any]

    def item(self, date: str = "") -> Item:
        return attempt(self.place.where, self._memory, date)

    def _memory(self, date: str) -> MemoryEntry:
        return memory(
            derived_id(_NAME, self.text),
            self.text,
            created=self.created or read_time(date),
            metadata=self.metadata,
            source_instance=_NAME,
        )


@dataclass(slots=True)
class _Memories:
    """What is saved, as far as it is known; older versions are left out as newer ones come."""

    _saved: dict[str, _Saved] = field(default_factory=dict)
    """Messages to `bio`, by their text."""
    _revoked: dict[str, datetime] = field(default_factory=dict)
    _list: tuple[_Place, str] | None = None
    _instructions: tuple[_Place, dict[str, Any], dict[str, Any]] | None = None
    _size: int = 0

    def save(
        self, place: _Place, text: str, message: dict[str, Any], metadata: dict[str, Any]
    ) -> Item | None:
        text = text.strip()
        if not text:
            return LeftOut(place.where, _EMPTY)
        self._size += len(text)
        if self._size > _SAVED_BYTES:
            raise BundleError("The export has more than 64 MiB of saved memories.")
        if request := _FORGET.match(text):
            revoked = _plain(text[request.end() :])
            self._revoked[revoked] = max(place.time, self._revoked.get(revoked, _BEFORE_ALL))
            return LeftOut(place.where, _FORGETTING)
        created = read_time(message.get("create_time"))
        saved = _Saved(place, text, created, {"recipient": "bio", **metadata})
        older = self._saved.get(text)
        if older and older.place.time > place.time:
            older, saved = saved, older
        self._saved[text] = saved
        return LeftOut(older.place.where, REPEATED) if older else None

    def replace_list(self, place: _Place, text: object) -> Item | None:
        if not isinstance(text, str) or not text.strip():
            return LeftOut(place.where, _EMPTY)
        older, self._list = self._list, (place, text)
        if older and older[0].time > place.time:
            older, self._list = self._list, older
        return LeftOut(older[0].where, _OLDER) if older else None

    def instruct(
        self, place: _Place, message: dict[str, Any], content: dict[str, Any]
    ) -> Item | None:
        older, self._instructions = self._instructions, (place, message, content)
        if older and older[0].time > place.time:
            older, self._instructions = self._instructions, older
        return LeftOut(older[0].where, _OLDER) if older else None

    def items(self) -> Iterator[Item]:
        """What is saved, and what is no longer."""
        listed_at = self._list[0].time if self._list else _BEFORE_ALL
        if self._list:
            yield from self._listed(*self._list)
        for saved in self._saved.values():
            is_older = self._list is not None and saved.place.time <= listed_at
            revoked = self._revoked.get(_plain(saved.text), _BEFORE_ALL)
            if is_older or revoked > saved.place.time:
                yield LeftOut(saved.place.where, _UNLISTED)
            else:
                yield saved.item()
        if self._instructions:
            yield from _instructed(*self._instructions)

    def _listed(self, place: _Place, text: str) -> Iterator[Item]:
        """Each memory of the newest list; that of a message to `bio` has the message's date."""
        entries = [(date, entry) for _, date, entry in dated_entries(text) if date is not None]
        entries = entries or [("", part.strip()) for part in _NUMBERED.split(text) if part.strip()]
        seen = set()
        for number, (date, entry) in enumerate(entries, 1):
            where = f"{place.where}, entry {number:,}"
            if entry in seen:
                yield LeftOut(where, REPEATED)
            elif not entry:
                yield LeftOut(where, _EMPTY)
            else:
                seen.add(entry)
                found = self._saved.pop(entry, None)
                if found:
                    yield LeftOut(where, REPEATED)
                else:
                    metadata = {"content_type": "model_editable_context"}
                    found = _Saved(place._replace(where=where), entry, None, metadata)
                yield found.item(date)


def _instructed(place: _Place, message: dict[str, Any], content: dict[str, Any]) -> Iterator[Item]:
    metadata = message.get("metadata")
    data = metadata.get("user_context_message_data") if isinstance(metadata, dict) else None
    data = data if isinstance(data, dict) else {}
    for name, (wrapped, context) in _INSTRUCTIONS.items():
        where = f"{place.where}, {name}"
        text = data.get(name) or _unwrapped(content.get(wrapped))
        if text in (None, ""):
            yield LeftOut(where, _EMPTY)
        else:
            yield attempt(where, _instruction, name, text, context)


def _instruction(name: str, text: str, context: str) -> MemoryEntry:
    return memory(
        derived_id(_NAME, name),
        text,
        context=context,
        metadata={"content_type": "user_editable_context"},
        source_instance=_NAME,
        source_type=MemorySource.USER_EXPLICIT,
    )


def _unwrapped(text: object) -> object:
    fenced = _FENCED.search(text) if isinstance(text, str) else None
    return fenced[1].strip() if fenced else text


def _text(content: dict[str, Any]) -> str:
    """The texts of a message, without images and files."""
    parts = content.get("parts", content.get("text"))
    parts = parts if isinstance(parts, list) else [parts]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _plain(text: str) -> str:
    return text.strip(" .\"'").casefold()


def _time(node: object) -> datetime | None:
    """When a node's message was sent."""
    message = node.get("message") if isinstance(node, dict) else None
    return _lenient(message.get("create_time")) if isinstance(message, dict) else None


def _lenient(value: object) -> datetime | None:
    try:
        return read_time(value)
    except EntryError:
        return None
