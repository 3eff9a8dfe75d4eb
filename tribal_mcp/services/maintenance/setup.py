"""The use case: put the files of the default embedding model on this machine, and try them."""

import time
from functools import partial
from pathlib import Path

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.embedding.model_files import default_folder, install
from tribal_mcp.embedding.onnx import load
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import SetupRequest
from tribal_mcp.services.results import SetupResult

_TRIAL = ["Which branch do we deploy from?"]


async def run_setup(context: Context, request: SetupRequest) -> SetupResult:
    """Download the default model unless it is there, or install it from a file.

    Raises:
        EmbedderError: the files can't be had, or don't work.
        UsageError: the file does not exist.
    """
    folder = default_folder()
    archive = _file(request.archive) if request.archive else None

    def on_bytes(done: int, total: int) -> None:
        if context.stop():
            raise Stopped("Stopped while downloading the model. Nothing was installed.")
        mib = f"{done / 2**20:,.0f} of {total / 2**20:,.0f} MiB" if total else ""
        percent = 100 * done / total if total else 0.0
        anyio.from_thread.run_sync(context.progress, percent, f"Downloaded {mib}".rstrip())

    installed = await anyio.to_thread.run_sync(partial(install, folder, archive, on_bytes))
    vectors = await anyio.to_thread.run_sync(load, folder)
    await anyio.to_thread.run_sync(vectors, _TRIAL)
    begin = time.perf_counter()
    await anyio.to_thread.run_sync(vectors, _TRIAL)
    result = SetupResult(
        folder=str(folder),
        installed=installed,
        ms_per_question=round(1000 * (time.perf_counter() - begin), 1),
    )
    result.next_steps = [
        NextStep("New memories get vectors now. To embed those without one, run {call}.", "reembed")
    ]
    return result


def _file(path: str) -> Path:
    archive = Path(path)
    if not archive.is_file():
        raise UsageError(f"There is no file {path}.")
    return archive
