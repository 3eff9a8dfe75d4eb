"""What every use case needs: the settings, the bundle folders, progress and cancellation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import anyio.from_thread

from tribal_mcp.config import Settings
from tribal_mcp.errors import BundleError, PathNotAllowed, Stopped, TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.limits import Limits
from tribal_mcp.stores.factory import Store, folder_of, store_of
from tribal_mcp.text import memories

if TYPE_CHECKING:
    from tribal_mcp.files.bundle_folders import BundleFolders
    from tribal_mcp.files.directory import Draft
    from tribal_mcp.files.spool import Spool
    from tribal_mcp.portability.bundle.reader import OnProgress
    from tribal_mcp.stores.chroma.store import ChromaStore

Progress = Callable[[float, str], None]
"""Receives the progress in percent, and what is being done; in the event loop's thread only."""


_LARGE = 10
"""Memories of a bundle that no bundle of less than half its size may replace unnoticed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Follows an operation that works in batches, and may stop it.

    Attributes:
        on_progress: receives (done, total) after each batch.
        stop: says after each batch whether to stop there.
    """

    on_progress: "OnProgress | None" = None
    stop: Callable[[], bool] = lambda: False

    def report(self, done: int, total: int) -> None:
        """Report that a batch is done."""
        if self.on_progress:
            self.on_progress(done, total)

    def stops_at(self, done: int, total: int) -> bool:
        """Report that a batch is done; whether to stop before the rest."""
        self.report(done, total)
        return self.stop() and done < total


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one call.

    Attributes:
        settings: which store, and which model.
        limits: what a bundle may hold.
        progress: receives the progress.
        stop: says after each batch whether to stop there.
        trusted: paths come from the user's own command line; every directory is allowed.
        read_only: the caller may change nothing.
        said: what this process has said about the settings, so as not to repeat it.
        keep_open: whether this process serves further calls, so that the store stays open.
    """

    settings: Settings
    limits: Limits
    progress: Progress = lambda _percent, _message: None
    stop: Callable[[], bool] = lambda: False
    trusted: bool = False
    read_only: bool = False
    said: set[str] = field(default_factory=set)
    keep_open: bool = False

    @property
    def bundle_folders(self) -> "BundleFolders":
        """Where bundles may be."""
        from tribal_mcp.files.bundle_folders import BundleFolders  # noqa: PLC0415 - few need them

        if self.trusted:
            return BundleFolders.anywhere(self.settings.bundle_dir, self.plain)
        return BundleFolders(self.settings.allowed_dirs, self.settings.bundle_dir, self.plain)

    def plain(self, file: BinaryIO, shown: str) -> BinaryIO:
        """The content of an open file that may be encrypted; see `encryption.plain`."""
        from tribal_mcp.files.encryption import plain  # noqa: PLC0415 - few need it

        return plain(file, self.settings, self.spool, shown)

    def encrypted(self, out: BinaryIO, path: str) -> AbstractContextManager[BinaryIO]:
        """The file to write a bundle to: `out`, or one that encrypts into it if the name says so.

        Raises:
            UsageError: the settings name no valid key.
        """
        from tribal_mcp.files.encryption import AGE, encrypted  # noqa: PLC0415 - few need it

        return encrypted(out, self.settings) if path.lower().endswith(AGE) else nullcontext(out)

    def check_encryption(self, path: str) -> None:
        """Raise what `encrypted` would, before there is something to write."""
        from tribal_mcp.files.age_keys import check_keys  # noqa: PLC0415 - few need it
        from tribal_mcp.files.encryption import AGE  # noqa: PLC0415 - few need it

        if path.lower().endswith(AGE):
            check_keys(self.settings)

    def head(self, file: BinaryIO, shown: str, size: int = 1 << 20) -> BinaryIO:
        """The beginning of a bundle that may be encrypted, open for reading."""
        from tribal_mcp.files.encryption import head_of_encrypted, is_encrypted  # noqa: PLC0415 - few need it

        if is_encrypted(file):
            return BytesIO(head_of_encrypted(file, self.settings, shown, size))
        return BytesIO(file.read(size))

    @property
    def spool(self) -> "Spool":
        """Where spool files are."""
        from tribal_mcp.files.spool import Spool  # noqa: PLC0415 - few need it

        return Spool(self.settings.data_dir)

    def store(self) -> Store:
        """The store that the settings name."""
        return store_of(self.settings, self.waiting(), keep_open=self.keep_open)

    def folder(self) -> "ChromaStore":
        """The same, for what only a folder can do.

        Raises:
            UsageError: the settings name a server.
        """
        return folder_of(self.settings, self.waiting(), keep_open=self.keep_open)

    def publish(
        self,
        path: str,
        *,
        overwrite: bool = False,
        numbered: bool = False,
        memory_count: int | None = None,
    ) -> AbstractContextManager["Draft"]:
        """A file that takes its name once it is complete; see `BundleFolders.publish`.

        With `overwrite` it replaces an existing file only if that is a bundle. With `memory_count`,
        that of the new bundle, it never replaces a much larger bundle.
        """
        return self.bundle_folders.publish(
            path,
            overwrite=overwrite,
            is_bundle=partial(self._is_bundle, memory_count=memory_count),
            numbered=numbered,
        )

    def _is_bundle(self, file: BinaryIO, memory_count: int | None) -> bool:
        from tribal_mcp.files.encryption import is_encrypted  # noqa: PLC0415 - few need it

        if not is_encrypted(file):
            return _is_bundle(file, self.limits, memory_count)
        try:
            head = self.head(file, "The existing file")
        except TribalError as error:
            raise PathNotAllowed(
                f"Refusing to overwrite what can't be read. {error} Or choose another name."
            ) from None
        return _is_bundle(head, self.limits, memory_count)

    def waiting(self) -> Callable[[str], None]:
        """Called while a store has to wait: reports each reason once, and stops if asked to."""
        reported: set[str] = set()

        def waiting(reason: str) -> None:
            if self.stop():
                raise Stopped(f"Stopped. {reason}.")
            if reason not in reported:
                reported.add(reason)
                self.progress(0.0, reason)

        return waiting

    def watch(
        self, verb: str, noun: str = "memories", begin: float = 0.0, end: float = 100.0
    ) -> Watch:
        """For a part of the work: its progress, as `verb 500 of 2,000 memories`.

        Args:
            verb: what is done, in the past tense.
            noun: to what.
            begin: the progress before it, in percent.
            end: the progress after it.
        """

        def on_progress(done: int, total: int) -> None:
            percent = begin + (end - begin) * done / total
            self.progress(percent, f"{verb} {done:,} of {total:,} {noun}")

        return Watch(on_progress, self.stop)

    def verifying(self, end: float, outcome: str) -> "OnProgress":
        """For the verification of a bundle, in a thread: receives (bytes read, bytes in all).

        Args:
            end: the progress after it, in percent.
            outcome: a sentence for when it is stopped: what has not been done.
        """

        def on_progress(done: int, total: int) -> None:
            self.refuse_if_stopped(outcome)
            anyio.from_thread.run_sync(
                self.progress,
                end * min(1.0, done / total),
                f"Verified {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB",
            )

        return on_progress

    def refuse_if_stopped(self, outcome: str) -> None:
        """End the verification of a bundle if `stop` says so.

        Raises:
            Stopped: it does.
        """
        if self.stop():
            raise Stopped(f"Stopped while verifying the bundle. {outcome}")


def _is_bundle(file: BinaryIO, limits: Limits, memory_count: int | None) -> bool:
    """Whether it is a bundle.

    Raises:
        UsageError: it has many more memories than that.
    """
    from tribal_mcp.portability.bundle.reader import BundleReader  # noqa: PLC0415 - few need it

    try:
        manifest = BundleReader(file, limits).manifest
    except BundleError:
        return False
    held = manifest.memory_count or 0
    too_small = memory_count == 0 or (held >= _LARGE and 2 * (memory_count or 0) < held)
    if memory_count is not None and held and too_small:
        raise UsageError(
            f"The existing bundle has {memories(held)}, and the new one would have "
            f"{memory_count:,}. It was not replaced. Check that this is the right store, or choose "
            "another path.",
            NextStep(
                "To replace it with a smaller one, run {call}.",
                "export",
                {"output_path": ..., "overwrite": True, "allow_smaller": True},
            ),
        )
    return manifest.embedding is not None
