"""Zip and tar archives as origins: with bounded expansion, and no name leads out of them.

A zip archive and an uncompressed tar archive are read in place; a compressed tar archive is
decompressed to a private file first.
"""

import io
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from tribal_mcp.errors import BundleError
from tribal_mcp.files.origins import NOT_CONTENT, FileOrigin, Origin
from tribal_mcp.portability.bundle.compression import decompressed
from tribal_mcp.portability.limits import MIB, Limits
from tribal_mcp.text import counted

_FREE_BYTES = 16 * MIB
_UTF8_NAME = 0x800
_ZIP_ERRORS = (
    zipfile.BadZipFile, ValueError, OSError, RuntimeError, NotImplementedError, struct.error,
)  # fmt: skip
"""What `zipfile` raises for damaged, encrypted or unknown archives."""
_TAR_ERRORS = (tarfile.TarError, ValueError, OSError, EOFError, OverflowError)
"""What `tarfile` raises for damaged archives."""
_TAR_MAGIC = slice(257, 262), b"ustar"


class _Archive:
    """An archive. A single folder that holds everything else is left out of its paths.

    Args:
        name: its name.
        file: the archive.
        limits: the limits of what is read.
        kind: what messages call it.
        listed: the path of each of its files, or None if it must not be read; the size; the member.
    """

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        limits: Limits,
        kind: str,
        listed: Iterable[tuple[str | None, int, Any]],
    ) -> None:
        self.name = name
        self.parent = ""
        self.limits = limits
        self.notes: list[str] = []
        self._file = file
        found: dict[str, tuple[int, Any]] = {}
        left = total = 0
        for path, size, member in listed:
            if path is None:
                left += 1
                continue
            if path in found:
                raise BundleError(f"The {kind} archive {name!r:.80} has {path!r:.80} twice.")
            total += size
            if total > limits.file_bytes:
                raise _too_large(kind, name, limits)
            found[path] = size, member
        if left:
            members = counted(left, "member was", "members were")
            self.notes.append(
                f"{members} not read in {name!r:.80}: links, and names that lead out or can't be "
                "printed."
            )
        tops = {path.split("/", 1)[0] for path in found if "/" in path}
        if len(tops) == 1 and all("/" in path for path in found):
            found = {path.split("/", 1)[1]: member for path, member in found.items()}
        self._members = found

    def paths(self) -> Sequence[str]:
        """The paths of its members."""
        return sorted(self._members)

    def size(self, path: str) -> int:
        """The size of a member in bytes, as the archive says."""
        return self._members[path][0]

    def close(self) -> None:
        """Close the archive."""
        self._file.close()


class ZipOrigin(_Archive):
    """A zip archive, read in place."""

    def __init__(self, name: str, file: BinaryIO, limits: Limits) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise BundleError(f"The zip archive {name!r:.80} is damaged: {error}.") from None
        listed = [(_zip_path(info), info.file_size, info) for info in self._zip.infolist()]
        is_content = [one for one in listed if not one[2].is_dir() and not _is_junk(one[0])]
        super().__init__(name, file, limits, "zip", is_content)

    def open(self, path: str) -> BinaryIO:
        """One of its members, decompressed."""
        size, info = self._members[path]
        if size > _FREE_BYTES + self.limits.expansion_ratio * info.compress_size:
            raise BundleError(
                f"{path!r:.80} in the archive expands to more than {self.limits.expansion_ratio:,} "
                "times its size (TRIBAL_LIMIT_EXPANSION_RATIO)."
            )
        try:
            return decompressed(_Member(self._zip.open(info), path), self.limits)
        except _ZIP_ERRORS as error:
            raise BundleError(f"{path!r:.80} in the archive can't be read: {error}.") from None

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()
        super().close()


class TarOrigin(_Archive):
    """A tar archive, read in place.

    Args:
        file: the archive, uncompressed.
    """

    def __init__(self, name: str, file: BinaryIO, limits: Limits) -> None:
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:", errorlevel=0)  # noqa: SIM115 - see `close`
            listed = [
                (_tar_path(info), info.size, info)
                for info in self._tar
                if not info.isdir() and not _is_junk(info.name)
            ]
        except _TAR_ERRORS as error:
            raise BundleError(f"The tar archive {name!r:.80} is damaged: {error}.") from None
        super().__init__(name, file, limits, "tar", listed)

    def open(self, path: str) -> BinaryIO:
        """One of its members, decompressed."""
        return decompressed(
            _Member(self._tar.extractfile(self._members[path][1]), path), self.limits
        )


