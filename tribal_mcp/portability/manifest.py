"""The manifest of a bundle, and the embedding model that it names.

Two embeddings are compatible if the model name and the dimensions are the same; the provider does
not matter. An unknown model is compatible with nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tribal_mcp.errors import BundleError, UsageError

SCHEMA_VERSION = "1.0"
COMPACT_VERSION = "1.1"
"""The schema version of bundles with base64 vectors, which TribalMemory can't read."""
READ_VERSIONS = (SCHEMA_VERSION, COMPACT_VERSION)
UNKNOWN_MODEL = "unknown"
NAME_CHARS = 500
"""The longest name of a model, provider or version in a manifest; results repeat them."""


@dataclass(frozen=True, slots=True)
class EmbeddingMetadata:
    """An embedding model: its name, the dimensions of its vectors, its provider."""

    model_name: str
    dimensions: int
    provider: str = UNKNOWN_MODEL
    created_at: str = ""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def known(self) -> bool:
        """Whether the model is named."""
        return bool(self.model_name) and self.model_name != UNKNOWN_MODEL

    def is_compatible_with(self, other: "EmbeddingMetadata") -> bool:
        """Whether vectors of both can be compared: same model name and dimensions."""
        return (
            self.known
            and other.known
            and self.dimensions == other.dimensions
            and same_model(self.model_name, other.model_name)
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, `embedding` in a manifest."""
        return {
            "model_name": self.model_name,
            "dimensions": self.dimensions,
            "provider": self.provider,
            "created_at": self.created_at,
            **self.extra,
        }

    @classmethod
    def from_dict(cls, data: object) -> "EmbeddingMetadata":
        """Read the JSON form.

        Raises:
            BundleError: it is not an object with a model name and dimensions.
        """
        rest = _object(data, "manifest.embedding")
        dimensions = rest.pop("dimensions", None)
        if type(dimensions) is not int or dimensions < 0:
            problem = "missing" if dimensions is None else f"{dimensions!r:.40}"
            raise BundleError(f"manifest.embedding.dimensions is {problem}; it must be 0 or more.")
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
    """Describe an embedding model, created now.

    Raises:
        UsageError: the name is empty, or the dimensions are not a positive integer.
    """
    if type(model_name) is str and not model_name.strip():
        raise UsageError("The model name is empty. Name the embedding model.")
    if type(dimensions) is not int or dimensions < 1:
        raise UsageError(f"dimensions is {dimensions!r:.40}; it must be a positive integer.")
    provider = UNKNOWN_MODEL if provider is None else provider  # type: ignore[redundant-expr]
    for name, value in (("model_name", model_name), ("provider", provider)):
        if type(value) is not str or len(value) > NAME_CHARS:
            raise UsageError(f"{name} must be text of at most {NAME_CHARS:,} characters.")
    return EmbeddingMetadata(model_name, dimensions, provider, datetime.now(UTC).isoformat())


def same_model(a: str, b: str) -> bool:
    """Whether two names mean the same model.

    Ignored: case, the suffix `:latest`, the prefix `models/`, and an owner (`owner/name`) that only
    one of them has.
    """
    owner_a, name_a = _spelling(a)
    owner_b, name_b = _spelling(b)
    return name_a == name_b and (owner_a == owner_b or not owner_a or not owner_b)


def _spelling(model_name: str) -> tuple[str, str]:
    plain = model_name.strip().casefold().removesuffix(":latest").removeprefix("models/")
    owner, _, name = plain.rpartition("/")
    return owner, name


SINCE = "since"
"""The field of a manifest that only an incremental bundle has."""
SELECTION = "selection"
"""The field of a manifest that only a filtered bundle has: the selection, in words."""


@dataclass(frozen=True, slots=True)
class EmbeddingManifest:
    """What a bundle says about itself. `embedding` is None if it has no manifest."""

    embedding: EmbeddingMetadata | None
    memory_count: int | None = None
    exported_at: str = ""
    schema_version: str = SCHEMA_VERSION
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def dimensions(self) -> int:
        """Numbers in each vector; 0 if unknown."""
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
            BundleError: a field is missing or has a wrong type, or the major version is not 1.
        """
        rest = _object(data, "manifest")
        version = _text(rest, "schema_version", "manifest")
        if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise BundleError(
                f"The bundle has schema version {version[:20]!r}; this release reads 1.x. "
                "Upgrade tribal-mcp to read it."
            )
        count = rest.pop("memory_count", None)
        if count is not None and (type(count) is not int or count < 0):
            raise BundleError(f"manifest.memory_count is {count!r}; it must be 0 or more.")
        if "embedding" not in rest:
            raise BundleError("manifest.embedding is missing; it names the embedding model.")
        return cls(
            embedding=EmbeddingMetadata.from_dict(rest.pop("embedding")),
            memory_count=count,
            exported_at=_text(rest, "exported_at", "manifest", ""),
            schema_version=version,
            extra={k: v for k, v in rest.items() if v is not None or k not in (SINCE, SELECTION)},
        )


def _object(data: object, name: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise BundleError(f"Not a bundle: {name} is not a JSON object.")
    return dict(data)


def _text(rest: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = rest.pop(name, None)
    if value is None and default is not None:
        return default
    if type(value) is not str:
        problem = "is missing" if value is None else f"is {value!r:.40}; it must be text"
        raise BundleError(f"{where}.{name} {problem}.")
    if len(value) > NAME_CHARS:
        raise BundleError(
            f"{where}.{name} has {len(value):,} characters; the limit is {NAME_CHARS:,}."
        )
    return value
