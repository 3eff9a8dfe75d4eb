"""Opens what an import reads: a bundle, or another system's source, which is turned into one."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.files.archives import origin_of_file
from tribal_mcp.files.origins import FileOrigin, Origin, head_of
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.envelope import is_wrapped, unwrap
from tribal_mcp.portability.bundle.reader import BundleReader, inline_file
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import ImportRequest
from tribal_mcp.services.results.bundles import ImportResult
from tribal_mcp.text import counted

if TYPE_CHECKING:
    from tribal_mcp.interchange.convert import Conversion
    from tribal_mcp.interchange.formats import Recognition
    from tribal_mcp.interchange.source import Source

BUNDLE = "bundle"
"""The name of this program's own format."""

NOT_IMPORTED = "Nothing was imported."
_ENTRY_KEYS = {"id", "content", "created_at"}
_BUNDLE_KEYS = {"manifest", "entries", "deleted", "integrity"}


@dataclass(frozen=True, slots=True)
class Opened:
    """What an import reads.

    Attributes:
        reader: the bundle.
        conversion: how it was made from another system's source; None for a bundle.
        others: the formats that the source might also have.
        notes: sentences for the user about what was not read.
    """

    reader: BundleReader
    conversion: "Conversion | None" = None
    others: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def is_edited_folder(self) -> bool:
        """Whether it is the folder of an export, in which people edit."""
        return self.conversion is not None and self.conversion.is_edited_folder

    def account(self, result: ImportResult) -> None:
        """Add to a result what became of the records that are not in the bundle."""
        if self.conversion is None:
            return
        made = self.conversion
        result.format = made.format.name
        result.found = made.found
        result.left_out = made.left_out.total()
        result.total += made.rejected_count
        result.errors += made.rejected_count
        result.error_details = [*map(str, made.rejected), *result.error_details]
        result.notes = [*self._notes(made), *result.notes]

    def next_steps(self, request: ImportRequest) -> list[NextStep]:
        """What to do about a source that has only conversations."""
        from tribal_mcp.interchange.base import MESSAGE  # noqa: PLC0415 - bundles don't need it

        made = self.conversion
        if made is None or made.entries or not made.left_out[MESSAGE]:
            return []
        given = request.model_dump(exclude_defaults=True, exclude={"spool_file", "bundle_json"})
        step = (
            "The source has no memories, only conversations. To import their messages, run {call}."
        )
        return [NextStep(step, "import", given | {"conversations": True})]

    def _notes(self, made: "Conversion") -> list[str]:
        name, why = made.format.name, made.evidence.why
        found = f"Recognised as {made.format.title} ({name}): {why:.500}."
        if self.others:
            found += f" It could also be read as {' or '.join(self.others)}."
        notes = [found, *self.notes]
        for reason, count in made.left_out.most_common():
            places = ", ".join(made.places[reason])
            more = ", …" if count > len(made.places[reason]) else ""
            left_out = counted(count, "record was", "records were")
            notes.append(f"{left_out} left out: {reason} ({places}{more}).")
        return notes


@asynccontextmanager
async def opened(context: Context, request: ImportRequest) -> AsyncIterator[Opened]:
    """What the request names.

    Raises:
        UsageError: the format is unknown, or the source could have several.
        BundleError: it is neither a bundle nor a source of a known format.
    """
    with ExitStack() as stack:
        yield await anyio.to_thread.run_sync(partial(_open, context, request, stack))


def _open(context: Context, request: ImportRequest, stack: ExitStack) -> Opened:
    def scratch() -> BinaryIO:
        if request.bundle_json:
            return BytesIO()
        return stack.enter_context(context.spool.scratch(elsewhere=request.dry_run))

    origin = _origin(context, request, stack)
    reader, problem = None, None
    if isinstance(origin, FileOrigin) and request.format in {"", BUNDLE}:
        try:
            file = _unwrapped(context, request, origin.file, scratch)
            reader = BundleReader(file, context.limits, scratch=scratch)
        except BundleError as error:
            problem = error
    if reader and (request.format or reader.manifest.embedding):
        return Opened(reader)
    found = _recognised(context, request, origin, plain=reader is not None)
    if found is None:
        if reader is None:
            raise _unknown(request, origin, problem)
        return Opened(reader)
    return _converted(context, request, origin, found, scratch)


def _origin(context: Context, request: ImportRequest, stack: ExitStack) -> Origin:
    limits = context.limits
    if request.input_path:
        origin = context.bundle_folders.open_origin(request.input_path, limits)
    elif request.bundle_json:
        origin = origin_of_file("the text", inline_file(request.bundle_json, limits), limits)
    else:
        file = stack.enter_context(context.spool.reading(request.spool_file))
        origin = origin_of_file("the body", context.plain(file, "The body"), limits)
    stack.callback(origin.close)
    return origin


