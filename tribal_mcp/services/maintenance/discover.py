"""The use case: find the memories of other systems on this machine. It only reads."""

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.errors import NotPermitted, TribalError
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import Request
from tribal_mcp.services.results.maintenance import DiscoverResult, FoundSource
from tribal_mcp.stores.base import STEP, in_parts


@dataclass(slots=True)
class _Read:
    """What was read of a source."""

    source: FoundSource
    ids: list[str] = field(default_factory=list)


async def run_discover(context: Context, request: Request) -> DiscoverResult:  # noqa: ARG001
    """List the memories of other systems, each with the import that would bring them here.

    Raises:
        NotPermitted: the caller may not look outside the allowed folders.
    """
    if not (context.trusted or context.settings.discover):
        raise NotPermitted(
            "Looking for the memories of other systems reads outside the allowed folders. Set "
            "TRIBAL_DISCOVER=true to allow it."
        )
    found = await anyio.to_thread.run_sync(partial(_read_all, context))
    async with context.store() as store:
        for one in found:
            here: set[str] = set()
            for part in in_parts(one.ids, STEP):
                here |= await store.existing(part)
            one.source.imported = len(here)
    result = DiscoverResult(sources=[one.source for one in found])
    if not found:
        result.notes.append("Found no memories of other systems at their usual places.")
    result.next_steps = [
        NextStep(f"{one.system}: {{call}}.", "import", {"input_path": one.path, "dry_run": True})
        for one in result.sources
        if one.imported < one.count
    ]
    return result


def _read_all(context: Context) -> list[_Read]:
    from tribal_mcp.interchange.places import existing  # noqa: PLC0415 - only needed here

    found = []
    for system, path in existing(Path.home()):
        context.refuse_if_stopped("Nothing was changed.")
        anyio.from_thread.run_sync(context.progress, 0.0, f"Reading {path}")
        if read := _read(context, system, path):
            found.append(read)
    return found


def _read(context: Context, system: str, path: Path) -> _Read | None:
    """What a place holds; None if no format claims it."""
    from tribal_mcp.interchange.base import Options  # noqa: PLC0415 - as above
    from tribal_mcp.interchange.convert import Conversion, convert  # noqa: PLC0415
    from tribal_mcp.interchange.formats import recognise  # noqa: PLC0415
    from tribal_mcp.interchange.source import Source  # noqa: PLC0415

    read = _Read(FoundSource(system=system, path=str(path)))
    folders = BundleFolders.anywhere(context.settings.bundle_dir)
    try:
        with ExitStack() as stack:
            origin = folders.open_origin(str(path), context.limits)
            source = Source(stack.enter_context(closing(origin)))
            recognised = recognise(source)
            if recognised is None:
                return None
            read.source.format = recognised.format.name
            out = stack.enter_context(context.spool.scratch(elsewhere=True))
            convert(source, Conversion(recognised.format, recognised.evidence), out, Options())
            newest = EPOCH
            reader = BundleReader(out, context.limits)
            reader.verify()
            for batch in reader.batches(STEP):
                for entry in batch:
                    if isinstance(entry, MemoryEntry):
                        read.ids.append(entry.id)
                        newest = max(newest, entry.updated_at)
            read.source.count = len(read.ids)
            read.source.newest = newest.isoformat() if newest > EPOCH else ""
    except TribalError as error:
        read.source.problem = str(error)
    return read
