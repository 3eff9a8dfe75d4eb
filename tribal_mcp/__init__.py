"""Portable memories for AI agents: export and import a ChromaDB collection as JSON bundles."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tribal_mcp.errors import TribalError
    from tribal_mcp.portability.bundle.portable import PortableBundle
    from tribal_mcp.portability.choices import (
        ConflictResolution,
        MemorySource,
        ReembeddingStrategy,
        Secrets,
    )
    from tribal_mcp.portability.filters import ExportFilter
    from tribal_mcp.portability.manifest import create_embedding_metadata
    from tribal_mcp.portability.memory import MemoryEntry
    from tribal_mcp.services.import_export import (
        ImportSummary,
        export_memories,
        export_memories_streaming,
        import_memories,
        sync,
        undo,
    )
    from tribal_mcp.stores.chroma.store import open_store

__version__ = "0.2.0"

__all__ = [
    "ConflictResolution",
    "ExportFilter",
    "ImportSummary",
    "MemoryEntry",
    "MemorySource",
    "PortableBundle",
    "ReembeddingStrategy",
    "Secrets",
    "TribalError",
    "create_embedding_metadata",
    "export_memories",
    "export_memories_streaming",
    "import_memories",
    "open_store",
    "sync",
    "undo",
]

_HOMES = {
    "ConflictResolution": "portability.choices",
    "ExportFilter": "portability.filters",
    "MemoryEntry": "portability.memory",
    "MemorySource": "portability.choices",
    "PortableBundle": "portability.bundle.portable",
    "ReembeddingStrategy": "portability.choices",
    "Secrets": "portability.choices",
    "TribalError": "errors",
    "create_embedding_metadata": "portability.manifest",
    "open_store": "stores.chroma.store",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    # Imported when it is asked for: a server must answer before numpy is there.
    if name not in __all__:
        raise AttributeError(f"module 'tribal_mcp' has no attribute {name!r}")
    home = _HOMES.get(name, "services.import_export")
    return getattr(import_module(f"tribal_mcp.{home}"), name)
