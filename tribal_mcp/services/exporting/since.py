"""What an incremental export contains: the changes since a time, or since an earlier bundle.

Since a time: what was written to this store from then on, whatever its own dates say; an old
memory that was imported yesterday counts as of yesterday. Since a bundle: what the bundle lacks or
has in another version, which needs no clock. The same holds for tombstones.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol, Self

import anyio.to_thread

from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.files.bundle_folders import SUFFIXES, BundleFolders
from tribal_mcp.files.spool import Spool
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.portable import PortableBundle, integrity_of
from tribal_mcp.portability.bundle.reader import BundleReader, OnProgress
from tribal_mcp.portability.bundle.writer import WRITE_BATCH
from tribal_mcp.portability.filters import read_bound
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import SINCE, EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry, is_ahead, microseconds
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.context import Watch
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.text import counted

_DIGEST_BYTES = 16
_END_OF_TIME = (1 << 63) - 1


@dataclass(slots=True)
class Changed:
    """What changed since the starting point.

    Attributes:
        ids: memories, in the order in which they were given.
        deleted: tombstones: when each memory was deleted, in microseconds UTC.
        notes: sentences for the user.
        absent: memories of the starting point that are neither here nor recorded as deleted.
    """

    ids: list[str]
    deleted: dict[str, int]
    notes: list[str] = field(default_factory=list)
    absent: int = 0


class Since(Protocol):
    """The starting point of an incremental export."""

    def about(self) -> dict[str, Any]:
        """Its manifest fields."""
        ...

    def in_words(self) -> str:
        """The end of a phrase that begins with the selected memories."""
        ...

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,
        watch: Watch,
        screen: Screen | None = None,
    ) -> Changed:
        """Which of the memories `ids`, and which tombstones, have changed since.

        Args:
            store: where they are; within a session.
            ids: of the memories in question.
            filtered: these are not all memories of the store.
            watch: follows the work.
            screen: redacts what is compared.

        Raises:
            Stopped: `watch` stopped it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinceTime:
    """A point in time, which is included."""

    moment: datetime

    def about(self) -> dict[str, Any]:
        """Its manifest fields."""
        return {SINCE: self.moment.isoformat()}

    def in_words(self) -> str:
        """The end of a phrase that begins with the selected memories."""
        return f" added or changed since {self.moment.isoformat()}"

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,  # noqa: ARG002 - a tombstone has no tags and no date of creation
        watch: Watch,  # noqa: ARG002 - one question to the store
        screen: Screen | None = None,  # noqa: ARG002 - no memory is compared
    ) -> Changed:
        """What was written from then on."""
        stored = await store.stored_since(microseconds(self.moment))
        result = Changed([i for i in ids if i in stored.ids], stored.forgotten)
        if stored.unrecorded:
            result.notes.append(
                f"{counted(stored.unrecorded, 'memory has', 'memories have')} no record of when "
                "this store received them. Their own dates decided; those without a date are "
                "included."
            )
        result.notes += await self._about_the_clock(store, len(result.ids))
        return result

    async def _about_the_clock(self, store: MemoryStore, selected: int) -> list[str]:
        """Notes about times in the future, which a clock that was ahead leaves behind."""
        if is_ahead(self.moment):
            note = (
                f"The start date {self.moment.isoformat()} is in the future: the clock was ahead "
                "when it was recorded, or is behind now. Memories stored with the right time are "
                "not included. Use an earlier date, or an earlier bundle in place of the date."
            )
            return [note]
        if not selected:
            return []
        now = microseconds(datetime.now(UTC) + timedelta(days=1))
        dateless = len((await store.stored_since(_END_OF_TIME)).ids)
        ahead = len((await store.stored_since(now)).ids) - dateless
        if ahead <= 0:
            return []
        note = (
            f"{counted(ahead, 'memory was', 'memories were')} stored at a time in the future: the "
            "clock was ahead then, or is behind now. Every export since an earlier date includes "
            "them."
        )
        return [note]


