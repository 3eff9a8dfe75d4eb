"""Which model made a vector; the manifest; a whole bundle in memory.

Two embeddings are compatible when the model name and the dimensions agree; the provider that
serves a model does not matter. A model that nobody named is compatible with nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.portability.bundle.entries import (
    EntryReader,
    ExactIds,
    RejectedEntry,
    canonical_json,
)
from tribal_mcp.portability.bundle.integrity import EntriesHash, Integrity
from tribal_mcp.portability.bundle.tombstones import Tombstone, TombstoneReader, dump_tombstone
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.memory import (
    MemoryEntry,
    dump_entry,
    entry_from_dict,
    entry_to_dict,
)
from tribal_mcp.portability.strict_json import check

__all__ = [
    "SCHEMA_VERSION",
    "UNKNOWN_MODEL",
    "EmbeddingManifest",
    "EmbeddingMetadata",
    "Integrity",
    "PortableBundle",
    "ReembeddingStrategy",
    "RejectedEntry",
    "create_embedding_metadata",
    "entry_from_dict",
    "entry_to_dict",
]

SCHEMA_VERSION = "1.0"
UNKNOWN_MODEL = "unknown"


class ReembeddingStrategy(StrEnum):
    """What an import does with the vectors of a bundle."""

    AUTO = "auto"
    """Keep them when the models match, else drop them."""
    KEEP = "keep"
    """Keep them whatever the model."""
    DROP = "drop"
    """Drop them."""
    REEMBED = "reembed"
    """Keep them when the models match; make the others, and those that are missing, anew."""


@dataclass(frozen=True, slots=True)
class EmbeddingMetadata:
    """The model behind the vectors: its name, their dimensions, who served it, since when."""

    model_name: str
    dimensions: int
    provider: str = UNKNOWN_MODEL
    created_at: str = ""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def known(self) -> bool:
        """Whether somebody named the model."""
        return bool(self.model_name) and self.model_name != UNKNOWN_MODEL

    def is_compatible_with(self, other: "EmbeddingMetadata") -> bool:
        """Whether vectors of both may be compared: the same model name and dimensions."""
        return (
            self.known
            and other.known
            and self.dimensions == other.dimensions
            and same_model(self.model_name, other.model_name)
        )

    def to_dict(self) -> dict[str, Any]:
        """The manifest's `embedding`."""
        return {
            "model_name": self.model_name,
            "dimensions": self.dimensions,
            "provider": self.provider,
            "created_at": self.created_at,
            **self.extra,
        }

    @classmethod
    def from_dict(cls, data: object) -> "EmbeddingMetadata":
        """Read a manifest's `embedding`.

        Raises:
            BundleError: it is not an object with a model name and a number of dimensions.
        """
        rest = _object(data, "manifest.embedding")
        dimensions = rest.pop("dimensions", None)
        if type(dimensions) is not int or dimensions < 0:
            raise BundleError(
                f"manifest.embedding.dimensions is {dimensions!r}; it must be a whole number."
            )
        return cls(
            model_name=_text(rest, "model_name", "manifest.embedding"),
            dimensions=dimensions,
            provider=_text(rest, "provider", "manifest.embedding", UNKNOWN_MODEL),
            created_at=_text(rest, "created_at", "manifest.embedding", ""),
            extra=rest,
        )

    def __str__(self) -> str:
        if not self.known:
            return f"an unknown model ({self.dimensions} dimensions)"
        return f"{self.model_name} ({self.dimensions} dimensions)"


def create_embedding_metadata(
    model_name: str, dimensions: int, provider: str = UNKNOWN_MODEL
) -> EmbeddingMetadata:
    """Describe an embedding model, as of now.

    Raises:
        UsageError: the name is empty or the dimensions are not a positive whole number.
    """
    if not model_name.strip():
        raise UsageError("The model name is empty. Give the name of the model.")
    if type(dimensions) is not int or dimensions < 1:
        raise UsageError(f"dimensions is {dimensions!r}; give a positive whole number.")
    return EmbeddingMetadata(model_name, dimensions, provider, datetime.now(UTC).isoformat())


def same_model(a: str, b: str) -> bool:
    """Whether two spellings name one model.

    Case, `:latest`, `models/` before it and an owner that one of them leaves out don't count.
    """
    owner_a, name_a = _spelling(a)
    owner_b, name_b = _spelling(b)
    return name_a == name_b and (owner_a == owner_b or not owner_a or not owner_b)


def _spelling(model_name: str) -> tuple[str, str]:
    plain = model_name.strip().casefold().removesuffix(":latest").removeprefix("models/")
    owner, _, name = plain.rpartition("/")
    return owner, name


