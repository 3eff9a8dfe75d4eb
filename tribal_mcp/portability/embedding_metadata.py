"""The documented path of what describes a bundle; the content is in the modules imported here."""

from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.portability.manifest import (
    SCHEMA_VERSION,
    UNKNOWN_MODEL,
    EmbeddingManifest,
    EmbeddingMetadata,
    create_embedding_metadata,
)
from tribal_mcp.portability.memory_json import entry_from_dict, entry_to_dict

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