@dataclass(slots=True)
class EarlierBundle:
    """An earlier bundle, to compare the store with.

    Attributes:
        manifest: its head.
        sha256: the hash of its entries.
        name: what messages call it.
        entries: a digest of the line of each memory in it.
        deleted: its tombstones.
    """

    manifest: EmbeddingManifest
    sha256: str
    name: str = "the earlier bundle"
    entries: dict[str, bytes] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: BundleReader, name: str, on_progress: OnProgress | None = None) -> Self:
        """Read a bundle file, keeping 16 bytes and the id of each entry.

        Raises:
            UsageError: it is an incremental bundle.
            BundleError: it is damaged.
        """
        _refuse_incremental(reader.manifest, name)
        return cls.verified(reader, reader.verify(on_progress).sha256, name)

    @classmethod
    def verified(cls, reader: BundleReader, sha256: str, name: str) -> Self:
        """The same of a file that has been verified, also of an incremental bundle."""
        earlier = cls(reader.manifest, sha256, name)
        for batch in reader.batches(WRITE_BATCH):
            earlier._add(entry for entry in batch if isinstance(entry, MemoryEntry))
        for tombstones in reader.deleted():
            earlier.deleted.update((one.id, one.deleted_at_us) for one in tombstones)
        return earlier

    @classmethod
    def of(cls, bundle: PortableBundle) -> Self:
        """Read a bundle in memory.

        Raises:
            UsageError: it is an incremental bundle.
        """
        _refuse_incremental(bundle.manifest, "The earlier bundle")
        earlier = cls(bundle.manifest, integrity_of(bundle.entries).sha256)
        earlier._add(bundle.entries)
        earlier.deleted.update((one.id, one.deleted_at_us) for one in bundle.deleted)
        return earlier

    def _add(self, entries: Iterable[MemoryEntry]) -> None:
        self.entries.update((entry.id, _digest(dump_entry(entry))) for entry in entries)

    def about(self) -> dict[str, Any]:
        """Its manifest fields."""
        return {SINCE: self.manifest.exported_at, "since_sha256": self.sha256}

    def in_words(self) -> str:
        """The end of a phrase that begins with the selected memories."""
        return f" new or changed since {self.name}"

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,
        watch: Watch,
        screen: Screen | None = None,
    ) -> Changed:
        """What the bundle lacks or has in another version.

        A memory of the bundle that is not in this store counts as deleted only if there is a
        tombstone: it may never have been here.
        """
        changed: set[str] = set()
        done = 0
        async for batch in store.read_lines(ids, WRITE_BATCH):
            digests = await anyio.to_thread.run_sync(_digests, batch.lines, screen)
            changed.update(
                i
                for i, digest in zip(batch.ids, digests, strict=True)
                if self.entries.get(i) != digest
            )
            done += len(batch.ids)
            watch.report(done, len(ids))
            if watch.stop():
                raise Stopped(f"Stopped while comparing with {self.name}. No file was written.")
        forgotten = await store.forgotten()
        deleted = {
            i: moment
            for i, moment in forgotten.items()
            if self.deleted.get(i) != moment
            and (not filtered or i in self.entries or i in self.deleted)
        }
        result = Changed([i for i in ids if i in changed], deleted)
        if not filtered:
            result.absent = len(self.entries.keys() - set(ids) - forgotten.keys())
        if result.absent:
            absent = counted(result.absent, "memory", "memories")
            result.notes.append(
                f"{absent} in {self.name} but neither in this store nor recorded as deleted here: "
                "the new bundle does not mention this."
            )
        return result


async def read_since(
    text: str,
    folders: BundleFolders,
    limits: Limits,
    on_progress: OnProgress,
    spool: Spool,
) -> SinceTime | EarlierBundle:
    """The starting point that a text names: a time, or a bundle; a date means its first instant.

    Args:
        text: an ISO 8601 time, the path of a bundle, or the name of one in the default folder.
        folders: where bundles may be.
        limits: what a bundle may hold.
        on_progress: receives, in a thread, (bytes read, bytes in all) of a bundle.
        spool: for the scratch files of a large one.

    Raises:
        UsageError: it is neither, or an incremental bundle.
        PathNotAllowed: the bundle is where none may be.
        BundleError: the bundle is damaged.
    """
    try:
        moment = read_bound(text, whole_day=False)
    except ValueError:
        moment = None
    if isinstance(moment, datetime):
        return SinceTime(moment)
    if not text.lower().endswith(SUFFIXES):
        raise UsageError(
            f"The starting point {text[:80]!r} is neither an ISO 8601 time, such as 2026-01-15 or "
            "2026-01-15T10:30:00+00:00, nor the path of an earlier bundle."
        )
    name = f"{text!r:.80}"
    with folders.open_path_or_name(text, limits.file_bytes) as file, ExitStack() as stack:
        scratch = partial(stack.enter_context, spool.scratch(elsewhere=True))
        reader = BundleReader(
            file,
            limits,
            name=f"The earlier bundle, {name}",
            outcome="No file was written.",
            scratch=scratch,
        )
        return await anyio.to_thread.run_sync(EarlierBundle.read, reader, name, on_progress)


def _refuse_incremental(manifest: EmbeddingManifest, name: str) -> None:
    if SINCE in manifest.extra:
        raise UsageError(
            f"{name} is an incremental bundle: it holds only changes since an earlier point. Use "
            "a full bundle.",
            NextStep(
                "If it was exported from this store, use its time instead: {call}.",
                "export",
                {"since": manifest.exported_at},
            ),
        )


def _digests(lines: list[bytes], screen: Screen | None) -> list[bytes]:
    return [_digest(line) for line in (screen.compared(lines) if screen else lines)]


def _digest(line: bytes) -> bytes:
    return blake2b(line, digest_size=_DIGEST_BYTES).digest()
