"""The use cases for the store's folder: check it, repair it, rescue a damaged one."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import anyio.to_thread

from tribal_mcp.errors import StoreDamaged, StoreMissing
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.layout import layout_of
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.services.context import Context
from tribal_mcp.services.left_out import describe_missing, no_store, without_collection
from tribal_mcp.services.maintenance.what_is_left import what_is_left
from tribal_mcp.services.requests import CheckRequest, ExportRequest
from tribal_mcp.services.results.maintenance import CheckResult, FolderProblem, RescueResult
from tribal_mcp.stores.chroma.rescue import Rescue
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.restore_points import RestorePoints


async def run_check(context: Context, request: CheckRequest) -> CheckResult:
    """Check the folder, after repairing it if that is requested."""
    async with context.folder() as store:
        result = await check_store(store, repair=request.repair)
        if result.sound:
            result.notes += await describe_missing(store, context.settings)
        return result


async def check_store(store: ChromaStore, *, repair: bool = False) -> CheckResult:
    """List the problems of the folder; with `repair`, repair it first.

    Raises:
        StoreDamaged: the database itself is damaged, so it can't be repaired.
    """
    done = await store.repair() if repair else []
    points = RestorePoints.of(store)
    if done and points:
        await anyio.to_thread.run_sync(points.record_repair, len(done))
    found = await store.check()
    problems = [FolderProblem(**asdict(problem), harmless=problem.harmless) for problem in found]
    sound = all(problem.harmless for problem in found)
    repairable = all(problem.repairable for problem in found)
    if any(problem.kind == "older" for problem in found):
        repairable = False  # only folders of the current version are repaired
    if sound:
        step = NextStep("To back it up, run {call}.", "export")
    elif repair or not repairable:
        text = "Some problems remain" if repair else "A repair can't correct this"
        step = NextStep(
            f"{text}. To save what is readable, run {{call}}.", "rescue", {"output_path": ...}
        )
    else:
        step = NextStep("To repair it, run {call}.", "check", {"repair": True})
    steps = [step]
    if repair and any("lost" in sentence for sentence in done):
        steps.insert(0, NextStep("To compute the lost vectors again, run {call}.", "reembed"))
    if sound and any(problem.kind == "leftover" for problem in problems) and not repair:
        steps.append(NextStep("To remove leftovers, run {call}.", "check", {"repair": True}))
    return CheckResult(sound=sound, problems=problems, done=done, next_steps=steps)


async def run_rescue(context: Context, request: ExportRequest) -> RescueResult:
    """Write what is readable of a damaged folder to a bundle."""
    layout, compression = layout_of(request.output_path)
    path = request.output_path
    context.check_encryption(path)
    publishing = context.publish(path, overwrite=request.overwrite)
    with publishing as file, context.encrypted(file, path) as out:
        writer = partial(BundleWriter, out, layout=layout, compression=compression)
        count, salvage = await _rescue(context, writer)
    return RescueResult(
        memory_count=count,
        output_path=request.output_path,
        bytes=file.path.stat().st_size,
        lost_rows=salvage.lost_rows,
        lost_vectors=salvage.lost_vectors,
        notes=salvage.damage,
        next_step="",
        next_steps=[
            NextStep(
                "To restore it, run {call} with a new folder, and check the memories before you "
                "remove the damaged one.",
                "import",
                {"input_path": request.output_path, "data_dir": ...},
                elsewhere=True,
            )
        ],
    )


async def _rescue(context: Context, writer: partial[BundleWriter]) -> tuple[int, Rescue]:
    """Rescue the store of the settings.

    Raises:
        StoreDamaged: nothing can be read; the message names what else there is.
        StoreMissing: there is no such collection; the message names those that there are.
    """
    store, settings = context.folder(), context.settings
    if not settings.data_dir.is_dir():
        raise StoreMissing(no_store(settings))
    try:
        count, salvage = await rescue_store(store, writer)
    except StoreDamaged as error:
        raise error.extended(*what_is_left(store, context)) from error
    if not count and salvage.main is None:
        if any(salvage.others.values()):
            raise StoreMissing(without_collection(settings, salvage.others))
        if salvage.damage or salvage.lost_rows:
            raise StoreDamaged(" ".join(["No memory can be read.", *salvage.damage])).extended(
                *what_is_left(store, context)
            )
    return count, salvage


async def rescue_store(store: ChromaStore, writer: partial[BundleWriter]) -> tuple[int, Rescue]:
    """Write what is readable to a bundle; the count of memories, and what was lost.

    Args:
        store: the folder and the collection.
        writer: makes the writer of a manifest.
    """

    def write(salvage: Rescue) -> tuple[int, Rescue]:
        dimensions = (salvage.main.dimension or 0) if salvage.main else 0
        embedding = salvage.identity or EmbeddingMetadata(UNKNOWN_MODEL, dimensions)
        bundle = writer(
            manifest=EmbeddingManifest(embedding, len(salvage.ids), datetime.now(UTC).isoformat())
        )
        for batch in salvage.lines():
            bundle.write_lines(batch.lines)
        bundle.write_deleted(Tombstone(*one) for one in salvage.forgotten().items())
        return bundle.finish().memory_count, salvage

    return await store.rescue(write)
