"""The files of the default model: where they are, and how they get there.

They are the ones that Chroma's default embedding function downloads, in the same folder, so each
program uses what the other has downloaded.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tribal_mcp.errors import EmbedderError
from tribal_mcp.files.atomic import fsync_file

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

OnBytes = Callable[[int, int], None]
"""Receives (bytes so far, bytes in all or 0)."""


def default_folder() -> Path:
    """Where the files of the default model belong."""
    return Path.home() / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"


def is_installed(folder: Path) -> bool:
    """Whether a folder has the files of a model."""
    return all((folder / name).is_file() for name in (MODEL_FILE, TOKENIZER_FILE))


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
            _check(archive)
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


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise EmbedderError(
            f"{archive.name} is not the expected file: its SHA-256 is {found}, and {SHA256} was "
            f"expected. It was not installed. {_BY_HAND}"
        )


def _extract(archive: Path, temporary: Path, folder: Path) -> None:
    """Extract the known files, the model last: it shows that the others are complete."""
    import tarfile

    with tarfile.open(archive, "r:gz") as tar:
        for name in (*_OTHER_FILES, TOKENIZER_FILE, MODEL_FILE):
            member = tar.extractfile(f"onnx/{name}")
            if member is None:
                raise tarfile.TarError(f"the archive has no file onnx/{name}")
            with (temporary / name).open("wb") as file:
                shutil.copyfileobj(member, file)
                file.flush()
                fsync_file(file.fileno())
            (temporary / name).replace(folder / name)