def _unwrapped(
    context: Context, request: ImportRequest, file: BinaryIO, scratch: Callable[[], BinaryIO]
) -> BinaryIO:
    """The bundle in a file, without what TribalMemory's server wraps around it."""
    if request.spool_file or not is_wrapped(file, context.limits):
        return file
    alone = scratch()
    still_wanted = partial(context.refuse_if_stopped, NOT_IMPORTED)
    if options := unwrap(file, alone, context.limits, still_wanted):
        raise UsageError(
            f"{next(iter(options))!r:.80} stands beside the bundle in the file, where it has no "
            "effect. Nothing was imported. Remove it, and give it as an option of the import."
        )
    alone.seek(0)
    return alone


def _recognised(
    context: Context, request: ImportRequest, origin: Origin, *, plain: bool
) -> "Recognition | None":
    """The format of a source; None if none is known, or if it is a plain list of entries."""
    from tribal_mcp.interchange import formats  # noqa: PLC0415 - bundles don't need the parsers
    from tribal_mcp.interchange.base import POSSIBLE  # noqa: PLC0415
    from tribal_mcp.interchange.source import Source  # noqa: PLC0415

    context.refuse_if_stopped(NOT_IMPORTED)
    source = Source(origin)
    if request.format:
        return formats.named(request.format, source)
    if request.mapping:
        return formats.mapped(source)
    if _is_meant_as_bundle(source):
        return None
    found = formats.recognise(source)
    if found and plain and found.evidence.certainty <= POSSIBLE:
        path = source.file
        if path is not None and source.peek(path).keys >= _ENTRY_KEYS:
            return None
    return found


def _is_meant_as_bundle(source: "Source") -> bool:
    """Whether a file has the keys of a bundle and no others, even if the bundle is not valid."""
    keys = source.peek(source.file).keys if source.file is not None else frozenset()
    return "manifest" in keys and keys <= _BUNDLE_KEYS


def _converted(
    context: Context,
    request: ImportRequest,
    origin: Origin,
    found: "Recognition",
    scratch: Callable[[], BinaryIO],
) -> Opened:
    from tribal_mcp.interchange.base import Options  # noqa: PLC0415 - as above
    from tribal_mcp.interchange.convert import Conversion, convert  # noqa: PLC0415
    from tribal_mcp.interchange.source import Source  # noqa: PLC0415

    def on_progress(count: int) -> None:
        context.refuse_if_stopped(NOT_IMPORTED)
        message = f"Read {counted(count, 'record')}"
        anyio.from_thread.run_sync(context.progress, 0.0, message)

    conversion = Conversion(found.format, found.evidence)
    out = scratch()
    options = Options(request.conversations, pairs(request.mapping, "mapping"))
    convert(Source(origin), conversion, out, options, on_progress)
    if request.strict and conversion.rejected:
        raise BundleError(f"{conversion.rejected[0]}. {NOT_IMPORTED}")
    out.seek(0)
    reader = BundleReader(out, context.limits, scratch=scratch)
    return Opened(reader, conversion, [f.name for f in found.others], origin.notes)


def pairs(given: Sequence[str], name: str) -> dict[str, str]:
    """Arguments such as `["content=text"]` as a mapping.

    Raises:
        UsageError: one has no `=`, no name before it, or a name that another one has.
    """
    found: dict[str, str] = {}
    for pair in given:
        key, sign, value = pair.partition("=")
        if not sign or not key or key in found:
            raise UsageError(
                f"{name} has {pair!r:.80}; each must be two names with = between them, such as "
                f"'content=text', and none may be given twice. {NOT_IMPORTED}"
            )
        found[key] = value
    return found


def _unknown(request: ImportRequest, origin: Origin, problem: BundleError | None) -> BundleError:
    from tribal_mcp.interchange.formats import formats, mappable  # noqa: PLC0415 - as above
    from tribal_mcp.interchange.source import Source  # noqa: PLC0415

    source = Source(origin)
    if problem and _is_meant_as_bundle(source):
        return problem
    said = str(problem or f"{origin.name!r:.80} is not a bundle. {NOT_IMPORTED}")
    given: dict[str, Any] = {"input_path": request.input_path} if request.input_path else {}
    if table := mappable(source):
        step = NextStep(
            "Say which field is the text: {call}.",
            "import",
            {**given, "mapping": ["content=FIELD"], "dry_run": True},
        )
        return BundleError(
            f"{said} It is {table.evidence.why}, none of which is named content.", step
        )
    names = ", ".join(sorted(formats()))
    looked = f"It matches none of the other known formats either: {names}."
    path = source.file
    if path and source.peek(path).kind == "binary" and b"\0" not in head_of(origin, path):
        looked += " It is neither UTF-8 nor UTF-16 text. If it is text, save it as UTF-8."
    if problem and path and source.peek(path).kind not in {"text", "binary"}:
        return problem.extended(looked)
    advice = "To import other records, save them as CSV or JSON Lines, one a line."
    return BundleError(f"{said} {looked}", NextStep(advice))
