"""An export to another system's format: a bundle in a spool file, which is then turned into it.

(Over 300 lines: one use case, from the name of the format to the result.)
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.archives import origin_of_file
from tribal_mcp.files.bundle_folders import dated_name
from tribal_mcp.files.encryption import AGE
from tribal_mcp.files.origins import FileOrigin
from tribal_mcp.files.published_folders import Published
from tribal_mcp.interchange.base import FALLBACK, Format, Memories, Stored
from tribal_mcp.interchange.formats import formats, recognise
from tribal_mcp.interchange.markdown_items import BEGIN
from tribal_mcp.interchange.own_block import VECTOR
from tribal_mcp.interchange.source import Source
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import MIB, NO_LIMITS
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.exporting.export import Export
from tribal_mcp.services.exporting.export_bundle import export_result, planned
from tribal_mcp.services.requests import ExportRequest
from tribal_mcp.services.results.bundles import ExportResult, Lost
from tribal_mcp.text import counted

DELETIONS = "that it was deleted"
"""What no format here can hold of a memory that is no more."""

_EXAMPLES = 3
_SPOOLED_PERCENT, _COUNTED_PERCENT = 50.0, 70.0
_ZIP = ".zip"
_NOT_WRITTEN = "No file was written."


async def run_export_to(context: Context, request: ExportRequest) -> ExportResult:
    """Write the selected memories in another system's format, or only count what would be lost."""
    made = _format_of(request)
    context.check_encryption(request.output_path)
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
        conversion = _Conversion(context, request, made, reader, export)
        await anyio.to_thread.run_sync(conversion.count_lost)
        if not request.dry_run:
            await anyio.to_thread.run_sync(conversion.write)
    result = export_result(request, export, integrity, conversion.path, conversion.size)
    result.format, result.lost, result.dry_run = made.name, conversion.lost, request.dry_run
    for lost in result.lost:
        lost.examples = [export.screen.masked(i) if export.screen else i for i in lost.examples]
    result.next_steps = _next_steps(request, result) or result.next_steps
    return result


def _format_of(request: ExportRequest) -> Format:
    """The format that a request names.

    Raises:
        UsageError: there is none of that name that can be written, or the path has another suffix.
    """
    made = writable(request.format)
    if request.vectors and not made.vectors_on_request:
        raise UsageError(
            f"The vectors can't be requested for the format {request.format!r:.80}. {_NOT_WRITTEN} "
            "Leave out `vectors`."
        )
    path = request.output_path
    in_folder = made.writes == "folder" and not path.lower().endswith(_suffixes(made))
    if request.since and in_folder and not request.spool_file:
        raise UsageError(
            "A folder holds all memories of an export, so an incremental one can't be written to "
            f"it. {_NOT_WRITTEN} Leave out since, or write to a zip archive."
        )
    if path and made.writes == "file" and not path.lower().endswith(_suffixes(made)):
        raise UsageError(
            f"{path!r:.200} does not have the suffix of {made.title}. Use "
            f"{' or '.join(made.suffixes)}. {_NOT_WRITTEN}"
        )
    return made


def writable(name: str) -> Format:
    """The format of this name.

    Raises:
        UsageError: there is none, or it can't be written.
    """
    made = formats().get(name)
    if made is None or made.writes is None:
        names = ", ".join(sorted(name for name, f in formats().items() if f.writes))
        problem = "can be read, but not written" if made else "does not exist"
        raise UsageError(
            f"The format {name!r:.80} {problem}. These can be written: {names}. {_NOT_WRITTEN}"
        )
    return made


def count_lost(made: Format, memories: Memories, deleted: Sequence[str]) -> list[Lost]:
    """What a format can't hold, the most frequent first.

    Args:
        made: the format.
        memories: what is written.
        deleted: the ids of the tombstones.
    """
    counts = Counter[str]()
    examples: dict[str, list[str]] = {}
    for memory_id, what in made.losses(memories):
        counts[what] += 1
        if counts[what] <= _EXAMPLES:
            examples.setdefault(what, []).append(memory_id)
    lost = [
        Lost(what=what, memories=count, examples=examples[what])
        for what, count in counts.most_common()
    ]
    if deleted:
        lost.append(Lost(what=DELETIONS, memories=len(deleted), examples=list(deleted[:_EXAMPLES])))
    return lost


def write_in_memory(made: Format, memories: Memories) -> dict[str, bytes]:
    """The content of each file that a format writes, by its relative path."""
    if made.writes == "file":
        return {f"memories{made.suffixes[0]}": b"".join(made.write(memories))}
    return dict(made.write_folder(memories))


def _suffixes(made: Format) -> tuple[str, ...]:
    suffixes = made.suffixes if made.writes == "file" else (_ZIP,)
    return (*suffixes, *(suffix + AGE for suffix in suffixes))


