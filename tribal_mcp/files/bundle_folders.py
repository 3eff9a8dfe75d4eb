"""Opening bundles by path. Nothing else opens a path that a user or a model names.

A path is resolved, must be in an allowed folder, and is then walked from that folder one component
at a time without following links: what was checked is what is opened, even if somebody swaps a link
meanwhile. Kind and size are read from the open file. A new bundle is written beside its final name
and appears under it completely or not at all. No message shows more of the file system than the
path as the caller gave it. One file, though long: a check belongs to the opening that needs it.
"""

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from tribal_mcp.errors import (
    BundleError,
    PathNotAllowed,
    StoreLocked,
    TribalError,
    UsageError,
)
from tribal_mcp.files.archives import origin_of_file
from tribal_mcp.files.atomic import fsync_file, make_private
from tribal_mcp.files.directory import Draft, OpenFolder, check_kind, explaining, name_taken
from tribal_mcp.files.encryption import AGE
from tribal_mcp.files.origins import FolderOrigin, Origin
from tribal_mcp.files.published_folders import FolderKind, Published, publish_into
from tribal_mcp.portability.limits import Limits

SUFFIXES = tuple(
    kind + packed + encrypted
    for encrypted in ("", AGE)
    for kind in (".json", ".jsonl")
    for packed in ("", ".gz", ".zst")
)
_PATH_BYTES = 4096
_MAX_LINKS = 40  # the limit of Linux
_SHOWN_CHARS = 200
_NOT_SYNCED = "The bundle was written, but a power cut may still undo that."


@dataclass(frozen=True, slots=True)
class _Target:
    """A file in an allowed folder, which is open."""

    folder: OpenFolder
    name: str
    shown: str
    """The path for messages."""
    one_name: bool
    """It must not have other hard links."""
    kind: str = "a bundle"
    """What it must be to be overwritten."""

    def open(self) -> BinaryIO:
        """Open it for reading."""
        return self.folder.open_file(self.name, self.shown, one_name=self.one_name)

    def check_overwrite(self, is_bundle: Callable[[BinaryIO], bool], *, overwrite: bool) -> bool:
        """Whether it exists, and may be overwritten.

        Raises:
            UsageError: it exists, and `overwrite` is false.
            PathNotAllowed: it exists, and is something else.
        """
        try:
            check_kind(self.folder.stat(self.name), self.shown)
        except FileNotFoundError:
            return False
        if not overwrite:
            raise name_taken(self.shown)
        with self.open() as earlier:
            if is_bundle(earlier):
                return True
        raise PathNotAllowed(
            f"Refusing to overwrite {self.shown}: it is not {self.kind}. Choose another name."
        )