@dataclass(frozen=True, slots=True)
class EmbeddingManifest:
    """The head of a bundle. `embedding` is None where nobody wrote a manifest."""

    embedding: EmbeddingMetadata | None
    memory_count: int | None = None
    exported_at: str = ""
    schema_version: str = SCHEMA_VERSION
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def dimensions(self) -> int:
        """Numbers in each vector; 0 where nobody said."""
        return self.embedding.dimensions if self.embedding else 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        embedding = self.embedding or EmbeddingMetadata(UNKNOWN_MODEL, 0)
        return {
            "schema_version": self.schema_version,
            "embedding": embedding.to_dict(),
            "memory_count": self.memory_count,
            "exported_at": self.exported_at,
            **self.extra,
        }

    @classmethod
    def from_dict(cls, data: object) -> "EmbeddingManifest":
        """Read the JSON form.

        Raises:
            BundleError: a field is missing or of a wrong type, or the major version is not 1.
        """
        rest = _object(data, "manifest")
        version = _text(rest, "schema_version", "manifest")
        if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise BundleError(
                f"The bundle has schema version {version[:20]!r}; this version reads 1.x. "
                "Read it with a newer tribal-mcp."
            )
        count = rest.pop("memory_count", None)
        if count is not None and (type(count) is not int or count < 0):
            raise BundleError(f"manifest.memory_count is {count!r}; it must be a whole number.")
        if "embedding" not in rest:
            raise BundleError("manifest.embedding is missing; it must name the embedding model.")
        return cls(
            embedding=EmbeddingMetadata.from_dict(rest.pop("embedding")),
            memory_count=count,
            exported_at=_text(rest, "exported_at", "manifest", ""),
            schema_version=version,
            extra=rest,
        )


@dataclass(slots=True)
class PortableBundle:
    """A bundle that is held in memory.

    `rejected` lists the entries that could not be read; an import reports them as errors.
    `deleted` says which memories were forgotten, and when.
    `notes` are sentences for the user about what was read or left out.
    """

    manifest: EmbeddingManifest
    entries: list[MemoryEntry] = field(default_factory=list)
    rejected: list[RejectedEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    deleted: list[Tombstone] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with the integrity block of what is in it.

        Raises:
            BundleError: entries were rejected when it was read, so that it is not whole.
        """
        if self.rejected:
            raise BundleError(
                f"{len(self.rejected)} entries of this bundle could not be read, the first at "
                f"{self.rejected[0]}. Mend them, or clear `rejected` to write it without them."
            )
        return {
            "manifest": replace(self.manifest, memory_count=len(self.entries)).to_dict(),
            "entries": [entry_to_dict(entry) for entry in self.entries],
            **({"deleted": [one.to_dict() for one in self.deleted]} if self.deleted else {}),
            "integrity": integrity_of(self.entries, self.deleted).to_dict(),
        }

    @classmethod
    def from_dict(cls, data: object) -> "PortableBundle":
        """Read the JSON form.

        Raises:
            BundleError: it is not a bundle, or not whole. One bad entry does not refuse it: that
                goes to `rejected`.
        """
        rest = _object(data, "The bundle")
        if "manifest" not in rest:
            raise BundleError("manifest is missing, so this is not a bundle.")
        manifest = EmbeddingManifest.from_dict(rest["manifest"])
        if not isinstance(rest.get("entries"), list):
            raise BundleError("entries is missing or not a list, so this is not a bundle.")
        bundle = cls(manifest)
        deleted = rest.get("deleted", [])
        if not isinstance(deleted, list):
            raise BundleError("deleted is not a list, so this is not a bundle.")
        ids = ExactIds()
        tombstones = TombstoneReader(ids)
        for position, item in enumerate(deleted, start=1):
            bundle.deleted.append(tombstones.read(item, position))
        reader = EntryReader(manifest.dimensions, ids=ids)
        for position, item in enumerate(rest["entries"], start=1):
            try:
                check(item, DEFAULT_LIMITS.nesting)
                entry = reader.read(item, position)
            except EntryError as error:
                entry = reader.reject(canonical_json(item), position, str(error))
            if isinstance(entry, RejectedEntry):
                bundle.rejected.append(entry)
            else:
                bundle.entries.append(entry)
        integrity = Integrity.from_dict(rest["integrity"]) if "integrity" in rest else None
        reader.finish(manifest.memory_count, integrity)
        tombstones.finish(integrity)
        return bundle


def integrity_of(entries: Iterable[MemoryEntry], tombstones: Iterable[Tombstone] = ()) -> Integrity:
    """The integrity block of these entries and tombstones, in this order.

    Raises:
        BundleError: one holds what would not come back the same.
    """
    digest = EntriesHash()
    for entry in entries:
        try:
            digest.add(dump_entry(entry))
        except EntryError as error:
            raise BundleError(f"The memory {entry.id!r:.80} can't be written: {error}.") from None
    deleted = EntriesHash()
    for tombstone in tombstones:
        deleted.add(dump_tombstone(tombstone))
    return Integrity.of(digest, deleted)


def _object(data: object, name: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise BundleError(f"{name} is not an object, so this is not a bundle.")
    return dict(data)


def _text(rest: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = rest.pop(name, default)
    if type(value) is not str:
        problem = "is missing" if value is None else f"is {value!r:.40}; it must be text"
        raise BundleError(f"{where}.{name} {problem}.")
    return value
