"""The use case: list the bundles in the allowed folders, so that an agent can name one."""

from datetime import UTC, datetime

import anyio.to_thread

from tribal_mcp.errors import TribalError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import Request
from tribal_mcp.services.results.bundles import BundleFile, BundlesResult

_LISTED = 100
_HEAD_BYTES = 1 << 20
"""How much of a file is read; a manifest that comes later is not looked for."""


async def run_bundles(context: Context, _request: Request) -> BundlesResult:
    """List the newest bundles directly in the allowed folders."""
    return await anyio.to_thread.run_sync(_bundles, context)


def _bundles(context: Context) -> BundlesResult:
    folders = context.bundle_folders
    found = sorted(folders.files(), key=lambda file: -file[1].st_mtime)
    listed: list[BundleFile] = []
    for path, stat in found[: 10 * _LISTED]:
        context.refuse_if_stopped("Nothing was changed.")
        try:
            limit = context.limits.file_bytes
            with folders.open_input(str(path), limit, as_it_is=True) as file:
                head = context.head(file, path.name, _HEAD_BYTES)
            manifest = BundleReader(head, context.limits).manifest
            str(path).encode()
        except (TribalError, UnicodeEncodeError):  # not a bundle, not readable, or without a name
            continue
        if manifest.embedding is None:
            continue
        listed.append(
            BundleFile(
                path=str(path),
                bytes=stat.st_size,
                modified=datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds"),
                exported_at=manifest.exported_at or "",
                memory_count=manifest.memory_count,
                model_name=manifest.embedding.model_name,
            )
        )
        if len(listed) == _LISTED:
            break
    steps = (
        [
            NextStep(
                "To preview the import of one, call {call}.",
                "import",
                {"input_path": ..., "dry_run": True},
            )
        ]
        if listed
        else [NextStep("There is no bundle in the allowed folders. {call} writes one.", "export")]
    )
    return BundlesResult(
        bundles=listed, other_files=len(found) - len(listed), next_steps=steps, next_step=""
    )
