"""What a format is, and what it yields.

A format reads each record of a source exactly once, as a memory, a tombstone, a record that is left
out, or one that is rejected. It invents nothing: ids are the source's own or derived from a natural
key, dates that the source does not give are unknown, and fields without an equivalent are kept in
`metadata` under the source's names.

Some formats can also be written. What the other system has no field for goes where it keeps free
metadata, under our names; what it can't hold at all is announced, by `lost`.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.files.published_folders import FolderKind
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.stores.base import UNDATED

CERTAIN, LIKELY, POSSIBLE = 90, 60, 30
"""How sure a format is: only this system writes that; it looks like it; it can be read as it."""
FALLBACK = 10
"""It can be read, if no other format can do better."""

MESSAGE = "a message of a conversation, where only memories are imported"
"""The reason of formats that read conversations only on request."""
REPEATED = "the same record as an earlier one"
"""The reason for which a record of any format is left out if an earlier one is identical."""

_IDS = uuid.UUID("6c1c1d62-3f0a-5b39-9a55-6d2f6e1f0a17")
"""The namespace of the ids of records that have none of their own."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """That a source has a format.

    Attributes:
        certainty: CERTAIN, LIKELY, POSSIBLE or FALLBACK; larger wins.
        why: what was found, in a few words: "a JSON list of objects with `mapping`".
    """

    certainty: int
    why: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that is not imported, though nothing is wrong with it.

    Attributes:
        where: its place in the source: "MEMORY.md", "line 12", "conversations.json, item 3".
        reason: one of the format's `leaves_out`.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A record that is a memory.

    Attributes:
        where: its place in the source, as in `LeftOut`.
        entry: the memory.
    """

    where: str
    entry: MemoryEntry


Item = Found | Tombstone | LeftOut | RejectedEntry


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a source.

    Attributes:
        conversations: also import the messages of conversations, where they are optional.
        mapping: for generic formats: the source's field for each of ours ("content", "id",
            "created_at", "updated_at", "tags").
    """

    conversations: bool = False
    mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memories:
    """What a format writes; can be iterated several times, and is never all in memory.

    Attributes:
        begin: starts again at the first memory.
        model: the model of their vectors, except of those that name their own; None if unknown.
        count: how many they are.
        vectors: whether to write their vectors, where the format leaves that open.
    """

    begin: Callable[[], Iterator[MemoryEntry]]
    model: EmbeddingMetadata | None = None
    count: int = 0
    vectors: bool = False

    def __iter__(self) -> Iterator[MemoryEntry]:
        """Each memory, always in the same order."""
        return self.begin()

    def with_text(self) -> "Memories":
        """Those that have a text."""
        return Memories(lambda: (e for e in self.begin() if e.content.strip()), self.model)


@dataclass(frozen=True, slots=True)
class Stored:
    """Which memories a store has, exported or not, and which were deleted from it, as ids."""

    here: Collection[str] = ()
    deleted: Collection[str] = ()


class Format(ABC):
    """A format of another system.

    Attributes:
        name: its short name, as users type it: lower case, with hyphens.
        title: the system and what of it, for people.
        places: where people find such a source.
        layout: what is looked for, to recognise it.
        fields: how each field of the source is mapped: the source's name, and where it goes.
        leaves_out: the reasons for which records are left out.
        writes: whether it can be written, as one file or as a folder of files; None if not.
        suffixes: those of the file that it writes.
        written: what it writes, for people.
        loses: what `lost` and `losses` may say.
        fills_part: whether it fills only a part of its file; see `within`.
        vectors_on_request: whether it loses vectors only if they are not requested.
        marks_edits: whether it marks what was edited after an export, see `EDITED_SINCE`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    places: ClassVar[str]
    layout: ClassVar[str]
    fields: ClassVar[Mapping[str, str]]
    leaves_out: ClassVar[Sequence[str]] = ()
    writes: ClassVar[Literal["file", "folder"] | None] = None
    suffixes: ClassVar[Sequence[str]] = ()
    written: ClassVar[str] = ""
    loses: ClassVar[Sequence[str]] = ()
    fills_part: ClassVar[bool] = False
    vectors_on_request: ClassVar[bool] = False
    marks_edits: ClassVar[bool] = False

    @abstractmethod
    def recognise(self, source: Source) -> Evidence | None:
        """Whether the source has this format, by its content; reads only a part of it."""

    @abstractmethod
    def read(self, source: Source, options: Options) -> Iterator[Item]:
        """Each record of the source, once, in a stable order.

        Raises:
            BundleError: the source as a whole can't be read.
        """

    def with_mapping(self, source: Source) -> Evidence | None:  # noqa: ARG002 - for formats with columns
        """Whether the source has fields that `Options.mapping` can name."""
        return None

    def is_message(self, entry: MemoryEntry) -> bool:  # noqa: ARG002 - for formats with conversations
        """Whether a memory was a message of a conversation, which is read only on request."""
        return False

    def model(self, source: Source) -> EmbeddingMetadata | None:  # noqa: ARG002 - for formats with vectors
        """The model of the source's vectors, or None if it has none or their model is unknown."""
        return None

    def removed(self, source: Source) -> Callable[[MemoryEntry], bool] | None:  # noqa: ARG002
        """Whether a memory was exported to this source and somebody has deleted it there since.

        None if the source was not written by an export that recorded what it wrote.
        """
        return None

    def lost(self, entry: MemoryEntry) -> Iterable[str]:  # noqa: ARG002 - for formats that are written
        """What the format can't hold of a memory: some of `loses`."""
        return ()

    def losses(self, memories: Memories) -> Iterator[tuple[str, str]]:
        """The id of a memory, and what is lost of it, for each loss."""
        for entry in memories:
            for what in self.lost(entry):
                yield entry.id, what

    def within(self, text: str, part: str) -> str:
        """The text of an existing file with this in the place of the part that was written before.

        Raises:
            UsageError: the file's marks are not as an export writes them.
        """
        raise NotImplementedError(f"{self.name} writes whole files")

    def write(self, memories: Memories) -> Iterator[bytes]:
        """The content of the file, if the format writes one; the same memories, the same bytes."""
        raise NotImplementedError(f"{self.name} writes no file")

    def write_folder(self, memories: Memories) -> Iterator[tuple[str, bytes]]:
        """The relative path and the content of each file, if the format writes a folder.

        Paths are unique even where the case of letters and the form of accents don't count.
        """
        raise NotImplementedError(f"{self.name} writes no folder")

    def folder_kind(self, stored: Callable[[], Stored] = Stored) -> FolderKind:  # noqa: ARG002
        """How to tell what the files of a folder are that was written before.

        Args:
            stored: returns which memories the store has and had; may take a while.
        """
        return FolderKind(self.name)