def _has_format(file: BinaryIO, context: Context, made: Format) -> bool:
    """Whether a file has the format for certain, and may thus be replaced."""
    try:
        content = context.plain(file, "The existing file")
        found = recognise(Source(origin_of_file("the file", content, context.limits)))
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
        path: where it is, or would be, as the caller sees it.
        size: its size in bytes.
    """

    context: Context
    request: ExportRequest
    made: Format
    reader: BundleReader
    export: Export
    lost: list[Lost] = field(default_factory=list)
    path: str = ""
    size: int = 0
    _existing: str | None = None
    """The text of the file that a part is written into."""

    def __post_init__(self) -> None:
        in_folder = self.made.writes == "folder"
        suffix = "" if in_folder else self.made.suffixes[0]
        self.path = self.request.output_path
        if self.request.spool_file:
            self.path = "memories" + (suffix or _ZIP)
        elif not self.path:
            name = dated_name("memories", datetime.now(UTC), suffix)
            self.path = os.fspath(self.context.settings.bundle_dir / name)

    def count_lost(self) -> None:
        """Count what the format can't hold of each memory."""
        self.reader.verify(lambda _done, _total: self.context.refuse_if_stopped(_NOT_WRITTEN))
        screen = self.export.screen
        deleted = [one.id for one in self.export.tombstones]
        if screen:
            deleted = [screen.masked(memory_id) for memory_id in deleted]
        begin = partial(self._memories, "Compared", _SPOOLED_PERCENT, _COUNTED_PERCENT)
        lost = count_lost(self.made, Memories(begin), deleted)
        self.lost = [one for one in lost if one.what != VECTOR or not self.request.vectors]

    def write(self) -> None:
        """Write the file or the folder."""
        begin = partial(self._memories, "Wrote", _COUNTED_PERCENT, 100.0)
        embedding, count = self.export.manifest.embedding, len(self.export.ids)
        memories = Memories(begin, embedding, count, vectors=self.request.vectors)
        if self.made.writes == "file":
            self._write_file(partial(self._write_parts, self.made.write(memories)))
        elif self.request.spool_file or self.path.lower().endswith(_suffixes(self.made)):
            self._write_file(partial(_write_zip, self.made.write_folder(memories)))
        else:
            path, done = self.context.bundle_folders.publish_folder(
                self.path,
                self.made.folder_kind(lambda: anyio.from_thread.run(self._stored)),
                self.made.write_folder(memories),
                overwrite=self.request.overwrite,
                allow_smaller=self.request.allow_smaller,
            )
            self.path, self.size = self.request.output_path or os.fspath(path), done.bytes
            self.export.notes.append(_changes(done))

    async def _stored(self) -> Stored:
        async with self.context.store() as store, store.session():
            return Stored(await store.list_ids(), await store.forgotten())

    def _write_parts(self, parts: Iterator[bytes], file: BinaryIO) -> None:
        if self._existing is None:
            file.writelines(parts)
        else:
            part = b"".join(parts).decode()
            file.write(self.made.within(self._existing, part).encode())

    def _may_replace(self, file: BinaryIO) -> bool:
        """Whether an existing file has the format, or may hold a part in it."""
        if not self.made.fills_part:
            return _has_format(file, self.context, self.made)
        try:
            data = self.context.plain(file, "The existing file").read(MIB + 1)
            text = data.decode()
        except (TribalError, UnicodeError):
            return False
        if self._existing not in {None, text}:
            raise UsageError("The file was changed during the export, so it was left as it is.")
        self._existing = text
        origin = FileOrigin(Path(self.path).name, BytesIO(data), self.context.limits)
        is_theirs = self.made.recognise(Source(origin)) is not None
        return len(data) <= MIB and (is_theirs or not text.strip() or BEGIN in text)

    def _write_file(self, write: Callable[[BinaryIO], None]) -> None:
        request, context = self.request, self.context
        publishing = (
            context.spool.writing(request.spool_file)
            if request.spool_file
            else context.bundle_folders.publish(
                self.path,
                overwrite=request.overwrite,
                is_bundle=self._may_replace,
                numbered=not request.output_path,
                suffixes=_suffixes(self.made),
                kind=self.made.title,
            )
        )
        with publishing as file, context.encrypted(file, self.path) as out:
            write(out)
        self.size = file.path.stat().st_size
        if not request.output_path and not request.spool_file:
            self.path = os.fspath(file.path)

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


def _write_zip(files: Iterator[tuple[str, bytes]], file: BinaryIO) -> None:
    """Write the files to an archive, the same bytes for the same files."""
    with ZipFile(file, "w") as archive:
        for path, content in files:
            archive.writestr(ZipInfo(path), content, ZIP_DEFLATED)


def _changes(done: Published) -> str:
    """What was changed in a folder, as a sentence."""
    parts = [
        f"{counted(done.written, 'file')} written",
        f"{done.files - done.written:,} unchanged",
        *([f"{done.removed:,} deleted"] if done.removed else []),
        *([f"{done.others:,} of others left alone"] if done.others else []),
    ]
    changes = f"{', '.join(parts)}."
    if done.restored:
        were = counted(done.restored, "of them was", "of them were")
        changes += f" {were} missing; to delete memories with their files, import the folder first."
    return changes


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
