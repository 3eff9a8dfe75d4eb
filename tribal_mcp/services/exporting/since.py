"""What an export since some point takes: by a time, or by an earlier bundle.

By a time: what was written to this store from then on, whatever its own dates say, so that an old
memory that came in yesterday is of yesterday. By a bundle: what is not in it as it is here now,
which needs no clock. Tombstones likewise.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol, Self

import anyio.to_thread

from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.files.bundles import SUFFIXES, BundleFolders
from tribal_mcp.files.spool import Spool
from tribal_mcp.portability.bundle.portable import PortableBundle, integrity_of
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import WRITE_BATCH
from tribal_mcp.portability.filters import read_bound
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.stores.base import MemoryStore

SINCE = "since"
"""The field of a manifest that says from when on a bundle holds what changed."""

_DIGEST_BYTES = 16


@dataclass(slots=True)
class Changed:
    """What an export takes.

    Attributes:
        ids: memories, in the order in which they were given.
        deleted: tombstones: when each was forgotten, in microseconds UTC.
        notes: sentences for the user.
    """

    ids: list[str]
    deleted: dict[str, int]
    notes: list[str] = field(default_factory=list)


class Since(Protocol):
    """From when on an export takes what changed."""

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        ...

    def in_words(self) -> str:
        """The end of a phrase that begins with the memories that are taken."""
        ...

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,
        on_progress: Callable[[int, int], None],
        stop: Callable[[], bool],
    ) -> Changed:
        """What of the memories `ids`, and of the tombstones, is taken.

        Args:
            store: where they are; within a session.
            ids: of the memories in question.
            filtered: these are not all memories of the store.
            on_progress: told (memories looked at, memories in all).
            stop: asked after each batch whether to stop there.

        Raises:
            Stopped: `stop` said so.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinceTime:
    """From a point in time on, which is included."""

    moment: datetime

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {SINCE: self.moment.isoformat()}

    def in_words(self) -> str:
        """The end of a phrase that begins with the memories that are taken."""
        return f" that came or changed here since {self.moment.isoformat()}"

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,  # noqa: ARG002 - a tombstone has no tags and no date of creation
        on_progress: Callable[[int, int], None],  # noqa: ARG002 - one question to the store
        stop: Callable[[], bool],  # noqa: ARG002
    ) -> Changed:
        """What was written from then on."""
        stored = await store.stored_since(microseconds(self.moment))
        result = Changed([i for i in ids if i in stored.ids], stored.forgotten)
        if stored.unrecorded:
            result.notes.append(
                f"Of {stored.unrecorded:,} memories nobody recorded when they came into this "
                "store; they count by their own dates, and those without one were taken."
            )
        return result


