"""The use cases by name, as every interface calls them: plain values in, a result out."""

import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from tribal_mcp.errors import UsageError
from tribal_mcp.files.failures import failure
from tribal_mcp.services.context import Context
from tribal_mcp.services.permissions import refuse_change
from tribal_mcp.services.requests import (
    BackupRequest,
    CheckRequest,
    CopyRequest,
    ExportRequest,
    ForgetRequest,
    HistoryRequest,
    ImportRequest,
    ListRequest,
    RecallRequest,
    ReembedRequest,
    RememberRequest,
    Request,
    RestoreRequest,
    SetupRequest,
    ShowRequest,
    SyncRequest,
    UndoRequest,
)
from tribal_mcp.services.results import Result

Job = tuple[type[Request], Callable[[Context, Any], Awaitable[Result]]]


def _from(module: str, function: str) -> Callable[[Context, Any], Awaitable[Result]]:
    """A use case that is imported when it is called: a command loads only what it needs."""

    async def job(context: Context, request: object) -> Result:
        found = getattr(import_module(f"tribal_mcp.services.{module}"), function)
        result: Result = await found(context, request)
        return result

    return job


JOBS: dict[str, Job] = {
    "export": (ExportRequest, _from("exporting.export_bundle", "run_export")),
    "import": (ImportRequest, _from("importing.import_bundle", "run_import")),
    "backup": (BackupRequest, _from("backups.write_backup", "run_backup")),
    "restore": (RestoreRequest, _from("backups.restore", "run_restore")),
    "undo": (UndoRequest, _from("maintenance.undo", "run_undo")),
    "history": (HistoryRequest, _from("maintenance.history", "run_history")),
    "discover": (Request, _from("maintenance.discover", "run_discover")),
    "bundles": (Request, _from("maintenance.bundles", "run_bundles")),
    "stats": (Request, _from("maintenance.stats", "run_stats")),
    "check": (CheckRequest, _from("maintenance.check", "run_check")),
    "rescue": (ExportRequest, _from("maintenance.check", "run_rescue")),
    "copy": (CopyRequest, _from("maintenance.copy_store", "run_copy")),
    "sync": (SyncRequest, _from("sync.sync", "run_sync")),
    "reembed": (ReembedRequest, _from("maintenance.reembed", "run_reembed")),
    "setup": (SetupRequest, _from("maintenance.setup", "run_setup")),
    "remember": (RememberRequest, _from("memories.remember", "run_remember")),
    "recall": (RecallRequest, _from("memories.recall", "run_recall")),
    "list": (ListRequest, _from("memories.recall", "run_list")),
    "show": (ShowRequest, _from("memories.show", "run_show")),
    "forget": (ForgetRequest, _from("memories.forget", "run_forget")),
}
"""The arguments of each use case, and the coroutine that carries it out."""


async def run(context: Context, name: str, arguments: dict[str, Any]) -> Result:
    """Carry out a use case.

    Raises:
        TribalError: what prevented it, for the user.
        ValidationError: the arguments are not those of its request.
    """
    try:
        request, job = JOBS[name]
    except KeyError:
        raise UsageError(f"There is no use case named {name!r:.80}.") from None
    if context.read_only and name != "import":  # its options may come with the bundle
        refuse_change(name, arguments)
    try:
        return await job(context, request(**arguments))
    except OSError as error:  # of a file that no message knows better
        name = os.path.basename(os.fsdecode(error.filename or ""))  # noqa: PTH119 - text only
        shown = f"The file {name!r}" if name else "A file"
        raise failure(error, shown, "Everything that was acknowledged is safe.") from error
