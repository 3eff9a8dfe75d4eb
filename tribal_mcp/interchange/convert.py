"""Turns a source of another system into a bundle, which is then verified and imported like any."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange.base import (
    MESSAGE,
    REPEATED,
    Evidence,
    Format,
    Found,
    Item,
    LeftOut,
    Options,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone, dump_tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import (
    check_id,
    dump_entry,
    entry_fields,
    entry_from_dict,
)
from tribal_mcp.stores.base import EDITED_SINCE, IMPORTED_FROM
from tribal_mcp.text import counted

_EXAMPLES = 3
_PLACE_CHARS = 200
"""Places name files and members of archives; results repeat them."""
_DETAILS = 100
_PROGRESS_EVERY = 500


@dataclass(slots=True)
class Conversion:
    """What became of the records of a source.

    Attributes:
        format: its format.
        evidence: why it has it.
        entries: number of records that are now entries of the bundle.
        deleted: number of tombstones.
        left_out: number of records left out, by reason.
        places: the first places of each reason.
        rejected: the first hundred records that can't be read.
        rejected_count: number of records that can't be read.
        vectors: number of entries with a vector.
        instances: the source instances of the entries.
        returned: number of entries that an export had written.
        edited: number of those that were edited since.
        removed: see `Format.removed`.
    """

    format: Format
    evidence: Evidence
    entries: int = 0
    deleted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    rejected: list[RejectedEntry] = field(default_factory=list)
    rejected_count: int = 0
    vectors: int = 0
    instances: set[str] = field(default_factory=set)
    returned: int = 0
    edited: int = 0
    removed: Callable[[MemoryEntry], bool] | None = None

    @property
    def reads_messages(self) -> bool:
        """Whether the messages of conversations, if it has any, are among its records."""
        return not self.left_out[MESSAGE]

    @property
    def is_edited_folder(self) -> bool:
        """Whether it is the folder of an export, in which people edit."""
        return self.format.marks_edits and self.returned > 0

    @property
    def found(self) -> int:
        """All records of the source."""
        return self.entries + self.deleted + self.left_out.total() + self.rejected_count

    def leave_out(self, item: LeftOut) -> None:
        """Count a record that is left out."""
        self.left_out[item.reason] += 1
        places = self.places.setdefault(item.reason, [])
        if len(places) < _EXAMPLES:
            places.append(_place(item.where))

    def reject(self, item: RejectedEntry) -> None:
        """Count a record that can't be read."""
        self.rejected_count += 1
        if len(self.rejected) < _DETAILS:
            self.rejected.append(replace(item, where=_place(item.where)))


def _place(where: str) -> str:
    return where if len(where) <= _PLACE_CHARS else where[:_PLACE_CHARS] + "…"


def convert(
    source: Source,
    conversion: Conversion,
    out: BinaryIO,
    options: Options,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> None:
    """Write the records of a source to `out` as a bundle, and count them in `conversion`.

    Args:
        source: the source.
        conversion: its format; receives the counts.
        out: a binary file.
        options: how to read it.
        on_progress: called with the number of records so far, now and then; may raise.

    Raises:
        BundleError: the source as a whole can't be read.
    """
    made = conversion.format
    model = made.model(source)
    writer = BundleWriter(out, EmbeddingManifest(model, exported_at=""), "jsonl")
    tombstones: list[Tombstone] = []
    rules = _Rules(source.limits, model.dimensions if model else 0)
    for number, item in enumerate(made.read(source, options), 1):
        if not number % _PROGRESS_EVERY:
            on_progress(number)
        match allowed := rules.apply(_finished(item, made)):
            case LeftOut():
                conversion.leave_out(allowed)
            case RejectedEntry():
                conversion.reject(allowed)
            case Tombstone():
                tombstones.append(allowed)
            case Found(_, entry):
                writer.write_lines([rules.line])
                conversion.entries += 1
                conversion.vectors += entry.embedding is not None
                conversion.instances.add(entry.source_instance)
                conversion.returned += entry.extra.get(IMPORTED_FROM) != made.name
                conversion.edited += EDITED_SINCE in entry.extra
    conversion.removed = made.removed(source)
    conversion.deleted = len(tombstones)
    writer.write_deleted(tombstones)
    writer.finish()
    if not conversion.found:
        raise BundleError(f"{source.name!r:.80} is {made.title}, and has no memories in it.")


def _finished(item: Item, made: Format) -> Item:
    """The item; a memory names its format, unless it was written by an export and is back."""
    if not isinstance(item, Found):
        return item
    extra = {IMPORTED_FROM: made.name, **item.entry.extra}
    if extra[IMPORTED_FROM] is None:
        del extra[IMPORTED_FROM]
    return Found(item.where, replace(item.entry, extra=extra))


@dataclass(slots=True)
class _Rules:
    """The rules across the records of a source: ids are unique, vectors have one length.

    Attributes:
        dimensions: the length of the vectors; 0 until the first.
        line: the last memory that was checked, as a line of the bundle.
    """

    limits: Limits
    dimensions: int
    line: bytes = b""
    _seen: dict[int, int] = field(default_factory=dict)
    """Hashes of the ids so far, with the hashes of what they are."""

    def apply(self, item: Item) -> Item:
        """The item itself, or why a bundle can't carry it beside the earlier ones."""
        if isinstance(item, LeftOut | RejectedEntry):
            return item
        where = item.where if isinstance(item, Found) else f"the deletion of {item.id!r:.80}"
        try:
            identity = self._checked(item)
        except (EntryError, BundleError) as error:
            return RejectedEntry(where, str(error))
        line = hash(self.line)
        count = len(self._seen)
        first = self._seen.setdefault(hash(identity), line)
        if len(self._seen) > count:
            return item
        if first == line:
            return LeftOut(where, REPEATED)
        return RejectedEntry(where, "an earlier record has the same id", identity)

    def _checked(self, item: Found | Tombstone) -> str:
        """The id of the item.

        Raises:
            EntryError, BundleError: a bundle can't carry it.
        """
        if isinstance(item, Tombstone):
            self.line = dump_tombstone(item)
            check_id("id", item.id, self.limits)
            return item.id
        entry = item.entry
        self.line = dump_entry(entry)
        if len(self.line) > self.limits.line_bytes:
            raise EntryError(
                f"it is {len(self.line):,} bytes as JSON; the limit is "
                f"{self.limits.line_bytes:,} (TRIBAL_LIMIT_LINE_BYTES)"
            )
        entry_from_dict(entry_fields(entry), self.limits)
        if entry.embedding is not None:
            self.dimensions = self.dimensions or entry.embedding.size
            if entry.embedding.size != self.dimensions:
                raise EntryError(
                    f"embedding has {counted(entry.embedding.size, 'dimension')}; the earlier "
                    f"vectors have {self.dimensions:,}"
                )
        return entry.id
