"""Machines with a store each, and folders that they share."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.examples import memory
from tribal_mcp.config import Settings
from tribal_mcp.files.replica_folders import SharedFolder
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.results.sync import ConflictVersion, SyncResult
from tribal_mcp.services.sync.sync import sync
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints


@dataclass
class Machine:
    """A machine: its own folder, its store, and the path where it sees the shared folder."""

    home: Path
    shared: Path
    kept_in: MemoryStore | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    store: MemoryStore = field(init=False)
    point: str = ""
    listed: dict[str, list[ConflictVersion]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared.mkdir(parents=True, exist_ok=True)
        self.store = self.kept_in or InMemoryStore(self.home / "own")

    async def sync(self, **arguments: Any) -> SyncResult:  # noqa: ANN401 - any argument
        """Sync with the shared folder."""
        request = SyncRequest(**{"name": self.home.name, **arguments})
        return await sync(self.context(), request, SharedFolder(self.shared), self.store)

    def context(self) -> Context:
        """What the use case of this machine gets."""
        settings = Settings(data_dir=self.home, **self.settings)
        return Context(settings, Limits(), trusted=True)

    async def sync_and_note(self) -> SyncResult:
        """Sync, and note the restore point and the conflicts that are listed."""
        result = await self.sync(conflicts=True)
        self.point = result.restore_point or self.point
        self.listed = {one.memory_id: one.versions for one in result.conflict_details}
        return result

    async def put(self, number: int, **changes: Any) -> None:  # noqa: ANN401 - any field
        """Write a memory."""
        await self.store.upsert([memory(number, **changes)])

    async def texts(self) -> dict[str, str]:
        """The text of each memory."""
        found = await self.store.get_many(await self.store.list_ids())
        return {i: found[i].content for i in sorted(found)}

    async def get(self, number: int) -> MemoryEntry:
        """A memory that is there."""
        entry = await self.store.get(f"memory-{number}")
        assert entry is not None
        return entry

    @property
    def files(self) -> list[Path]:
        """All files of the shared folder."""
        return sorted(path for path in self.shared.rglob("*") if path.is_file())


def machines(tmp_path: Path, count: int = 2) -> list[Machine]:
    """Machines that see the same folder."""
    return [Machine(tmp_path / f"machine-{n}", tmp_path / "shared") for n in range(count)]


async def in_step(*all_machines: Machine) -> None:
    """Sync until nothing changes, and check that all hold the same."""
    for _ in range(3):
        for machine in all_machines:
            last = await machine.sync()
    assert (last.published, last.added, last.changed, last.deleted) == (0, 0, 0, 0)
    texts = [await machine.texts() for machine in all_machines]
    assert all(one == texts[0] for one in texts)


async def imported(
    machine: Machine, entries: list[MemoryEntry], *, gone: tuple[str, ...] = ()
) -> str:
    """What an import does to a store, with its restore point."""
    points = RestorePoints.of(machine.store)
    assert points is not None
    point = points.begin("import", "bad.json")
    change = Change(entries, dict.fromkeys(gone, 1_900_000_000_000_000))
    before = await machine.store.get_many(change.ids)
    point.save({i: before.get(i) for i in change.ids}, change)
    await machine.store.apply(change)
    return point.finish({"imported": len(entries)})


def carry(source: Machine, target: Machine) -> None:
    """Copy what one machine has of the folder to another, which has its own copy."""
    shutil.copytree(source.shared, target.shared, dirs_exist_ok=True)
