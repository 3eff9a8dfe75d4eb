"""Spool files: temporary files for request bodies, responses and the contents of bundles.

They keep memory use constant, and an interface and its store process share them by name. They are
in a private folder beside the store. Each is locked while the process that created it has it open,
and removed afterwards. What a killed process left is removed by `sweep`.
"""

import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tribal_mcp.errors import NoSpace, PathNotAllowed, StoreError, TribalError, UsageError
from tribal_mcp.files.atomic import make_private
from tribal_mcp.files.directory import Draft, OpenFolder, explaining

_NAME = re.compile(r"\.tribal-[0-9a-f]{16}\.part")
_SHOWN = "A spool file below TRIBAL_DATA_DIR"
_SHOWN_ELSEWHERE = "A spool file in the temporary folder (TMPDIR)"
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A spool file: write to `draft`; other processes open it by `name`."""

    name: str
    draft: Draft

    def size(self) -> int:
        """Its size in bytes, including what other processes wrote."""
        return os.fstat(self.draft.fileno()).st_size

    def reader(self) -> BinaryIO:
        """The same file, open for reading."""
        self.draft.flush()
        return os.fdopen(os.dup(self.draft.fileno()), "rb")


class Spool:
    """The spool files beside a store.

    Args:
        data_dir: the data folder; the private folder is created below it when it is first needed.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "tribal-mcp" / "passing"

    def sweep(self) -> None:
        """Remove the spool files of killed processes."""
        with self._folder() as folder:
            folder.sweep()

    @contextmanager
    def new(self) -> Iterator[SpoolFile]:
        """A new file, readable only by its owner, and removed at the end of the block.

        Raises:
            NoSpace: the disk is full.
        """
        with self._folder() as folder, _new(folder, _SHOWN) as spooled:
            yield spooled

    @contextmanager
    def scratch(self, *, elsewhere: bool = False) -> Iterator[BinaryIO]:
        """A new file without a name, to write and to read again; removed at the end of the block.

        Args:
            elsewhere: create nothing below the data folder. If the private folder does not exist or
                is not writable, the file is in the system's temporary folder.

        Raises:
            NoSpace: the disk is full or nearly full. Writing to the file raises it too.
        """
        with ExitStack() as stack:
            try:
                folder, shown = stack.enter_context(self._folder(make=not elsewhere)), _SHOWN
                spooled = stack.enter_context(_new(folder, shown))
            except (PathNotAllowed, UsageError):
                if not elsewhere:
                    raise
                temporary = _temporary_folder()
                with explaining(_SHOWN_ELSEWHERE):
                    folder, shown = OpenFolder(temporary, temporary), _SHOWN_ELSEWHERE
                stack.callback(folder.close)
                spooled = stack.enter_context(_new(folder, shown))
            with suppress(OSError):  # the folder may have been removed meanwhile
                folder.unlink(spooled.name)
            file = _Scratch(spooled.draft.raw, shown)
            try:
                yield file
            finally:
                with suppress(OSError, TribalError):
                    file.close()

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """A file of another process, open for reading."""
        with self._folder() as folder, explaining(_SHOWN), self._missing():
            file = folder.open_file(_checked(name), _SHOWN, one_name=False)
        with file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[Draft]:
        """A file of another process, open for writing."""
        with self._folder() as folder, explaining(_SHOWN), self._missing():
            draft = folder.open_part(_checked(name), _SHOWN)
        draft.raw.early = False  # type: ignore[attr-defined]  # read back soon, then removed
        draft.path = self._path / name
        with draft:
            yield draft

    @contextmanager
    def _folder(self, *, make: bool = True) -> Iterator[OpenFolder]:
        with explaining(_SHOWN):
            if make:
                make_private(self._path)
            folder = OpenFolder(self._path, self._path)
        try:
            yield folder
        finally:
            folder.close()

    @staticmethod
    @contextmanager
    def _missing() -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(
                "A spool file disappeared before it was read. Nothing was changed. Try again."
            ) from error


class _Scratch(io.BufferedRandom):
    """Leaves some space on the disk for the store."""

    def __init__(self, raw: Any, shown: str) -> None:  # noqa: ANN401 - a raw draft
        self._shown = shown
        super().__init__(raw)

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]  # only bytes are written
        if _free_bytes(self.fileno()) < _SPARE_BYTES + len(data):
            raise NoSpace(
                f"{self._shown} can't be written: less than "
                f"{_SPARE_BYTES >> 20} MiB of the disk would stay free. Nothing was changed. Free "
                "some space."
            )
        return super().write(data)


@contextmanager
def _new(folder: OpenFolder, shown: str) -> Iterator[SpoolFile]:
    with explaining(shown):
        name, draft = folder.new_part(shown)
    draft.raw.early = False  # type: ignore[attr-defined]  # read back soon, then removed
    try:
        yield SpoolFile(name, draft)
    finally:
        with suppress(OSError, TribalError):
            draft.close()
        with suppress(OSError):
            folder.unlink(name)


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir()).resolve()
    except OSError as error:
        raise NoSpace(
            "A large bundle needs a writable temporary folder, and there is none. "
            "Nothing was changed. Free some space, or set TMPDIR to another folder."
        ) from error


def _free_bytes(descriptor: int) -> int:
    """The free space on the disk of an open file, whose folder may have been removed."""
    disk = os.fstatvfs(descriptor)
    return disk.f_bavail * disk.f_frsize


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError("That is not the name of a spool file.")
    return name
