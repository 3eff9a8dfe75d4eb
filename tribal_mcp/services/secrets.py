"""What an export or an import does about the secrets in memories."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import orjson

from tribal_mcp.errors import SecretsFound, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import Secrets
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_fields, entry_fields, entry_from_dict
from tribal_mcp.redaction.detector import Detector
from tribal_mcp.redaction.memory import SecretsIn, redacted_text, secrets_in
from tribal_mcp.services.results.bundles import FoundSecrets, SecretsResult
from tribal_mcp.text import counted, memories

SHOWN = 20
"""Memories with secrets that a result or an error lists."""


class Screen:
    """Searches memories for secrets, and counts what it finds; for one export or import.

    Args:
        handling: what to do with them.
        detector: what finds them.

    Attributes:
        summary: what was found so far.
        lost_vectors: redacted memories that had a vector.
    """

    def __init__(self, handling: Secrets, detector: Detector) -> None:
        self.handling = handling
        self.summary = SecretsResult()
        self.lost_vectors = 0
        self._detector = detector
        self._kinds = Counter[str]()
        self._in_ids: list[FoundSecrets] = []
        self._ids_count = 0

    @classmethod
    def of(cls, handling: str, *, personal_data: bool) -> Self | None:
        """The screen that arguments ask for; None if they ask for none.

        Raises:
            UsageError: they contradict each other, or the detector is not installed.
        """
        if not handling:
            if personal_data:
                raise UsageError(
                    "personal_data only adds to what a search for secrets finds. Give secrets as "
                    "well: report, redact or refuse."
                )
            return None
        return cls(Secrets(handling), Detector(personal_data))

    @property
    def refuses(self) -> bool:
        """Whether what was found so far forbids the export."""
        found = self.summary.memories
        return bool(found if self.handling is Secrets.REFUSE else self._blocked)

    @property
    def _blocked(self) -> bool:
        return self.handling is Secrets.REDACT and self._ids_count > 0

    def lines(self, lines: Iterable[bytes]) -> list[bytes]:
        """Memories, each as `dump_entry` returns it, as they may leave; none once it refuses."""
        kept: list[bytes] = []
        for line in lines:
            fields = orjson.loads(line)
            screened = self.fields(fields)
            kept.append(line if screened is fields else dump_fields(screened))
        return [] if self.refuses else kept

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The JSON form of a memory as it may leave: the same object, or one without secrets."""
        found = self._redacted(fields)
        if found is None:
            return fields
        self._note(found, str(fields["id"]))
        if self.handling is not Secrets.REDACT:
            return fields
        self.lost_vectors += found.lost_vector
        return found.fields

    def entry(self, entry: MemoryEntry) -> MemoryEntry:
        """A memory as it may leave."""
        fields = entry_fields(entry)
        screened = self.fields(fields)
        return entry if screened is fields else entry_from_dict(screened, NO_LIMITS)

    def search(self, entries: Iterable[MemoryEntry]) -> None:
        """Count the secrets in memories."""
        for entry in entries:
            self.fields(entry_fields(entry))

    def compared(self, lines: Iterable[bytes]) -> list[bytes]:
        """Memories as `lines` gives them, uncounted: for a comparison with an earlier bundle."""
        if self.handling is not Secrets.REDACT:
            return list(lines)
        redacted = ((line, self._redacted(orjson.loads(line))) for line in lines)
        return [dump_fields(found.fields) if found else line for line, found in redacted]

    def content(self, entry: MemoryEntry) -> str:
        """The text of a memory without secrets, uncounted."""
        found = self._redacted(entry_fields(entry))
        return str(found.fields["content"]) if found else entry.content

    def masked(self, text: str) -> str:
        """A text that is shared with the memories, without secrets."""
        return redacted_text(text, self._detector)

    def values(self, values: dict[str, Any]) -> dict[str, Any]:
        """Fields of the manifest without secrets."""
        found = self._redacted({"metadata": values})
        return found.fields["metadata"] if found else values

    def deleted(self, ids: Iterable[str]) -> None:
        """Search the ids of deleted memories, which a bundle has, too."""
        for memory_id in ids:
            if found := self._redacted({"id": memory_id}):
                self._note(found, memory_id)

    def conclude(self) -> None:
        """Say no to an export that is to have no secrets.

        Raises:
            SecretsFound: it has, and can't go on without them.
        """
        if not self.refuses:
            return
        count, found = self.summary.memories, self.summary.first
        say = "memory contains", "memories contain"
        if self.handling is Secrets.REFUSE:
            redact = NextStep(
                "To export without the secrets, run {call}.",
                "export",
                self._again(Secrets.REDACT),
            )
            what = f"{counted(count, *say)} secrets"
            raise SecretsFound(f"{what}: {_listed(found, count)}. Nothing was exported.", redact)
        report = NextStep(
            "To see all memories with secrets, run {call}; that bundle contains them.",
            "export",
            self._again(Secrets.REPORT),
        )
        what = f"{counted(self._ids_count, *say)} a secret in an id or a link"
        raise SecretsFound(
            f"{what}, where it can't be redacted: {_listed(self._in_ids, self._ids_count)}. "
            "Nothing was exported. Export the other memories by tag or date, or store these under "
            "another id.",
            report,
        )

    def notes(self) -> list[str]:
        """Sentences for the user about what was found."""
        count = self.summary.memories
        if not count:
            return []
        kinds = ", ".join(f"{kind}: {n:,}" for kind, n in self.summary.kinds.items())
        if self.handling is not Secrets.REDACT:
            return [f"{counted(count, 'memory contains', 'memories contain')} secrets ({kinds})."]
        note = f"Secrets were redacted in {memories(count)} ({kinds})."
        if self.lost_vectors:
            one = self.lost_vectors == 1
            note += (
                f" {counted(self.lost_vectors, 'vector of theirs was', 'of their vectors were')} "
                f"left out: {'it encodes' if one else 'they encode'} the original text."
            )
        return [note]

    def _again(self, handling: Secrets) -> dict[str, Any]:
        """The arguments of another export."""
        personal_data = {"personal_data": True} if self._detector.personal_data else {}
        return {"output_path": ..., "secrets": handling.value, **personal_data}

    def _redacted(self, fields: dict[str, Any]) -> SecretsIn | None:
        return secrets_in(fields, self._detector)

    def _note(self, found: SecretsIn, memory_id: str) -> None:
        summary = self.summary
        summary.memories += 1
        self._kinds.update(found.kinds)
        summary.kinds = dict(sorted(self._kinds.items()))
        shown = FoundSecrets(id=found.masked(memory_id), kinds=found.kinds, fields=found.places)
        if len(summary.first) < SHOWN:
            summary.first.append(shown)
        if found.in_ids:
            self._ids_count += 1
            if len(self._in_ids) < SHOWN:
                self._in_ids.append(shown)


def _listed(found: Sequence[FoundSecrets], count: int) -> str:
    some = "; ".join(
        f"{one.id!r:.80} ({', '.join(one.kinds)} in {', '.join(one.fields)})" for one in found
    )
    return some + ("; …" if count > len(found) else "")
