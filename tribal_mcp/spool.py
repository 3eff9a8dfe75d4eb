"""Private files on their way: a body that came in, an answer that goes out, what a bundle held.

They lie in a folder of our own, beside the store, so that memory stays flat, and a door and its
store process share them by name. Each is locked for as long as whoever made it has it open, and
gone afterwards; what a killed process left is removed by the next that comes.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tribal_mcp.errors import StoreError, TribalError
from tribal_mcp.files import make_private
from tribal_mcp.open_folder import Draft, OpenFolder, in_words

_NAME = re.compile(r"\.tribal-[0-9a-f]{16}\.part")
_SHOWN = "a file on its way, below TRIBAL_DATA_DIR"


@dataclass(frozen=True, slots=True)
class Passing:
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
    def new(self) -> Iterator[Passing]:
        """A new file, readable by its owner alone, which is gone at the end.

        Raises:
            NoSpace: the disk is full.
        """
        with self._folder() as folder:
            with in_words(_SHOWN):
                name, draft = folder.new_part(_SHOWN)
            try:
                yield Passing(name, draft)
            finally:
                with suppress(OSError, TribalError):
                    draft.close()
                with suppress(OSError):
                    folder.unlink(name)

    @contextmanager
    def scratch(self) -> Iterator[BinaryIO]:
        """A new file to write and to read again, without a name: nothing is left of it at the end.

        Raises:
            NoSpace: the disk is full; so does writing to it.
        """
        with self.new() as passing:
            with suppress(OSError):  # Windows keeps the name until the end
                (self._path / passing.name).unlink()
            raw = passing.draft.raw
            assert isinstance(raw, io.RawIOBase)  # noqa: S101 - as its folder makes it
            file = io.BufferedRandom(raw)
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
        draft.path = self._path / name
        with draft:
            yield draft

    @contextmanager
    def _folder(self) -> Iterator[OpenFolder]:
        with in_words(_SHOWN):
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


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError("That is not the name of a file on its way to the store.")
    return name
