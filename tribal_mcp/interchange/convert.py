"""Turns a source of another system into a bundle, which is then verified and imported like any."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.interchange.base import Evidence, Format, Found, LeftOut, Options
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.memory_json import check_entry, entry_fields, entry_from_dict

IMPORTED_FROM = "imported_from"
"""The field of a memory that names the format which it was imported from."""

_EXAMPLES = 3
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

    @property
    def found(self) -> int:
        """All records of the source."""
        return self.entries + self.deleted + self.left_out.total() + self.rejected_count

    def leave_out(self, item: LeftOut) -> None:
        """Count a record that is left out."""
        self.left_out[item.reason] += 1
        places = self.places.setdefault(item.reason, [])
        if len(places) < _EXAMPLES:
            places.append(item.where)

    def reject(self, item: RejectedEntry) -> None:
        """Count a record that can't be read."""
        self.rejected_count += 1
        if len(self.rejected) < _DETAILS:
            self.rejected.append(item)


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
    manifest = EmbeddingManifest(made.model(source), exported_at="")
    writer = BundleWriter(out, manifest, "jsonl")
    tombstones: dict[str, Tombstone] = {}
    for number, item in enumerate(made.read(source, options), 1):
        if not number % _PROGRESS_EVERY:
            on_progress(number)
        match item:
            case LeftOut():
                conversion.leave_out(item)
            case RejectedEntry():
                conversion.reject(item)
            case Tombstone():
                tombstones[item.id] = item
            case Found():
                entry = options.scope.apply(item.entry)
                _write(writer, replace(item, entry=entry), conversion, source)
    conversion.deleted = len(tombstones)
    writer.write_deleted(tombstones.values())
    writer.finish()
    if not conversion.found:
        raise BundleError(f"{source.name!r:.80} is {made.title}, and has no memories in it.")


def _write(writer: BundleWriter, found: Found, conversion: Conversion, source: Source) -> None:
    entry = found.entry
    entry = replace(entry, extra={**entry.extra, IMPORTED_FROM: conversion.format.name})
    try:
        check_entry(entry)
        entry_from_dict(entry_fields(entry), source.limits)
        writer.write([entry])
    except (EntryError, BundleError) as error:
        conversion.reject(RejectedEntry(found.where, str(error)))
        return
    conversion.entries += 1
    conversion.vectors += entry.embedding is not None
    conversion.instances.add(entry.source_instance)