def only_file(source: Source, made: Format, *names: str) -> str:
    """The path of the source's only file, or of the only one with one of these names.

    Raises:
        BundleError: there is none, or several.
    """
    path = source.main(*names)
    if path is None:
        raise unlike(source, made)
    return path


def unlike(source: Source, made: Format) -> BundleError:
    """The error for a source that doesn't have the format that was named."""
    return BundleError(f"{source.name!r:.80} is not {made.title}. It should be {made.layout}.")


def attempt(where: str, make: Callable[..., MemoryEntry], *args: Any) -> Found | RejectedEntry:  # noqa: ANN401
    """The memory that `make(*args)` returns, or why it can't be read: an EntryError it raises."""
    try:
        return Found(where, make(*args))
    except EntryError as error:
        return RejectedEntry(where, str(error))


def derived_id(format_name: str, *key: str) -> str:
    """The id of a record that has none: the same whenever the same natural key is imported."""
    name = "\0".join((format_name, *key))
    return str(uuid.uuid5(_IDS, name.encode(errors="backslashreplace").decode()))


def memory(  # noqa: D417 - the others are those of MemoryEntry
    memory_id: str,
    content: str,
    *,
    created: datetime | None = None,
    updated: datetime | None = None,
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401 - checked by MemoryEntry
) -> MemoryEntry:
    """An entry made from a record.

    Args:
        created: when it was created; None if the source doesn't say.
        updated: when it was last changed; None if the source doesn't say.
        metadata: the fields without an equivalent; those that are None or empty are left out.

    Raises:
        EntryError: a value has a wrong type.
    """
    kept = {k: v for k, v in (metadata or {}).items() if v not in (None, "", [])}  # 0 stays
    extra = {UNDATED: True} if created is None else {}
    return MemoryEntry(
        id=memory_id,
        content=content,
        created_at=created or EPOCH,
        updated_at=updated or created or EPOCH,
        metadata=kept,
        extra=extra,
        **fields,
    )
