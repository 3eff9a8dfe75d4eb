"""The use cases by name, as every interface calls them: plain values in, a result out."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from tribal_mcp.errors import UsageError
from tribal_mcp.files.failures import failure
from tribal_mcp.services.context import Context
from tribal_mcp.services.exporting.export_bundle import run_export
from tribal_mcp.services.importing.import_bundle import run_import
from tribal_mcp.services.maintenance.bundles import run_bundles
from tribal_mcp.services.maintenance.check import run_check, run_rescue
from tribal_mcp.services.maintenance.copy_store import run_copy
from tribal_mcp.services.maintenance.discover import run_discover
from tribal_mcp.services.maintenance.history import run_history
from tribal_mcp.services.maintenance.reembed import run_reembed
from tribal_mcp.services.maintenance.setup import run_setup
from tribal_mcp.services.maintenance.stats import run_stats
from tribal_mcp.services.maintenance.undo import run_undo
from tribal_mcp.services.memories.forget import run_forget
from tribal_mcp.services.memories.recall import run_list, run_recall
from tribal_mcp.services.memories.remember import run_remember
from tribal_mcp.services.memories.show import run_show
from tribal_mcp.services.permissions import refuse_change
from tribal_mcp.services.requests import (
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
    SetupRequest,
    ShowRequest,
    UndoRequest,
)
from tribal_mcp.services.results import Result

Job = tuple[type[Request], Callable[[Context, Any], Awaitable[Result]]]

JOBS: dict[str, Job] = {
    "export": (ExportRequest, run_export),
    "import": (ImportRequest, run_import),
    "undo": (UndoRequest, run_undo),
    "history": (HistoryRequest, run_history),
    "discover": (Request, run_discover),
    "bundles": (Request, run_bundles),
    "stats": (Request, run_stats),
    "check": (CheckRequest, run_check),
    "rescue": (ExportRequest, run_rescue),
    "copy": (CopyRequest, run_copy),
    "reembed": (ReembedRequest, run_reembed),
    "setup": (SetupRequest, run_setup),
    "remember": (RememberRequest, run_remember),
    "recall": (RecallRequest, run_recall),
    "list": (ListRequest, run_list),
    "show": (ShowRequest, run_show),
    "forget": (ForgetRequest, run_forget),
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
