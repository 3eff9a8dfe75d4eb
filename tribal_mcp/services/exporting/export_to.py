"""An export to another system's format: a bundle in a spool file, which is then turned into it."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.archives import origin_of_file
from tribal_mcp.files.bundle_folders import dated_name
from tribal_mcp.files.directory import Draft
from tribal_mcp.interchange.base import FALLBACK, Format, Memories
from tribal_mcp.interchange.formats import formats, recognise
from tribal_mcp.interchange.source import Source
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import NO_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.exporting.export import Export
from tribal_mcp.services.exporting.export_bundle import export_result, planned
from tribal_mcp.services.requests import ExportRequest
from tribal_mcp.services.results import ExportResult, Lost

DELETIONS = "that it was deleted"
"""What no format here can hold of a memory that is no more."""

_EXAMPLES = 3
_SPOOLED_PERCENT, _COUNTED_PERCENT = 50.0, 70.0
_NOT_WRITTEN = "No file was written."


async def run_export_to(context: Context, request: ExportRequest) -> ExportResult:
    """Write the selected memories in another system's format, or only count what would be lost."""
    made = _format_of(request)
    path = request.output_path or os.fspath(
        context.settings.bundle_dir / dated_name("memories", datetime.now(UTC), made.suffixes[0])
    )
    with ExitStack() as stack:
        scratch = partial(context.spool.scratch, elsewhere=request.dry_run)
        file = stack.enter_context(scratch())
        async with context.store() as store, store.session():
            export = await planned(context, request, store)
            watch = context.watch("Read", end=_SPOOLED_PERCENT)
            writer = BundleWriter(file, export.manifest, "jsonl", vectors="base64")
            integrity = await export.write(store, writer, watch)
        file.seek(0)
        reader = BundleReader(file, NO_LIMITS, scratch=lambda: stack.enter_context(scratch()))
        conversion = _Conversion(context, made, reader, export)
        await anyio.to_thread.run_sync(conversion.count_lost)
        written = None
        if not request.dry_run:
            target = _target(context, request, made, path)
            written = await anyio.to_thread.run_sync(conversion.write, target)
    shown = request.output_path or os.fspath(written or path)
    result = export_result(
        request, export, integrity, shown, written.stat().st_size if written else 0
    )
    result.format, result.lost, result.dry_run = made.name, conversion.lost, request.dry_run
    result.next_steps = _next_steps(request, result) or result.next_steps
    return result


def _format_of(request: ExportRequest) -> Format:
    """The format that a request names.

    Raises:
        UsageError: there is none of that name that can be written, or the path has another suffix.
    """
    made = formats().get(request.format)
    if made is None or made.writes is None:
        names = ", ".join(sorted(name for name, f in formats().items() if f.writes))
        problem = "can be read, but not written" if made else "does not exist"
        raise UsageError(
            f"The format {request.format!r:.80} {problem}. These can be written: {names}. "
            f"{_NOT_WRITTEN}"
        )
    path = request.output_path
    if path and made.suffixes and not path.lower().endswith(tuple(made.suffixes)):
        raise UsageError(
            f"{path!r:.200} does not have the suffix of {made.title}. Use "
            f"{' or '.join(made.suffixes)}. {_NOT_WRITTEN}"
        )
    return made


def _target(
    context: Context, request: ExportRequest, made: Format, path: str
) -> AbstractContextManager[Draft]:
    """The file to write to."""
    if request.spool_file:
        return context.spool.writing(request.spool_file)
    return context.bundle_folders.publish(
        path,
        overwrite=request.overwrite,
        is_bundle=partial(_has_format, made=made, limits=context.limits),
        numbered=not request.output_path,
        suffixes=made.suffixes,
        kind=made.title,
    )


def _has_format(file: BinaryIO, made: Format, limits: Limits) -> bool:
    """Whether a file has the format for certain, and may thus be replaced."""
    try:
        found = recognise(Source(origin_of_file("the file", file, limits)))
    except TribalError:
        return False
    return (
        found is not None and found.format.name == made.name and found.evidence.certainty > FALLBACK
    )


@dataclass(slots=True)
class _Conversion:
    """Turns a bundle into another system's format.

    Attributes:
        lost: what that can't hold.
    """

    context: Context
    made: Format
    reader: BundleReader
    export: Export
    lost: list[Lost] = field(default_factory=list)

    def count_lost(self) -> None:
        """Count what the format can't hold of each memory."""
        self.reader.verify(lambda _done, _total: self.context.refuse_if_stopped(_NOT_WRITTEN))
        counts = Counter[str]()
        examples: dict[str, list[str]] = {}
        for entry in self._memories("Compared", _SPOOLED_PERCENT, _COUNTED_PERCENT):
            for what in self.made.lost(entry):
                counts[what] += 1
                if counts[what] <= _EXAMPLES:
                    examples.setdefault(what, []).append(entry.id)
        self.lost = [
            Lost(what=what, memories=count, examples=examples[what])
            for what, count in counts.most_common()
        ]
        if deleted := self.export.tombstones:
            some = [tombstone.id for tombstone in deleted[:_EXAMPLES]]
            self.lost.append(Lost(what=DELETIONS, memories=len(deleted), examples=some))

    def write(self, target: AbstractContextManager[Draft]) -> Path:
        """Write the file; its path."""
        begin = partial(self._memories, "Wrote", _COUNTED_PERCENT, 100.0)
        with target as file:
            for part in self.made.write(Memories(begin, self.export.manifest.embedding)):
                file.write(part)
        return file.path

    def _memories(self, verb: str, begin: float, end: float) -> Iterator[MemoryEntry]:
        done, total = 0, len(self.export.ids)
        watch = self.context.watch(verb, begin=begin, end=end)
        for batch in self.reader.batches():
            self.context.refuse_if_stopped(_NOT_WRITTEN)
            for entry in batch:
                assert isinstance(entry, MemoryEntry), entry  # noqa: S101 - written just now
                yield entry
            done += len(batch)
            anyio.from_thread.run_sync(watch.report, done, total)


def _next_steps(request: ExportRequest, result: ExportResult) -> list[NextStep]:
    """What to do next; nothing if no memory was selected."""
    if not result.memory_count:
        return []
    if result.dry_run:
        given = request.model_dump(exclude_defaults=True, exclude={"spool_file", "dry_run"})
        return [NextStep("To write it, run {call}.", "export", given)]
    arguments = {"input_path": result.output_path, "dry_run": True}
    return [
        NextStep(
            "To see what an import of it would give, run {call} with another store.",
            "import",
            arguments,
            elsewhere=True,
        )
    ]
