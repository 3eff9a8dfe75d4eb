"""Private files on their way: a body that came in, an answer that goes out, what a bundle held.

They lie in a folder of our own, beside the store, so that memory stays flat, and a door and its
store process share them by name. Each is locked for as long as whoever made it has it open, and
gone afterwards; what a killed process left is removed by the next that comes.
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
from tribal_mcp.files.directory import Draft, OpenFolder, in_words

_NAME = re.compile(r"\.tribal-[0-9a-f]{16}\.part")
_SHOWN = "a file on its way, below TRIBAL_DATA_DIR"
_SHOWN_ELSEWHERE = "a file on its way, in the temporary folder (TMPDIR)"
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool: write to `draft`, and hand on its `name`."""

    name: str
    draft: Draft

    def size(self) -> int:
        """Its bytes, those of other processes too."""
        return os.fstat(self.draft.fileno()).st_size

    def reader(self) -> BinaryIO:
        """The same file, open for reading."""
        self.draft.flush()
        return os.fdopen(os.dup(self.draft.fileno()), "rb")


class Spool:
    """The passing files beside a store.

    Args:
        data_dir: the store's folder; ours is made below it when it is first needed.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "tribal-mcp" / "passing"

    def sweep(self) -> None:
        """Remove what killed processes left."""
        with self._folder() as folder:
            folder.sweep()

    @contextmanager
    def new(self) -> Iterator[SpoolFile]:
        """A new file, readable by its owner alone, which is gone at the end.

        Raises:
            NoSpace: the disk is full.
        """
        with self._folder() as folder, _new(folder, _SHOWN) as passing:
            yield passing

    @contextmanager
    def scratch(self, *, elsewhere: bool = False) -> Iterator[BinaryIO]:
        """A new file to write and to read again, without a name: nothing is left of it at the end.

        Args:
            elsewhere: nothing is to be made below the data folder for it. Where our own folder is
                not there, or may not be written to, it lies in the system's temporary folder.

        Raises:
            NoSpace: the disk is full, or nearly so; so does writing to it.
        """
        with ExitStack() as stack:
            try:
                folder, shown = stack.enter_context(self._folder(make=not elsewhere)), _SHOWN
                passing = stack.enter_context(_new(folder, shown))
            except (PathNotAllowed, UsageError):
                if not elsewhere:
                    raise
                place = _temporary_folder()
                with in_words(_SHOWN_ELSEWHERE):
                    folder, shown = OpenFolder(place, place), _SHOWN_ELSEWHERE
                stack.callback(folder.close)
                passing = stack.enter_context(_new(folder, shown))
            with suppress(OSError):  # the folder may have been removed meanwhile
                folder.unlink(passing.name)
            file = _Scratch(passing.draft.raw, shown)
            try:
                yield file
            finally:
                with suppress(OSError, TribalError):
                    file.close()

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """A file that another process has made, to read from."""
        with self._folder() as folder, self._missing():
            file = folder.open_file(_checked(name), _SHOWN, one_name=False)
        with file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[Draft]:
        """A file that another process has made, to write to."""
        with self._folder() as folder, self._missing():
            draft = folder.open_part(_checked(name), _SHOWN)
        draft.raw.early = False  # type: ignore[attr-defined]  # read back soon, and then gone
        draft.path = self._path / name
        with draft:
            yield draft

    @contextmanager
    def _folder(self, *, make: bool = True) -> Iterator[OpenFolder]:
        with in_words(_SHOWN):
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
        except OSError as error:
            raise StoreError(
                "A file on its way to the store is gone. Nothing was changed. Run the same again."
            ) from error


class _Scratch(io.BufferedRandom):
    """Leaves room on the disk: the store there is worth more than what is kept of a bundle."""

    def __init__(self, raw: Any, shown: str) -> None:  # noqa: ANN401 - a raw draft
        self._shown = shown
        super().__init__(raw)

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]  # all that is asked
        if _free_bytes(self.fileno()) < _SPARE_BYTES + len(data):
            raise NoSpace(
                f"There is no room to write {self._shown}: what is kept of a large bundle would "
                f"leave less than {_SPARE_BYTES >> 20} MiB free. Nothing was changed. Free some "
                "space."
            )
        return super().write(data)


@contextmanager
def _new(folder: OpenFolder, shown: str) -> Iterator[SpoolFile]:
    with in_words(shown):
        name, draft = folder.new_part(shown)
    draft.raw.early = False  # type: ignore[attr-defined]  # read back soon, and then gone
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
            "There is no temporary folder that can be written to, to keep what is read of a large "
            "bundle. Nothing was changed. Make space, or set TMPDIR to another folder."
        ) from error


def _free_bytes(descriptor: int) -> int:
    """What is free on the disk of an open file, whose folder need not be there any more."""
    disk = os.fstatvfs(descriptor)
    return disk.f_bavail * disk.f_frsize


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError("That is not the name of a file on its way to the store.")
    return name
