"""What the backups in a folder already hold, for the next one to be compared with."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from tribal_mcp.errors import TribalError
from tribal_mcp.services.backups.catalog import Backup, Catalog
from tribal_mcp.services.context import Watch
from tribal_mcp.services.exporting.since import Changed, EarlierBundle
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.base import MemoryStore

_MOST_DAYS = 30
"""From this age of a full backup on, the next one is full, too."""


@dataclass(slots=True)
class Known:
    """What the backups already hold, as the starting point of an increment.

    Attributes:
        state: the newest full backup, with the changes of the newest increment since it.
        is_full_due: the full backup is old, or increments since it are large.
        again: what that increment has, which the next one has again: memories and tombstones.
        unchanged: nothing was changed, once the store has been compared.
        absent: memories that are missing in the store without a tombstone.
    """

    state: EarlierBundle
    is_full_due: bool = False
    again: set[str] = field(default_factory=set)
    unchanged: bool = False
    absent: int = 0

    @classmethod
    def read(cls, catalog: Catalog, now: datetime, encrypted: bool) -> Self | None:
        """What there is to compare with; None if the next backup is to be full."""
        good = [backup for backup in catalog.backups if not backup.problem]
        base = next((backup for backup in good if backup.kind == "full"), None)
        if base is None or base.is_encrypted != encrypted:
            return None
        last = next((backup for backup in good if catalog.base_of(backup) is base), None)
        state = _content(catalog, base)
        if state is None:
            return None
        is_old = now - base.at >= timedelta(days=_MOST_DAYS)
        known = cls(state, is_full_due=is_old or bool(last and 2 * last.bytes > base.bytes))
        changes = _content(catalog, last) if last else None
        if last and changes and catalog.is_good(last):
            known.again = changes.entries.keys() | changes.deleted.keys()
            for memory_id in changes.deleted:
                state.entries.pop(memory_id, None)
            for memory_id in changes.entries:
                state.deleted.pop(memory_id, None)
            state.entries.update(changes.entries)
            state.deleted.update(changes.deleted)
        return known

    def about(self) -> dict[str, Any]:
        """The manifest fields of an increment."""
        return self.state.about()

    def in_words(self) -> str:
        """The end of a phrase that begins with the selected memories."""
        return self.state.in_words()

    async def changed(
        self,
        store: MemoryStore,
        ids: list[str],
        *,
        filtered: bool,
        watch: Watch,
        screen: Screen | None = None,  # noqa: ARG002 - a backup has everything
    ) -> Changed:
        """What changed since the full backup."""
        found = await self.state.changed(store, ids, filtered=filtered, watch=watch)
        deleted = await store.forgotten()
        # A tombstone that is no longer here can't be in the next increment.
        lost = self.again - deleted.keys() - set(ids)
        self.absent = found.absent + len(lost)
        self.unchanged = not (found.ids or found.deleted or self.absent)
        changed = self.again.union(found.ids)
        return Changed(
            [i for i in ids if i in changed],
            {i: moment for i, moment in deleted.items() if i in self.again} | found.deleted,
        )


def _content(catalog: Catalog, backup: Backup) -> EarlierBundle | None:
    """The content of a backup; None if it is damaged, which is recorded."""
    with ExitStack() as stack:
        try:
            reader, verified = catalog.read(backup, stack)
            return EarlierBundle.verified(reader, verified.sha256, f"the backup {backup.name!r}")
        except TribalError as error:
            backup.problem = str(error)
    return None
