"""Looking after the store's folder: check it, mend it, save what can be read of a damaged one."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.services.results import CheckResult, ProblemResult
from tribal_mcp.stores.chroma.salvage import Salvage
from tribal_mcp.stores.chroma.store import ChromaStore


async def check_store(store: ChromaStore, *, repair: bool = False) -> CheckResult:
    """Say what is wrong with the folder; with `repair`, mend it first.

    Raises:
        StoreDamaged: the database itself is damaged, so that it can't be mended.
    """
    done = await store.repair() if repair else []
    problems = [
        ProblemResult(**asdict(problem), harmless=problem.harmless)
        for problem in await store.check()
    ]
    sound = all(problem.harmless for problem in problems)
    if sound:
        step = "Back it up with tribal_export."
    elif repair:
        step = "Not all could be mended. Save what can be read with `tribal-mcp rescue FILE`."
    else:
        step = "Mend it with `tribal-mcp check --repair`."
    return CheckResult(sound=sound, problems=problems, done=done, next_step=step)


async def rescue_store(store: ChromaStore, writer: partial[BundleWriter]) -> tuple[int, Salvage]:
    """Write what can be read to a bundle: how many memories, and what was lost.

    Args:
        store: the folder and the collection.
        writer: makes the writer of a manifest.
    """

    def write(salvage: Salvage) -> tuple[int, Salvage]:
        ids = salvage.ids
        embedding = salvage.identity or EmbeddingMetadata(
            UNKNOWN_MODEL, next((c.dimension or 0 for c in salvage.collections), 0)
        )
        bundle = writer(
            manifest=EmbeddingManifest(embedding, len(ids), datetime.now(UTC).isoformat())
        )
        for batch in salvage.lines(ids):
            bundle.write_lines(batch.lines)
        forgotten = salvage.forgotten(set(ids))
        bundle.write_deleted(Tombstone(*one) for one in forgotten.items())
        return bundle.finish().memory_count, salvage

    return await store.rescue(write)
