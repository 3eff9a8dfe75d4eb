"""The documented Python API of a sync, which `services.import_export` exports."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from tribal_mcp.config import load
from tribal_mcp.errors import UsageError, invalid_field
from tribal_mcp.files.replica_folders import SharedFolder
from tribal_mcp.portability.choices import Secrets
from tribal_mcp.services.arguments import check_callback, check_store, check_type
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.services.sync import sync as use_case
from tribal_mcp.services.sync.opening import path_of
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.chroma.lock import OWN_FOLDER


async def sync(
    store: MemoryStore,
    folder: str | Path,
    *,
    name: str = "",
    tags: Sequence[str] = (),
    all: bool = False,  # noqa: A002 - as every interface calls it
    encrypt: bool = False,
    conflicts: bool = False,
    resolve: str = "",
    version: int = 0,
    operations: bool = False,
    withdraw: str = "",
    accept_deletions: bool = False,
    remove_machine: str = "",
    secrets: Secrets | None = None,
    dry_run: bool = False,
    on_progress: Callable[[float, str], None] | None = None,
) -> SyncResult:
    """Publish what changed in a store, and apply what changed in the others that share a folder.

    What comes in is first saved in a restore point. The settings of the environment name the keys,
    the limits, the embedding model, and how many restore points are kept.

    Args:
        store: a store that has a folder for this program's own files.
        folder: what the machines share.
        name: of this machine. Later syncs remember it, and so they do `tags` and `encrypt`.
        tags: share only memories with any of these tags.
        all: share all memories again.
        encrypt: encrypt with the age keys of the settings.
        conflicts: list the conflicts.
        resolve: the id of a memory in conflict, to keep what is visible.
        version: with `resolve`, the number of the listed version to take instead.
        operations: list the imports and other operations of all machines.
        withdraw: one of them, to withdraw on all machines.
        accept_deletions: delete on all machines what has disappeared here, even if it is most
            memories.
        remove_machine: the name or the id of a machine that is no longer used.
        secrets: search what is published for keys, tokens, passwords and private keys: REPORT them,
            or REFUSE to publish any. Needs `tribal-mcp[secrets]`.
        dry_run: change nothing.
        on_progress: called with the progress in percent, and what is being done.

    Raises:
        UsageError: an argument, a setting or the folder is not valid, or most memories have
            disappeared.
        SecretsFound: there are secrets, and none are to be published.
        StoreLocked: another sync of the store did not end in time.
        StoreError: the store can't be used.
    """
    check_store(store)
    check_type("folder", folder, str | Path, "text or a Path")  # type: ignore[arg-type]
    check_callback("on_progress", on_progress, "(percent, what is being done)")
    given = locals()
    try:
        request = SyncRequest(
            **{field: given[field] for field in SyncRequest.model_fields} | {"folder": str(folder)}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(invalid_field(problem["loc"], problem)) from None
    own = store.own_folder
    data = {} if own is None else {"data_dir": str(own.parent if own.name == OWN_FOLDER else own)}
    context = Context(*load(data), on_progress or (lambda _percent, _what: None), trusted=True)
    shared = SharedFolder(path_of(context, request))
    return await use_case.sync(context, request, shared, store)