class BundleFolders:
    """The folders that bundles may be read from and written to.

    A relative path starts at the working directory if that is in an allowed folder, else at the
    default folder. `~` and `~user` are expanded. Hidden files and folders are refused.
    """

    def __init__(
        self,
        allowed: Sequence[Path],
        default: Path,
        plain: Callable[[BinaryIO, str], BinaryIO] | None = None,
    ) -> None:
        """Resolve the folders now; a link that replaces one of them later is not followed.

        Args:
            allowed: the folders, including everything below them. If empty, every path is refused.
            default: the folder for bundles given by name only; one of `allowed`. Created if needed.
            plain: gives the content of an open file that may be encrypted; its path for messages
                is the second argument. Without it every file is read as it is.
        """
        self._roots = tuple(_resolved(path, _shown(str(path))) for path in allowed)
        self._restricted = True
        self._plain = plain or (lambda file, _shown: file)
        self.default = _resolved(default, _shown(str(default)))

    @classmethod
    def anywhere(
        cls, default: Path, plain: Callable[[BinaryIO, str], BinaryIO] | None = None
    ) -> Self:
        """For paths that a person gives: every folder, hidden files and hard links are allowed."""
        folders = cls((), default, plain)
        folders._restricted = False
        return folders

    def open_input(self, path_text: str, limit_bytes: int, *, as_it_is: bool = False) -> BinaryIO:
        """Open a bundle for reading: its content, or with `as_it_is` an encrypted file itself.

        Raises:
            UsageError: it does not exist, or the path is not valid.
            PathNotAllowed: it is outside the allowed folders, hidden, a link or not a regular file.
            BundleError: it is larger than `limit_bytes`, or it is encrypted and damaged.
        """
        shown = _shown(path_text)
        file = self._open(path_text, shown, limit_bytes)
        return file if as_it_is else self._plain(file, shown)

    def open_origin(self, path_text: str, limits: Limits) -> Origin:
        """Open what an import reads: a file of any kind, a zip or tar archive, or a folder.

        Raises:
            UsageError: it does not exist, or the path is not valid.
            PathNotAllowed: it is outside the allowed folders, hidden or a link.
            BundleError: it is larger than the limits, or a damaged archive.
        """
        shown = _shown(path_text)
        text = self._of_folder(path_text, shown)
        with self._parent(text, shown) as (folder, base, name), explaining(shown):
            if stat.S_ISDIR(folder.stat(name).st_mode):
                path = folder.path / name
                everything = not self._restricted
                return FolderOrigin(base, path, name, limits, everything, self._restricted)
            file = self._checked_size(
                folder.open_file(name, shown, one_name=self._restricted), shown, limits.file_bytes
            )
            wal = None
            with suppress(FileNotFoundError):
                wal = folder.open_file(f"{name}-wal", shown, one_name=self._restricted)
            content = self._plain(file, shown)
            shorter = name if content is file else name.removesuffix(AGE)
            return origin_of_file(shorter, content, limits, wal)

    def open_named(self, name: str, limit_bytes: int) -> BinaryIO:
        """Open a bundle in the default folder by its name; raises what `open_input` does."""
        if "/" in name or "\\" in name:
            raise PathNotAllowed(f"{_shown(name)} is a path. Give only the name of a bundle.")
        shown = _shown(name)
        return self._plain(self._open(str(self.default / name), shown, limit_bytes), shown)

    def open_path_or_name(self, text: str, limit_bytes: int) -> BinaryIO:
        """Open a bundle by its path, or by its name in the default folder; see `open_input`."""
        try:
            return self.open_input(text, limit_bytes)
        except UsageError:
            if text not in self.names():
                raise
        return self.open_named(text, limit_bytes)

    def names(self) -> list[str]:
        """The names of the bundles in the default folder, sorted."""
        return sorted(entry.name for entry in _bundles_in(self.default))

    def files(self) -> list[tuple[Path, os.stat_result]]:
        """The files directly in the allowed folders that have a bundle's suffix."""
        found = []
        for folder in {self.default, *self._roots}:
            for entry in _bundles_in(folder):
                with suppress(FileNotFoundError):  # it was deleted meanwhile
                    found.append((folder / entry.name, entry.stat(follow_symlinks=False)))
        return found

    def bundles_in(self, folder_text: str) -> list[tuple[str, int]]:
        """The paths and sizes of the bundles directly in a folder, sorted by name.

        Raises:
            UsageError: the folder does not exist.
            PathNotAllowed: it is outside the allowed folders, hidden or not a folder.
        """
        with self._folder(folder_text) as folder:
            names = sorted(name for name in folder.names() if name.lower().endswith(SUFFIXES))
            found = [(os.fspath(folder.path / name), folder.stat(name)) for name in names]
        return [(path, status.st_size) for path, status in found if stat.S_ISREG(status.st_mode)]

    @contextmanager
    def locked(self, folder_text: str) -> Iterator[None]:
        """Keep other processes from this block for the same folder; raises what `bundles_in` does.

        Raises:
            StoreLocked: another process is in it.
        """
        with self._folder(folder_text) as folder:
            if not folder.lock():
                raise StoreLocked(
                    f"Another process is writing to {_shown(folder_text)}. Nothing was changed. "
                    "Try again when it is done."
                )
            yield

    def remove(self, path_text: str) -> None:
        """Remove a bundle, durably; raises what `open_input` does."""
        shown = _shown(path_text)
        with self._target(path_text, shown) as target, explaining(shown, "It was not removed."):
            target.folder.unlink(target.name)
            target.folder.sync()

    @contextmanager
    def publish(
        self,
        path_text: str,
        *,
        overwrite: bool,
        is_bundle: Callable[[BinaryIO], bool],
        numbered: bool = False,
        suffixes: Sequence[str] = SUFFIXES,
        kind: str = "a bundle",
    ) -> Iterator[Draft]:
        """A file to write to, which gets its name at the end of the block; removed on failure.

        Args:
            path_text: the final path. Its folder must exist, unless it is the default folder.
            overwrite: replace an existing bundle.
            is_bundle: whether an existing file, open at its start, is a bundle; does not raise.
            numbered: add -2, -3 and so on to a name that is taken; nothing is overwritten then.
            suffixes: those of which the name must have one.
            kind: what `is_bundle` looks for, if it is no bundle.

        Raises:
            UsageError: the name is taken, the folder is missing, or the path is not valid.
            PathNotAllowed: as for `open_input`; or the existing file is not a bundle.
            NoSpace: the disk is full. As after every failure, an existing file is unchanged.
        """
        with self._target(path_text, _shown(path_text), suffixes, kind, create=True) as target:
            folder = target.folder
            with explaining(target.shown):
                if not numbered:
                    target.check_overwrite(is_bundle, overwrite=overwrite)
                folder.sweep()
                part, draft = folder.new_part(target.shown)
            draft.path = folder.path / target.name
            try:
                yield draft
                with explaining(target.shown):
                    draft.flush()
                    fsync_file(draft.fileno())
                    # Checked again, as an export may take minutes.
                    if not numbered and target.check_overwrite(is_bundle, overwrite=overwrite):
                        folder.replace(part, target.name)
                    else:
                        name = target.name
                        names = _numbered(name, suffixes) if numbered else (name,)
                        name = folder.link_first_free(part, names, target.shown)
                        draft.path = folder.path / name
                with explaining(target.shown, _NOT_SYNCED):
                    folder.sync()
            finally:
                with suppress(OSError, TribalError):
                    draft.close()
                with suppress(OSError):
                    folder.unlink(part)

    def publish_folder(
        self,
        path_text: str,
        kind: FolderKind,
        files: Iterable[tuple[str, bytes]],
        *,
        overwrite: bool = False,
        allow_smaller: bool = False,
    ) -> tuple[Path, Published]:
        """Make a folder hold these files; see `publish_into`. It is created if it is missing.

        Args:
            path_text: its path; the folder above it must exist, unless that is the default folder.
            kind: how to tell what its files are.
            files: the relative path of each, with `/`, and its content.
            overwrite: discard what was edited since the last export.
            allow_smaller: also replace an export that had many more files.

        Returns:
            Its path, and what was done.

        Raises:
            UsageError, PathNotAllowed, NoSpace: as for `publish` and `publish_into`.
        """
        shown = _shown(path_text)
        text = self._of_folder(path_text, shown)
        with self._parent(text, shown, create=True) as (folder, base, name):
            with explaining(shown):
                is_new = folder.make_folder(name)
                target = OpenFolder(base, folder.path / name)
            try:
                with closing(target):
                    done = publish_into(
                        target.descriptor,
                        shown,
                        kind,
                        files,
                        overwrite=overwrite,
                        allow_smaller=allow_smaller,
                    )
            except BaseException:
                with suppress(OSError):
                    if is_new:
                        folder.remove_folder(name)
                raise
            return folder.path / name, done

    def _of_folder(self, text: str, shown: str) -> str:
        """The path of a folder such that its last component is a name."""
        text = text.rstrip("/") or text
        if text.rpartition("/")[2] not in {".", ".."}:
            return text
        return os.fspath(_resolved(self._start() / text, shown))

    def _open(self, text: str, shown: str, limit_bytes: int) -> BinaryIO:
        with self._target(text, shown) as target, explaining(shown):
            return self._checked_size(target.open(), shown, limit_bytes)

    @staticmethod
    def _checked_size(file: BinaryIO, shown: str, limit_bytes: int) -> BinaryIO:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            file.close()
            raise BundleError(
                f"{shown} has {size:,} bytes, and the limit is {limit_bytes:,}. "
                "Raise TRIBAL_LIMIT_FILE_BYTES to allow it."
            )
        return file

    @contextmanager
    def _target(
        self,
        text: str,
        shown: str,
        suffixes: Sequence[str] = SUFFIXES,
        kind: str = "a bundle",
        *,
        create: bool = False,
    ) -> Iterator[_Target]:
        """The file at an allowed path; `create` creates the default folder if it is missing."""
        if not self._absolute(text, shown).name.lower().endswith(tuple(suffixes)):
            raise PathNotAllowed(
                f"{shown} does not have the suffix of {kind}. Use {' or '.join(suffixes)}."
                if suffixes is not SUFFIXES
                else f"{shown} does not have a bundle's suffix. Use one of {', '.join(SUFFIXES)}."
            )
        with self._parent(text, shown, create=create) as (folder, _, name):
            yield _Target(folder, name, shown, self._restricted, kind)

    @contextmanager
    def _parent(
        self, text: str, shown: str, *, create: bool = False
    ) -> Iterator[tuple[OpenFolder, Path, str]]:
        """The folder of an allowed path, open; where the walk to it begins; and the last name."""
        path = self._absolute(text, shown)
        parent = _resolved(path.parent, shown)
        base = self._base(parent, path.name, shown)
        with explaining(shown):
            if create and parent == self.default:
                make_private(parent)
            try:
                folder = OpenFolder(base, parent)
            except FileNotFoundError as error:
                raise UsageError(
                    f"The folder of {shown} does not exist. Check the path, or create the folder."
                ) from error
        try:
            yield folder, base, path.name
        finally:
            folder.close()

    @contextmanager
    def _folder(self, text: str) -> Iterator[OpenFolder]:
        """An allowed folder, open."""
        shown = _shown(text)
        path = _resolved(self._absolute(f"{text}/-" if text else "", shown).parent, shown)
        base = self._base(path, "", shown)
        with explaining(shown):
            try:
                folder = OpenFolder(base, path)
            except FileNotFoundError as error:
                raise UsageError(
                    f"The folder {shown} does not exist. Create it, or mount its disk."
                ) from error
        try:
            yield folder
        finally:
            folder.close()

    def _absolute(self, text: str, shown: str) -> Path:
        """The path from the root, with links and `..` unresolved."""
        try:
            length = len(os.fsencode(text))
        except UnicodeEncodeError as error:
            raise UsageError(f"{shown} contains characters that no path can have.") from error
        if not text or "\0" in text or length > _PATH_BYTES:
            raise UsageError(f"{shown} is not a valid path: it is empty, too long or contains NUL.")
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{shown} begins with the home folder of an unknown user.") from error
        if text.endswith("/") or path.name in {"", ".."}:
            raise PathNotAllowed(f"{shown} is a folder. Add a file name.")
        return self._start() / path

    def _start(self) -> Path:
        """Where a relative path starts."""
        with suppress(FileNotFoundError):  # the working directory was removed
            here = Path.cwd().resolve()
            if not self._restricted or any(here.is_relative_to(root) for root in self._roots):
                return here
            return self.default
        if not self._restricted:  # a person means the directory that they see
            raise UsageError(
                "The working directory no longer exists. Change to another one, or give an "
                "absolute path."
            )
        return self.default

    def _base(self, folder: Path, name: str, shown: str) -> Path:
        """Where the walk to a resolved folder begins; refuses a folder that is not allowed.

        If allowed folders are nested, the walk begins at the outermost. The innermost decides what
        is hidden, as an allowed folder may itself be in a hidden one.
        """
        if not self._restricted:
            return folder
        if not self._roots:
            raise PathNotAllowed("No folder is allowed for bundles. Set TRIBAL_BUNDLE_DIRS.")
        roots = sorted(root for root in self._roots if folder.is_relative_to(root))
        if not roots:
            raise PathNotAllowed(
                f"{shown} is outside the allowed folders: the bundle, project and "
                "temporary folders, or those in TRIBAL_BUNDLE_DIRS."
            )
        if any(part.startswith(".") for part in (*folder.relative_to(roots[-1]).parts, name)):
            raise PathNotAllowed(f"{shown} is hidden or in a hidden folder. Choose another path.")
        return roots[0]


