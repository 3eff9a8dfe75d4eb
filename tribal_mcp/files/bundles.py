"""Opens bundles by path. The only opener of bundle paths.

A path may have been named by a model, so it is resolved, must lie in an allowed folder, and is then
walked from that folder one component at a time without following a link: what was checked is what
is opened, whoever swaps a link meanwhile. Kind and size are read from the descriptor. A new bundle
is written beside its final name and appears there whole or not at all. No message shows more of the
file system than the path as the caller gave it.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from tribal_mcp.errors import BundleError, PathNotAllowed, TribalError, UsageError
from tribal_mcp.files.atomic import make_private
from tribal_mcp.files.directory import Draft, OpenFolder, check_kind, in_words, taken

SUFFIXES = tuple(kind + packed for kind in (".json", ".jsonl") for packed in ("", ".gz", ".zst"))
_ALLOWED = (
    "Allowed are the bundle folder, the project folder and the temporary folder, "
    "or the folders in TRIBAL_BUNDLE_DIRS."
)
_PATH_BYTES = 4096
_LINKS = 40  # as Linux allows
_SHOWN_CHARS = 200


class BundleFolders:
    """The folders that bundles may be read from and written to.

    A relative path counts from the working folder if that is in an allowed one, else from the
    default folder. `~` and `~user` are expanded. Below an allowed folder nothing may be hidden.
    """

    def __init__(self, allowed: Sequence[Path], default: Path) -> None:
        """Fixes the folders as they resolve now; a link put in their place later is not followed.

        Args:
            allowed: The folders, with all below them; none means that every path is refused.
            default: Where dated and named bundles lie; in one of `allowed`. Made when first needed.
        """
        self._roots = tuple(_resolved(path, _shown(str(path))) for path in allowed)
        self._jailed = True
        self.default = _resolved(default, _shown(str(default)))

    @classmethod
    def anywhere(cls, default: Path) -> Self:
        """For a person's own paths: any folder, and hidden files and hard links too."""
        folders = cls((), default)
        folders._jailed = False
        return folders

    def open_input(self, path_text: str, limit_bytes: int) -> BinaryIO:
        """Opens a bundle for reading.

        Raises:
            UsageError: It does not exist, or the path is no path.
            PathNotAllowed: It is outside the allowed folders, hidden, a link or no regular file.
            BundleError: It is larger than `limit_bytes`.
        """
        return self._open(path_text, _shown(path_text), limit_bytes)

    def open_named(self, name: str, limit_bytes: int) -> BinaryIO:
        """Opens a bundle of the default folder by its bare name; fails as `open_input` does."""
        if "/" in name or "\\" in name:
            raise PathNotAllowed(f"{_shown(name)} is a path. Give only the name of a bundle.")
        return self._open(str(self.default / name), _shown(name), limit_bytes)

    def open_earlier(self, text: str, limit_bytes: int) -> BinaryIO:
        """Opens a bundle by a path, or by its bare name in the default folder; as `open_input`."""
        try:
            return self.open_input(text, limit_bytes)
        except UsageError:
            if text not in self.names():
                raise
        return self.open_named(text, limit_bytes)

    def names(self) -> list[str]:
        """The names of the bundles in the default folder, sorted."""
        with (
            in_words("the bundle folder"),
            suppress(FileNotFoundError),
            os.scandir(self.default) as found,
        ):
            return sorted(
                entry.name
                for entry in found
                if entry.is_file(follow_symlinks=False)
                and entry.name.lower().endswith(SUFFIXES)
                and not entry.name.startswith(".")
            )
        return []

    @contextmanager
    def publish(
        self,
        path_text: str,
        *,
        overwrite: bool,
        is_bundle: Callable[[BinaryIO], bool],
        numbered: bool = False,
    ) -> Iterator[Draft]:
        """Gives a file to write to, which takes its name at the end; after a failure it is gone.

        Args:
            path_text: The final path. Its folder must exist, unless it is the default one.
            overwrite: Replace an earlier bundle.
            is_bundle: Tells whether the earlier file, open at its start, is one; does not raise.
            numbered: If the name is taken, add -2, -3 and so on; nothing is overwritten then.

        Raises:
            UsageError: The name is taken, the folder is missing, or the path is no path.
            PathNotAllowed: As for reading; or the earlier file is not a bundle.
            NoSpace: The disk is full. The earlier file is as it was, as after every failure.
        """
        shown = _shown(path_text)

        def replaces() -> bool:
            """Whether an earlier bundle lies there and may be replaced; raises if it may not."""
            try:
                check_kind(folder.stat(name), shown)
            except FileNotFoundError:
                return False
            if not overwrite:
                raise taken(shown)
            with folder.open_file(name, shown, one_name=self._jailed) as earlier:
                if is_bundle(earlier):
                    return True
            raise PathNotAllowed(f"{shown} is not a bundle, so it stays. Choose another name.")

        with self._entered(path_text, shown, create=True) as (folder, name):
            with in_words(shown):
                if not numbered:
                    replaces()
                folder.sweep()
                part, draft = folder.new_part(shown)
            draft.path = folder.path / name
            try:
                yield draft
                with in_words(shown):
                    draft.flush()
                    os.fsync(draft.fileno())
                    if not numbered and replaces():  # asked again: an export may take minutes
                        folder.replace(part, name)
                    else:
                        names = _numbered(name) if numbered else (name,)
                        draft.path = folder.path / folder.link_first_free(part, names, shown)
                    folder.sync()
            finally:
                with suppress(OSError, TribalError):
                    draft.close()
                with suppress(OSError):
                    folder.unlink(part)

    def _open(self, text: str, shown: str, limit_bytes: int) -> BinaryIO:
        with self._entered(text, shown) as (folder, name), in_words(shown):
            file = folder.open_file(name, shown, one_name=self._jailed)
            size = os.fstat(file.fileno()).st_size
            if size > limit_bytes:
                file.close()
                raise BundleError(
                    f"{shown} has {size:,} bytes and the limit is {limit_bytes:,}. "
                    "Set TRIBAL_LIMIT_FILE_BYTES to allow more."
                )
            return file

    @contextmanager
    def _entered(
        self, text: str, shown: str, *, create: bool = False
    ) -> Iterator[tuple[OpenFolder, str]]:
        """The folder of a path, allowed and open, and the name in it."""
        path = self._absolute(text, shown)
        if not path.name.lower().endswith(SUFFIXES):
            raise PathNotAllowed(f"{shown} is not named as a bundle is: {', '.join(SUFFIXES)}.")
        target = _resolved(path.parent, shown)
        base = self._base(target, path.name, shown)
        with in_words(shown):
            if create and target == self.default:
                make_private(target)
            try:
                folder = OpenFolder(base, target)
            except FileNotFoundError as error:
                raise UsageError(
                    f"The folder of {shown} does not exist. Check the path, or create the folder."
                ) from error
        try:
            yield folder, path.name
        finally:
            folder.close()

    def _absolute(self, text: str, shown: str) -> Path:
        """The path from the root, with its links and `..` still in it."""
        try:
            length = len(os.fsencode(text))
        except UnicodeEncodeError as error:
            raise UsageError(f"{shown} holds characters that no path can hold.") from error
        if not text or "\0" in text or length > _PATH_BYTES:
            raise UsageError(f"{shown} is no path: it is empty, too long or has a NUL in it.")
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{shown} begins with a home folder that is not known.") from error
        if text.endswith("/") or path.name in {"", ".."}:
            raise PathNotAllowed(f"{shown} is a folder. Add the name of a file.")
        return self._start() / path

    def _start(self) -> Path:
        """What a relative path counts from."""
        with suppress(FileNotFoundError):  # the working folder may have been removed
            here = Path.cwd().resolve()
            if not self._jailed or any(here.is_relative_to(root) for root in self._roots):
                return here
        return self.default

    def _base(self, folder: Path, name: str, shown: str) -> Path:
        """Where to walk to a resolved folder from; refuses a folder that is not allowed.

        Of allowed folders within each other the innermost decides what is hidden, since an allowed
        folder may itself lie in a hidden one, and the outermost is where the walk begins.
        """
        if not self._jailed:
            return folder
        if not self._roots:
            raise PathNotAllowed("No folder is allowed for bundles. Set TRIBAL_BUNDLE_DIRS.")
        roots = sorted(root for root in self._roots if folder.is_relative_to(root))
        if not roots:
            raise PathNotAllowed(f"{shown} is outside the allowed folders. {_ALLOWED}")
        if any(part.startswith(".") for part in (*folder.relative_to(roots[-1]).parts, name)):
            raise PathNotAllowed(f"{shown} is hidden, or in a hidden folder. Choose another path.")
        return roots[0]


