"""What becomes of the entries of an import: counted in its summary, and described one by one."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.conflicts import Action, Decision, Reason
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.services.results import DETAILS
from tribal_mcp.services.results.bundles import ChangeResult, ImportSummary
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.restore_points import Held

PREVIEW = 10
"""Changes that the result of a dry run lists; a plan file has all."""

_DAY_US = 24 * 60 * 60 * 1_000_000
_EXCERPT = 60
_SKIPPED = {
    Reason.IDENTICAL: "identical",
    Reason.OLDER: "older",
    Reason.SAME_TIME: "conflicts",
    Reason.EDITED_BOTH: "conflicts",
    Reason.DELETED_HERE: "forgotten",
    Reason.SAME_TEXT_HERE: "same_text_skipped",
    Reason.REDACTED: "redacted",
    Reason.REDACTED_LATER: "redacted",
}
_OF_COMPLETE = {Reason.REDACTED, Reason.REDACTED_LATER}
"""The stored memory has secrets that the entry lacks: a plan doesn't quote it."""
_WRITTEN = {
    Reason.KEPT_BOTH: "kept_both",
    Reason.RESTORED: "brought_back",
    Reason.SAME_TEXT: "same_text",
}


@dataclass(slots=True)
class Report:
    """Counts every entry in one bucket of a summary, and describes it.

    Attributes:
        summary: the counts, the first errors and, for a dry run, the first changes.
        on_change: receives what becomes of every entry; for a plan file.
        screen: searches what is imported for secrets; none is quoted then.
        made: ids in the current batch whose vectors were made for this import.
        redacted_later: redacted entries that were changed later than the stored memories.
    """

    summary: ImportSummary
    on_change: Callable[[ChangeResult], None] | None = None
    screen: Screen | None = None
    made: set[str] = field(default_factory=set)
    redacted_later: int = 0
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    """Of the current batch, by the summary's names."""
    _future: int = field(default_factory=lambda: time.time_ns() // 1000 + _DAY_US, init=False)

    @property
    def is_complete(self) -> bool:
        """Whether every entry is described, and not only the first changes."""
        return self.on_change is not None

    def reject(self, entry: RejectedEntry) -> None:
        """Count an entry that can't be read."""
        self.summary.errors += 1
        reason = self._masked(str(entry))
        if len(self.summary.error_details) < DETAILS:
            self.summary.error_details.append(reason)
        if self.on_change:
            shown = self._masked(entry.id or "")
            self.on_change(ChangeResult(id=shown, action="reject", reason=reason))

    def count(self, decision: Decision, source: MemoryEntry, written: MemoryEntry) -> None:
        """Count an entry of the bundle.

        Args:
            decision: what becomes of it.
            source: as it is in the bundle.
            written: as the store is to get it.
        """
        counts, reason = self._counts, decision.reason
        if microseconds(source.updated_at) > self._future:
            counts["from_the_future"] += 1
        if decision.action is Action.SKIP:
            counts["skipped"] += 1
            self.redacted_later += reason is Reason.REDACTED_LATER
            if name := _SKIPPED.get(reason):
                counts[name] += 1
            return
        counts["imported" if decision.action is Action.INSERT else "overwritten"] += 1
        if name := _WRITTEN.get(reason):
            counts[name] += 1
        if written.embedding is None:
            counts["without_vector"] += 1
            counts["vectors_dropped"] += source.embedding is not None
        else:
            counts["vectors_reembedded" if source.id in self.made else "vectors_kept"] += 1

    def add_up(self) -> None:
        """Add the counts of a batch to the summary, whose fields are slow to set."""
        for name, count in self._counts.items():
            setattr(self.summary, name, getattr(self.summary, name) + count)
        self._counts.clear()

    def describe(
        self, decision: Decision, memory_id: str, stored: Held, written: MemoryEntry | None
    ) -> None:
        """Describe what becomes of an entry or a tombstone, if it is to be listed.

        Args:
            decision: what becomes of it.
            memory_id: its id in the bundle.
            stored: what the store has under that id.
            written: the memory as the store is to get it; None for a tombstone.
        """
        previewed = (
            self.summary.dry_run
            and (decision.action is not Action.SKIP or decision.reason is Reason.EDITED_BOTH)
            and len(self.summary.changes) < PREVIEW
        )
        if not previewed and not self.on_change:
            return
        change = ChangeResult(
            id=self._masked(memory_id),
            action=decision.action.value,
            reason=decision.reason.value,
        )
        if written is not None and written.id != memory_id:
            change.new_id = self._masked(written.id)
        if isinstance(stored, MemoryEntry) and decision.reason not in _OF_COMPLETE:
            change.here = self._excerpt(stored)
        if written is not None and decision.reason is not Reason.IDENTICAL:
            change.bundle = self._excerpt(written)
            if isinstance(stored, MemoryEntry):
                change.fields = sorted(differing_fields(stored, written))
        if previewed:
            self.summary.changes.append(change)
        if self.on_change:
            self.on_change(change)

    def _masked(self, text: str) -> str:
        return self.screen.masked(text) if self.screen else text

    def _excerpt(self, entry: MemoryEntry) -> str:
        text = self.screen.content(entry) if self.screen else entry.content
        words = " ".join(text[: 4 * _EXCERPT].split())
        return words if len(words) <= _EXCERPT else words[: _EXCERPT - 1] + "…"


def differing_fields(stored: MemoryEntry, written: MemoryEntry) -> set[str]:
    """The names of the fields in which they differ."""
    one, two = entry_fields(stored), entry_fields(written)
    one["embedding"], two["embedding"] = (
        None if e.embedding is None else e.embedding.tobytes() for e in (stored, written)
    )
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