class UnpackedOrigin:
    """An origin with the members of zip archives in it, one level deep: "a.zip/member".

    Args:
        origin: the origin; it stays open.
        archives: the paths of the archives.

    Raises:
        BundleError: an archive is damaged, or they hold more than the limits allow.
    """

    def __init__(self, origin: Origin, archives: Sequence[str]) -> None:
        self.name = origin.name
        self.parent = origin.parent
        self.limits = origin.limits
        self.notes = origin.notes
        self._places: dict[str, tuple[Origin, str]] = {
            path: (origin, path) for path in origin.paths() if path not in archives
        }
        self._archives: list[ZipOrigin] = []
        for path in archives:
            file = _in_a_file(origin.open(path))
            try:
                archive = ZipOrigin(path, file, self.limits)
            except BundleError:
                file.close()
                self.close()
                raise
            self._archives.append(archive)
            self._places.update({f"{path}/{m}": (archive, m) for m in archive.paths()})
        total = sum(one.size(m) for one in self._archives for m in one.paths())
        if total > self.limits.file_bytes:
            raise BundleError(
                f"The archives in {self.name!r:.80} hold {total:,} bytes, and the limit is "
                f"{self.limits.file_bytes:,} (TRIBAL_LIMIT_FILE_BYTES)."
            )

    def paths(self) -> Sequence[str]:
        """The paths of files and members."""
        return sorted(self._places)

    def open(self, path: str) -> BinaryIO:
        """A file or a member, decompressed."""
        origin, inside = self._places[path]
        return origin.open(inside)

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives:
            archive.close()


def _in_a_file(file: BinaryIO) -> BinaryIO:
    """The file itself, or a private copy of a member, in which one can go back and forth."""
    if not isinstance(file, _Member):
        return file
    copy = TemporaryFile()  # noqa: SIM115 - the caller closes it
    with file:
        shutil.copyfileobj(file, copy, MIB)
    return copy


class _Member(io.BufferedReader):
    """A member of an archive, which reports damage in words."""

    def __init__(self, member: Any, path: str) -> None:  # noqa: ANN401 - zipfile.ZipExtFile
        super().__init__(_RawMember(member, path), 1 << 18)


class _RawMember(io.RawIOBase):
    def __init__(self, member: Any, path: str) -> None:  # noqa: ANN401 - zipfile.ZipExtFile
        self._member = member
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._member.seek(offset, whence))

    def tell(self) -> int:
        return int(self._member.tell())

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - as RawIOBase takes it
        try:
            data = self._member.read(len(buffer))
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            problem = str(error) or "it is truncated"
            raise BundleError(f"{self._path!r:.80} in the archive is damaged: {problem}.") from None
        except Exception as error:
            if type(error).__module__ not in {"zlib", "lzma", "_lzma"}:
                raise
            raise BundleError(f"{self._path!r:.80} in the archive is damaged: {error}.") from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._member.close()
        super().close()


def _zip_path(info: zipfile.ZipInfo) -> str | None:
    if stat.S_ISLNK(info.external_attr >> 16):
        return None
    name = info.filename
    if not info.flag_bits & _UTF8_NAME:  # many programs write UTF-8 without saying so
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return _member_path(name.replace("\\", "/"))


def _tar_path(info: tarfile.TarInfo) -> str | None:
    return _member_path(info.name) if info.isreg() and info.size >= 0 else None


def _member_path(name: str) -> str | None:
    """The path of a member; None if it leads out of the archive, or can't be printed."""
    name = unicodedata.normalize("NFC", name)
    parts = PurePosixPath(name).parts
    if not parts or not name.isprintable():
        return None
    if name.startswith("/") or ".." in parts or ":" in parts[0]:
        return None
    return "/".join(parts)


def _is_junk(path: str | None) -> bool:
    return path is not None and any(
        part in NOT_CONTENT or part == ".DS_Store" or part.startswith("._")
        for part in path.split("/")
    )


def origin_of_file(
    name: str, file: BinaryIO, limits: Limits, wal: BinaryIO | None = None
) -> Origin:
    """The origin of an open file: the archive in it, or the file itself."""
    magic = file.read(4)
    file.seek(0)
    try:
        if magic in (b"PK\x03\x04", b"PK\x05\x06"):
            origin: Origin = ZipOrigin(name, file, limits)
        elif (tar := _tar_in(name, file, limits)) is not None:
            origin = TarOrigin(name, tar, limits)
        else:
            return FileOrigin(name, file, limits, wal)
    except BundleError:
        file.close()
        raise
    if wal:
        wal.close()
    return origin


def _tar_in(name: str, file: BinaryIO, limits: Limits) -> BinaryIO | None:
    """The tar archive in a file, uncompressed; None if it has none."""
    where, magic = _TAR_MAGIC
    content = decompressed(file, limits)
    try:
        is_tar = content.read(where.stop)[where] == magic
    except BundleError:  # damaged: its reader says so
        is_tar = False
    file.seek(0)
    if not is_tar or content is file:
        return file if is_tar else None
    with ExitStack() as stack:
        plain = stack.enter_context(TemporaryFile())
        copied = decompressed(file, limits)
        while chunk := copied.read(MIB):
            plain.write(chunk)
            if plain.tell() > limits.file_bytes:
                raise _too_large("tar", name, limits)
        stack.pop_all()
    plain.seek(0)
    file.close()
    return plain


def _too_large(kind: str, name: str, limits: Limits) -> BundleError:
    return BundleError(
        f"The {kind} archive {name!r:.80} holds more than {limits.file_bytes:,} bytes, which is "
        "the limit (TRIBAL_LIMIT_FILE_BYTES)."
    )
