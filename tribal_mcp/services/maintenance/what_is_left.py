"""What is left of a store that can't be read: restore points, bundles, and copies of its folder."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tribal_mcp.errors import TribalError
from tribal_mcp.files.bundle_folders import SUFFIXES
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.services.context import Context
from tribal_mcp.stores.chroma.migration import COPIES, DATABASE
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.last_export import last_export
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.text import counted, memories

_MOST = 5


def what_is_left(store: ChromaStore, context: Context) -> tuple[str, *tuple[NextStep, ...]]:
    """What is left in sentences, and how to import the newest bundle.

    Args:
        store: the damaged store.
        context: where it is, and where bundles may be.
    """
    found = [*_restore_points(store), *_copies(context.settings.data_dir)]
    bundles = _bundles(store, context)
    for path, count in bundles[:_MOST]:
        found.append(f"the bundle {path} ({memories(count)})")
    if len(bundles) > _MOST:
        found.append(f"{counted(len(bundles) - _MOST, 'older bundle')} beside them")
    if not found:
        return ("No restore points, copies of the folder or bundles were found nearby.",)
    steps = []
    if bundles:
        text = "To import the newest bundle, run {call} with a new folder."
        given = {"input_path": str(bundles[0][0]), "data_dir": ...}
        steps.append(NextStep(text, "import", given, elsewhere=True))
    return f"Found nearby: {'; '.join(found)}.", *steps


def _restore_points(store: ChromaStore) -> Iterator[str]:
    with suppress(TribalError, OSError):
        points = RestorePoints.of(store)
        kept = [point for point in points.all() if not point.emptied] if points else []
        if points and kept:
            newest = kept[0].made_at.isoformat(timespec="seconds")
            yield (
                f"{counted(len(kept), 'restore point')} in {points.folder}, with what operations "
                f"replaced (the newest of {newest})"
            )


def _copies(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for path in sorted(folder.parent.glob(f"{folder.name}{COPIES}*"))[-_MOST:]:
            if (path / DATABASE).exists():
                yield f"the copy {path} of the folder, from before its conversion"


def _bundles(store: ChromaStore, context: Context) -> list[tuple[Path, int]]:
    """The bundles in the usual folders with their counts, the newest first."""
    settings, limit = context.settings, context.limits.file_bytes
    folders = {settings.bundle_dir, settings.data_dir, settings.data_dir / "bundles", Path.cwd()}
    paths: set[Path] = set()
    with suppress(TribalError):
        exported = last_export(store.own_folder, settings.collection) or {}
        paths.add(Path(str(exported.get("path", ""))))
    for folder in folders:
        with suppress(OSError):
            paths.update(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES))
    found: list[tuple[float, Path, int]] = []
    for path in paths:
        with suppress(OSError, TribalError):
            if path.is_file():
                opened = context.bundle_folders.open_input(str(path), limit, as_it_is=True)
                with opened as file:
                    manifest = BundleReader(context.head(file, path.name), context.limits).manifest
                if manifest.embedding is not None:
                    found.append((path.stat().st_mtime, path, manifest.memory_count or 0))
    return [(path, count) for _, path, count in sorted(found, reverse=True)]
