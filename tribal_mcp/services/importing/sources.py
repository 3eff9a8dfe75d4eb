"""Where an import reads from: a verified bundle in a file, or one in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tribal_mcp.errors import UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.verification import Verified
from tribal_mcp.portability.manifest import SELECTION, SINCE, EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.text import counted


class EntrySource(Protocol):
    """A bundle that has been verified."""

    @property
    def manifest(self) -> EmbeddingManifest:
        """Its head."""
        ...

    @property
    def total(self) -> int:
        """Entries in it, rejected ones too."""
        ...

    @property
    def rejected(self) -> int:
        """Entries of it that can't be read."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in each of its vectors; 0 if it has none."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user about reading it."""
        ...

    @property
    def deletions(self) -> int:
        """Tombstones in it."""
        ...

    def batches(self, size: int) -> Iterator[list[Item]]:
        """Its entries in order."""
        ...

    def tombstones(self, size: int) -> Iterator[dict[str, int]]:
        """Its tombstones: ids, and the time of deletion in microseconds UTC."""
        ...


@dataclass(frozen=True, slots=True)
class HeldBundle:
    """A bundle in memory, as a source."""

    bundle: PortableBundle

    @property
    def manifest(self) -> EmbeddingManifest:
        """Its head."""
        return self.bundle.manifest

    @property
    def total(self) -> int:
        """Entries in it, rejected ones too."""
        return len(self.bundle.entries) + len(self.bundle.rejected)

    @property
    def rejected(self) -> int:
        """Entries of it that can't be read."""
        return len(self.bundle.rejected)

    @property
    def dimensions(self) -> int:
        """Numbers in each of its vectors; 0 if it has none."""
        return next((e.embedding.size for e in self.bundle.entries if e.embedding is not None), 0)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user about reading it."""
        return self.bundle.notes

    def batches(self, size: int) -> Iterator[list[Item]]:
        """Its entries in order, after those that were rejected."""
        entries: list[Item] = [*self.bundle.rejected, *self.bundle.entries]
        return (entries[start : start + size] for start in range(0, len(entries), size))

    @property
    def deletions(self) -> int:
        """Tombstones in it."""
        return len(self.bundle.deleted)

    def tombstones(self, size: int) -> Iterator[dict[str, int]]:
        """Its tombstones: ids, and the time of deletion in microseconds UTC."""
        deleted = self.bundle.deleted
        return (_times(deleted[start : start + size]) for start in range(0, len(deleted), size))


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
class VerifiedBundle:
    """A file that has been verified, as a source."""

    reader: BundleReader
    verified: Verified
    scope: Scope = Scope()

    @property
    def manifest(self) -> EmbeddingManifest:
        """Its head."""
        return self.reader.manifest

    @property
    def total(self) -> int:
        """Entries in it, rejected ones too."""
        return self.verified.count

    @property
    def rejected(self) -> int:
        """Entries of it that can't be read."""
        return self.verified.rejected_count

    @property
    def dimensions(self) -> int:
        """Numbers in each of its vectors; 0 if it has none."""
        return self.verified.dimensions

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user about reading it."""
        return self.verified.notes

    @property
    def deletions(self) -> int:
        """Tombstones in it."""
        return self.verified.deleted

    def batches(self, size: int) -> Iterator[list[Item]]:
        """Its entries in order."""
        if self.scope == Scope():
            return self.reader.batches(size)
        return (
            [self.scope.apply(i) if isinstance(i, MemoryEntry) else i for i in batch]
            for batch in self.reader.batches(size)
        )

    def tombstones(self, size: int) -> Iterator[dict[str, int]]:
        """Its tombstones: ids, and the time of deletion in microseconds UTC."""
        return map(_times, self.reader.deleted(size))


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


def _times(tombstones: Iterable[Tombstone]) -> dict[str, int]:
    return {tombstone.id: tombstone.deleted_at_us for tombstone in tombstones}
