"""Where an import reads from: a verified bundle in a file, or one in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from tribal_mcp.errors import UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.verification import Verified
from tribal_mcp.portability.manifest import SELECTION, SINCE, EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import EDITED_SINCE, in_parts
from tribal_mcp.text import counted


@dataclass(frozen=True, slots=True)
class Scope:
    """Changes to the scope of every memory that is imported.

    Attributes:
        add_tags: tags that each gets.
        map_tags: new names of tags; an empty name removes the tag.
        instance: the source instance of each, instead of the format's.
    """

    add_tags: Sequence[str] = ()
    map_tags: Mapping[str, str] = field(default_factory=dict)
    instance: str = ""

    def apply(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry with these changes."""
        if not (self.add_tags or self.map_tags or self.instance):
            return entry
        tags = [self.map_tags.get(tag, tag) for tag in entry.tags]
        tags = list(dict.fromkeys(filter(None, [*tags, *self.add_tags])))
        return replace(entry, tags=tags, source_instance=self.instance or entry.source_instance)


@dataclass(frozen=True, slots=True)
class EntrySource:
    """A bundle that has been verified.

    Attributes:
        manifest: its head.
        total: entries in it, rejected ones too.
        rejected: entries of it that can't be read.
        deletions: tombstones in it.
        dimensions: numbers in each of its vectors; 0 if it has none.
        notes: sentences for the user about reading it.
        batches: returns its entries in order, in lists of at most the given size.
        tombstones: returns its tombstones in the same way: ids, and the time of deletion in
            microseconds UTC.
        edited: the ids of the entries read so far that were edited in the folder of an export,
            each with the digest of the memory as exported; None if it is not of such a folder.
    """

    manifest: EmbeddingManifest
    total: int
    rejected: int
    deletions: int
    dimensions: int
    notes: Sequence[str]
    batches: Callable[[int], Iterator[list[Item]]]
    tombstones: Callable[[int], Iterator[dict[str, int]]]
    edited: dict[str, str] | None = None

    @classmethod
    def in_memory(cls, bundle: PortableBundle) -> Self:
        """A bundle in memory; rejected entries come first."""
        entries: list[Item] = [*bundle.rejected, *bundle.entries]
        vectors = (e.embedding for e in bundle.entries if e.embedding is not None)
        return cls(
            bundle.manifest,
            total=len(entries),
            rejected=len(bundle.rejected),
            deletions=len(bundle.deleted),
            dimensions=next((vector.size for vector in vectors), 0),
            notes=bundle.notes,
            batches=lambda size: in_parts(entries, size),
            tombstones=lambda size: map(_times, in_parts(bundle.deleted, size)),
        )

    @classmethod
    def in_file(
        cls,
        reader: BundleReader,
        verified: Verified,
        scope: Scope = Scope(),
        *,
        is_folder: bool = False,
    ) -> Self:
        """A file that has been verified; `is_folder` if it comes from the folder of an export."""
        edited: dict[str, str] | None = {} if is_folder else None

        def changed(size: int) -> Iterator[list[Item]]:
            for batch in reader.batches(size):
                yield [
                    scope.apply(_noted(item, edited)) if isinstance(item, MemoryEntry) else item
                    for item in batch
                ]

        return cls(
            reader.manifest,
            total=verified.count,
            rejected=verified.rejected_count,
            deletions=verified.deleted,
            dimensions=verified.dimensions,
            notes=verified.notes,
            batches=reader.batches if scope == Scope() and not is_folder else changed,
            tombstones=lambda size: map(_times, reader.deleted(size)),
            edited=edited,
        )


def _noted(entry: MemoryEntry, edited: dict[str, str] | None) -> MemoryEntry:
    """The entry without the mark of those that were edited, which is noted in `edited`."""
    if edited is None or EDITED_SINCE not in entry.extra:
        return entry
    edited[entry.id] = str(entry.extra[EDITED_SINCE])
    extra = {key: value for key, value in entry.extra.items() if key != EDITED_SINCE}
    return replace(entry, extra=extra)


def _times(tombstones: Iterable[Tombstone]) -> dict[str, int]:
    return {tombstone.id: tombstone.deleted_at_us for tombstone in tombstones}


def refuse_partial(source: EntrySource) -> None:
    """Refuse to make a store equal to a bundle that is not complete.

    Raises:
        UsageError: it was filtered, is incremental, or has entries that can't be read.
    """
    extra = source.manifest.extra
    why = ""
    if SINCE in extra:
        why = "it is incremental"
    elif SELECTION in extra:
        why = f"it has only {str(extra[SELECTION])[:200]}"
    elif not source.total:
        why = "it has no entries"
    elif source.rejected:
        why = f"{counted(source.rejected, 'entry', 'entries')} of it can't be read"
    if why:
        raise UsageError(
            f"The store can't be made equal to this bundle, because {why}. Nothing was imported. "
            "Use a full bundle, or merge this one.",
            NextStep("To merge, run {call}.", "import", {"conflict_resolution": "merge"}),
        )
