"""A bundle's manifest, and the embedding model that it names.

Two embeddings are compatible when the model name and the dimensions agree; the provider that
serves a model does not matter. A model that nobody named is compatible with nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tribal_mcp.errors import BundleError, UsageError

SCHEMA_VERSION = "1.0"
COMPACT_VERSION = "1.1"
"""The schema version of bundles with base64 vectors, which the original can't read."""
READ_VERSIONS = (SCHEMA_VERSION, COMPACT_VERSION)
UNKNOWN_MODEL = "unknown"


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