@dataclass(slots=True)
class EarlierBundle:
    """What is not in an earlier bundle as it is here.

    Attributes:
        manifest: its head.
        sha256: the hash of its entries.
        name: what messages call it.
        entries: of each memory in it a digest of its line.
        deleted: its tombstones.
    """

    manifest: EmbeddingManifest
    sha256: str
    name: str = "the earlier bundle"
    entries: dict[str, bytes] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(
        cls, reader: BundleReader, name: str, on_progress: Callable[[int, int], None] | None = None
    ) -> Self:
        """Take in a bundle file, of which 16 bytes and the id of an entry are kept.

        Raises:
            UsageError: it holds only what changed since an earlier one.
            BundleError: it is damaged.
        """
        _refuse_partial(reader.manifest, name)
        earlier = cls(reader.manifest, reader.verify(on_progress).sha256, name)
        for batch in reader.batches(WRITE_BATCH):
            earlier._add(entry for entry in batch if isinstance(entry, MemoryEntry))
        for tombstones in reader.deleted():
            earlier.deleted.update((one.id, one.deleted_at_us) for one in tombstones)
        return earlier

    @classmethod
    def of(cls, bundle: PortableBundle) -> Self:
        """Take in a bundle in memory.

        Raises:
            UsageError: it holds only what changed since an earlier one.
        """
        _refuse_partial(bundle.manifest, "The earlier bundle")
        earlier = cls(bundle.manifest, integrity_of(bundle.entries).sha256)
        earlier._add(bundle.entries)
        earlier.deleted.update((one.id, one.deleted_at_us) for one in bundle.deleted)
        return earlier

    def _add(self, entries: Iterable[MemoryEntry]) -> None:
        self.entries.update((entry.id, _digest(dump_entry(entry))) for entry in entries)

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {SINCE: self.manifest.exported_at, "since_sha256": self.sha256}

    def in_words(self) -> str:
        """The end of a phrase that begins with the memories that are taken."""
        return f" that are not in {self.name} as they are here"

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,
        on_progress: Callable[[int, int], None],
        stop: Callable[[], bool],
    ) -> Changed:
        """What is not in the bundle, or is other than there.

        What is in the bundle and no longer here was forgotten only if a tombstone says so: it may
        as well never have been here.
        """
        changed: set[str] = set()
        done = 0
        async for batch in store.read_lines(ids, WRITE_BATCH):
            digests = await anyio.to_thread.run_sync(_digests, batch.lines)
            changed.update(
                i
                for i, digest in zip(batch.ids, digests, strict=True)
                if self.entries.get(i) != digest
            )
            done += len(batch.ids)
            on_progress(done, len(ids))
            if stop():
                raise Stopped(f"Stopped while {self.name} was compared; no file was written.")
        forgotten = await store.forgotten()
        deleted = {
            i: moment
            for i, moment in forgotten.items()
            if self.deleted.get(i) != moment
            and (not filtered or i in self.entries or i in self.deleted)
        }
        result = Changed([i for i in ids if i in changed], deleted)
        absent = 0 if filtered else len(self.entries.keys() - set(ids) - forgotten.keys())
        if absent:
            result.notes.append(
                f"{absent:,} memories of {self.name} are not in this store, and nothing says that "
                "they were forgotten here; the bundle says nothing of them."
            )
        return result


async def read_since(
    text: str,
    folders: BundleFolders,
    limits: Limits,
    on_progress: Callable[[int, int], None],
    spool: Spool,
) -> SinceTime | EarlierBundle:
    """What a text names: a time, a date alone being its first instant, or a bundle.

    Args:
        text: an ISO 8601 time, the path of a bundle, or the name of one in the default folder.
        folders: where bundles may lie.
        limits: what a bundle may hold.
        on_progress: told, in a thread, (bytes read, bytes in all) of a bundle.
        spool: for what is kept of a large one.

    Raises:
        UsageError: it is neither, or a bundle that holds only what changed.
        PathNotAllowed: the bundle lies where none may.
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
            f"since is {text[:80]!r}, which is neither an ISO 8601 time, such as 2026-01-15 or "
            "2026-01-15T10:30:00+00:00, nor the path of an earlier bundle."
        )
    name = f"{text!r:.80}"
    with folders.open_path_or_name(text, limits.file_bytes) as file, ExitStack() as stack:
        scratch = partial(stack.enter_context, spool.scratch(elsewhere=True))
        reader = BundleReader(
            file, limits, name=f"since: {name}", outcome="No file was written.", scratch=scratch
        )
        return await anyio.to_thread.run_sync(EarlierBundle.read, reader, name, on_progress)


def _refuse_partial(manifest: EmbeddingManifest, name: str) -> None:
    if SINCE in manifest.extra:
        raise UsageError(
            f"{name} itself holds only what changed since an earlier point. If it was exported "
            f'from this store, give since="{manifest.exported_at}", the time at which it was '
            "made; else give a whole bundle."
        )


def _digests(lines: list[bytes]) -> list[bytes]:
    return [_digest(line) for line in lines]


def _digest(line: bytes) -> bytes:
    return blake2b(line, digest_size=_DIGEST_BYTES).digest()
