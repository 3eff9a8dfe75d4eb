"""The folder that replicas share: a subfolder for each, with numbered files named by content.

A replica writes only in its own subfolder, and only whole, new files; something else carries them
to the other machines. What else is in the folder is left alone.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tribal_mcp.errors import UsageError
from tribal_mcp.files.atomic import fsync_directory, fsync_file, naming, open_own, remove_durably
from tribal_mcp.files.failures import failure
from tribal_mcp.portability.replication.records import FILE, REPLICA

ID_BYTES = 8
_PART = ".part"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class ReplicaFile:
    """A file of a replica.

    Attributes:
        replica: its subfolder.
        number: its place among the files of the replica.
        name: its name in the subfolder.
        size: its size in bytes.
        modified_ns: when it was modified.
    """

    replica: str
    number: int
    name: str
    size: int = field(compare=False, default=0)
    modified_ns: int = field(compare=False, default=0)

    @property
    def path(self) -> str:
        """Its path below the shared folder."""
        return f"{self.replica}/{self.name}"

    @property
    def identity(self) -> tuple[int, int]:
        """Its size and time, which change with its content."""
        return self.size, self.modified_ns

    @property
    def encrypted(self) -> bool:
        """Whether its name says that it is encrypted."""
        return self.name.endswith(".age")


@dataclass(slots=True)
class Listing:
    """What is in a shared folder.

    Attributes:
        files: the files of all replicas, by path.
        others: paths of further files in the subfolders, such as copies that a carrier made.
        elsewhere: other subfolders that hold files or subfolders of replicas.
    """

    files: dict[str, ReplicaFile] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def newest(self) -> dict[str, ReplicaFile]:
        """The last file of each replica."""
        return {file.replica: file for file in sorted(self.files.values())}


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """The folder that replicas share."""

    path: Path

    @contextmanager
    def explained(self, outcome: str = "Nothing was changed.") -> Iterator[None]:
        """Raises failures on its files as errors for users."""
        try:
            yield
        except FileNotFoundError as error:
            if self.path.is_dir():
                name = os.fsdecode(error.filename or self.path)
                raise UsageError(f"{name!r:.300} has disappeared. {outcome} Try again.") from error
            raise UsageError(
                f"The folder {str(self.path)!r} does not exist. {outcome} Create it, or check the "
                "path and that the disk is connected."
            ) from error
        except NotADirectoryError as error:
            raise UsageError(
                f"{str(self.path)!r:.300} is a file. {outcome} Name the folder that the machines "
                "share."
            ) from error
        except OSError as error:
            name = os.fsdecode(error.filename or self.path)
            raise failure(error, f"{name!r:.300}", outcome, refused=UsageError) from error

    def listing(self) -> Listing:
        """What is there now, without what disappears meanwhile."""
        found = Listing()
        with self.explained():
            for folder in _entries(self.path):
                if folder.name.startswith(".") or not folder.is_dir(follow_symlinks=False):
                    continue
                if not REPLICA.fullmatch(folder.name):
                    with suppress(OSError):  # it is somebody else's, and may not be readable
                        if any(_looks_like_ours(entry.name) for entry in _entries(folder.path)):
                            found.elsewhere.append(folder.name)
                    continue
                with suppress(FileNotFoundError):
                    for entry in _entries(folder.path):
                        with suppress(FileNotFoundError):
                            self._add(found, folder.name, entry)
        return found

    def _add(self, found: Listing, replica: str, entry: os.DirEntry[str]) -> None:
        match = FILE.fullmatch(entry.name)
        if match and entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            number = int(match[1])
            file = ReplicaFile(replica, number, entry.name, status.st_size, status.st_mtime_ns)
            found.files[file.path] = file
        elif not entry.name.startswith("."):
            found.others.append(f"{replica}/{entry.name}")

    def verified(self, file: ReplicaFile) -> BinaryIO | None:
        """Open a file whose content is what its name says; None if it is not."""
        with naming(self.path / file.path):
            opened = open_own(self.path / file.path, "rb")
            digest = _digest(opened)
        if FILE.fullmatch(file.name)[2] != digest:  # type: ignore[index] # it is one of ours
            opened.close()
            return None
        opened.seek(0)
        return opened

    def is_intact(self, file: ReplicaFile) -> bool:
        """Whether the content of a file is what its name says."""
        opened = self.verified(file)
        if opened is None:
            return False
        opened.close()
        return True

    @contextmanager
    def new_file(self, replica: str) -> Iterator["NewFile"]:
        """A new file of a replica, which appears when it is published."""
        folder = self.path / replica
        part = folder / f".{secrets.token_hex(ID_BYTES)}{_PART}"  # a carrier may put back another
        with self.explained("No further file was published."):
            if not folder.is_dir():
                folder.mkdir()
                fsync_directory(self.path)
            for left in folder.glob(f".*{_PART}"):
                left.unlink(missing_ok=True)
            try:
                with naming(part), open_own(part, "w+b") as file:
                    yield NewFile(folder, file)
            finally:
                with suppress(OSError):
                    part.unlink()

    def remove(self, file: ReplicaFile) -> None:
        """Remove a file."""
        remove_durably(self.path / file.path)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is being written.

    Attributes:
        folder: the subfolder of its replica.
        file: to write to.
    """

    folder: Path
    file: BinaryIO

    def name(self, number: int, *, encrypted: bool) -> str:
        """The name of the complete content, which is on the disk from then on."""
        self.file.flush()
        fsync_file(self.file.fileno())
        self.file.seek(0)
        return f"{number:08}-{_digest(self.file)}.jsonl.zst{'.age' * encrypted}"

    def publish(self, name: str) -> ReplicaFile:
        """Give the file its name.

        Raises:
            UsageError: something has replaced it meanwhile, such as by an older copy.
        """
        path = self.folder / name
        Path(self.file.name).replace(path)
        fsync_directory(self.folder)
        with open_own(path, "rb") as content:
            is_this = _digest(content) in name
        if not is_this:
            remove_durably(path)
            raise UsageError(
                f"Another program replaced {str(path)!r:.300} while it was written. No further "
                "file was published. Try again."
            )
        status = path.stat()
        number = int(name.partition("-")[0])
        return ReplicaFile(self.folder.name, number, name, status.st_size, status.st_mtime_ns)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda one: one.name)


def _looks_like_ours(name: str) -> bool:
    return bool(REPLICA.fullmatch(name.lower()) or FILE.fullmatch(name.lower()))


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()[:16]
