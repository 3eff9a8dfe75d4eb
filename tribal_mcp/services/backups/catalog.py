"""The backups in a folder: which there are, and which of them are good.

A full backup is a bundle of everything, and an increment is an incremental bundle since one full
backup; so any state is in at most two files. A file that is not named and marked as a backup of the
configured collection is left alone.
"""

import io
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from tribal_mcp.errors import BundleError, TribalError
from tribal_mcp.files.bundle_folders import moment_of
from tribal_mcp.files.encryption import AGE
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.verification import Verified
from tribal_mcp.portability.manifest import SINCE
from tribal_mcp.portability.memory import read_date
from tribal_mcp.services.context import Context

MARK = "backup"
"""The field of a manifest that only a backup has."""
Kind = Literal["full", "increment"]

_NAME = re.compile(
    r"(?P<collection>.+)-(?P<date>\d{4}-\d\d-\d\dT\d{6}Z)-(?P<kind>full|increment)(-\d+)?"
    r"\.json\.zst(\.age)?"
)


@dataclass(slots=True)
class Backup:
    """One file of the folder.

    Attributes:
        path: where it is.
        kind: full, or an increment since a full one.
        bytes: its size.
        at: the time of the state that it holds; that of its name if it can't be read.
        memories: how many memories the store had.
        owner: the id of the store; see `stores.last_export.store_id`.
        since: the time and the hash of an increment's full backup.
        problem: why it is not good, as sentences; empty as far as is known.
        sha256: the hash of its entries, once it has been verified.
    """

    path: str
    kind: Kind
    bytes: int
    at: datetime
    memories: int = 0
    owner: str = ""
    since: tuple[datetime, str] | None = None
    problem: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        """The name of the file."""
        return os.path.basename(self.path)  # noqa: PTH119 - text only

    @property
    def is_encrypted(self) -> bool:
        """Whether it is encrypted."""
        return self.path.endswith(AGE)


@dataclass(slots=True)
class Catalog:
    """The backups of one collection in a folder, the newest first; `load` reads them."""

    context: Context
    folder: str
    backups: list[Backup] = field(default_factory=list)

    def load(self) -> None:
        """Read the beginning of each file.

        Raises:
            UsageError: the folder does not exist.
            PathNotAllowed: it is outside the allowed folders.
        """
        for path, size in self.context.bundle_folders.bundles_in(self.folder):
            self.add(path, size)
        for backup in self.backups:
            if backup.since and not self.base_of(backup):
                backup.problem = "Its full backup is missing or damaged."

    def add(self, path: str, size: int) -> Backup | None:
        """Add a file, if it is a backup of the collection."""
        named = _NAME.fullmatch(os.path.basename(path))  # noqa: PTH119 - text only
        if not named or named["collection"] != self.context.settings.collection:
            return None
        kind: Kind = "full" if named["kind"] == "full" else "increment"
        backup = Backup(path, kind, size, moment_of(named["date"]))
        try:
            if not self._describe(backup):
                return None
        except TribalError as error:
            backup.problem = str(error)
        self.backups.append(backup)
        self.backups.sort(key=lambda one: (one.at, one.path), reverse=True)
        return backup

    def _describe(self, backup: Backup) -> bool:
        """Read the manifest; whether it is one of a backup."""
        limits = self.context.limits
        with self.context.bundle_folders.open_input(
            backup.path, limits.file_bytes, as_it_is=True
        ) as file:
            head = self.context.head(file, "It")
        manifest = BundleReader(head, limits, outcome="").manifest
        mark = manifest.extra.get(MARK)
        if not isinstance(mark, dict):
            return False
        try:
            backup.at = read_date(manifest.exported_at)
            backup.memories, backup.owner = int(mark["memories"]), str(mark["store"])
            if backup.kind == "increment":
                since = read_date(str(manifest.extra[SINCE]))
                backup.since = since, str(manifest.extra["since_sha256"])
        except (KeyError, ValueError) as error:
            raise BundleError(f"Its manifest is not that of a backup ({error!r:.80}).") from None
        return True

    def base_of(self, backup: Backup) -> Backup | None:
        """The full backup of an increment, if it is there and may be good."""
        if backup.since is None:
            return None
        moment = backup.since[0]
        found = (b for b in self.backups if b.kind == "full" and b.at == moment and not b.problem)
        return next(found, None)

    def is_good(self, backup: Backup) -> bool:
        """Whether a backup can be restored: it is verified with its full one, once in a run."""
        if not backup.problem and not backup.sha256:
            with ExitStack() as stack:
                try:
                    self.read(backup, stack, keep=False)
                except TribalError as error:
                    backup.problem = str(error)
        if not backup.problem and backup.since:
            base = self.base_of(backup)
            if base is None or not self.is_good(base):
                backup.problem = "Its full backup is missing or damaged."
            elif base.sha256 != backup.since[1]:
                backup.problem = "It belongs to another full backup of the same time."
        return not backup.problem

    def read(
        self, backup: Backup, stack: ExitStack, *, keep: bool = True
    ) -> tuple[BundleReader, Verified]:
        """Verify a backup, which is open until the stack ends.

        Args:
            backup: which one.
            stack: closes it.
            keep: the content is wanted, not only whether it is good.

        Raises:
            BundleError: it is damaged.
            UsageError: it disappeared.
        """
        context = self.context

        def on_progress(_done: int, _total: int) -> None:
            context.refuse_if_stopped("No backup was removed.")

        limit = context.limits.file_bytes
        file = context.bundle_folders.open_input(backup.path, limit, as_it_is=True)
        file = stack.enter_context(context.plain(file, "It"))
        reader = BundleReader(
            file,
            context.limits,
            outcome="",
            scratch=partial(stack.enter_context, context.spool.scratch(elsewhere=True))
            if keep
            else _Discarded,
        )
        verified = reader.verify(on_progress)
        if verified.rejected_count:
            raise BundleError(f"{verified.rejected_count:,} of its entries can't be read.")
        backup.sha256 = verified.sha256
        return reader, verified


class _Discarded(io.BytesIO):
    """Keeps nothing: a check needs no content."""

    def write(self, data: object, /) -> int:
        return len(data)  # type: ignore[arg-type]