def dated_name(prefix: str, now: datetime, suffix: str = ".json") -> str:
    """A name such as `memories-2026-11-23T051700Z.json`; `now` has a time zone."""
    return f"{prefix}-{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}{suffix}"


def moment_of(date: str) -> datetime:
    """The time in a dated name."""
    return datetime.strptime(date, "%Y-%m-%dT%H%M%SZ").replace(tzinfo=UTC)


def _bundles_in(folder: Path) -> list[os.DirEntry[str]]:
    with (
        explaining("A bundle folder"),
        suppress(FileNotFoundError),
        os.scandir(folder) as found,
    ):
        return [
            entry
            for entry in found
            if entry.is_file(follow_symlinks=False)
            and entry.name.lower().endswith(SUFFIXES)
            and not entry.name.startswith(".")
        ]
    return []


def _numbered(name: str, suffixes: Sequence[str]) -> Iterator[str]:
    suffix = next(s for s in suffixes if name.lower().endswith(s))
    stem, suffix = name[: -len(suffix)], name[-len(suffix) :]
    yield name
    yield from (f"{stem}-{number}{suffix}" for number in itertools.count(2))


def _resolved(path: Path, shown: str) -> Path:
    """The path without links and `..`; `Path.resolve` sets no limit to links since Python 3.13."""
    with explaining(shown):  # the working directory may have been removed
        rest = list(reversed(path.absolute().parts[1:]))
    done, links = Path("/"), 0
    while rest:
        name = rest.pop()
        try:
            target = (done / name).readlink()
        except OSError:  # not a link, or not readable: opening it reports that
            done = done.parent if name == ".." else done / name
            continue
        links += 1
        if links > _MAX_LINKS:
            raise PathNotAllowed(
                f"{shown} leads through too many symbolic links. Give the path without links."
            )
        if target.is_absolute():
            done = Path("/")
        rest += reversed(target.parts[target.is_absolute() :])
    return done


def _shown(path_text: str) -> str:
    """A path for a message: quoted, escaped and shortened."""
    if len(path_text) > _SHOWN_CHARS:
        path_text = path_text[:_SHOWN_CHARS] + "…"
    return repr(path_text)