def dated_name(prefix: str, now: datetime, suffix: str = ".json") -> str:
    """A name for a new bundle, such as `memories-2026-11-23T051700Z.json`; `now` is aware."""
    return f"{prefix}-{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}{suffix}"


def _numbered(name: str) -> Iterator[str]:
    suffix = next(s for s in SUFFIXES if name.lower().endswith(s))
    stem, suffix = name[: -len(suffix)], name[-len(suffix) :]
    yield name
    yield from (f"{stem}-{number}{suffix}" for number in itertools.count(2))


def _resolved(path: Path, shown: str) -> Path:
    """The path without links and `..`; `Path.resolve` sets no limit to links since Python 3.13."""
    with in_words(shown):  # the working folder may have been removed
        left = list(reversed(path.absolute().parts[1:]))
    done, links = Path("/"), 0
    while left:
        name = left.pop()
        try:
            target = (done / name).readlink()
        except OSError:  # no link, or nothing that can be seen: what opens it says so
            done = done.parent if name == ".." else done / name
            continue
        links += 1
        if links > _LINKS:
            raise PathNotAllowed(f"{shown} leads through too many links.")
        if target.is_absolute():
            done = Path("/")
        left += reversed(target.parts[target.is_absolute() :])
    return done


def _shown(path_text: str) -> str:
    """A path for a message: quoted, its control characters escaped, not endless."""
    if len(path_text) > _SHOWN_CHARS:
        path_text = path_text[:_SHOWN_CHARS] + "…"
    return repr(path_text)
