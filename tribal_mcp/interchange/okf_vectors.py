"""The vectors of memories beside their Markdown files, in a folder of their own."""

import hashlib
from typing import Any

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.okf_files import json_line, key_of
from tribal_mcp.interchange.reading import parsed
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.portability.vectors import vector_from_base64, vector_to_base64
from tribal_mcp.text import counted

VECTORS = "vectors/"
"""The folder."""
_MODEL = f"{VECTORS}model.json"
_VECTOR_BYTES = 1 << 20


def vector_file(entry: MemoryEntry) -> tuple[str, bytes]:
    """The path and the content of the file with the vector of a memory that has one."""
    assert entry.embedding is not None  # noqa: S101 - the caller's part
    fields = {"id": entry.id, "content": _text_hash(entry)}
    if model := own_model(entry):
        fields["model"] = model
    fields["embedding"] = vector_to_base64(entry.embedding)
    return _vector_path(entry.id), f"{json_line(fields)}\n".encode()


def model_file(model: EmbeddingMetadata) -> tuple[str, bytes]:
    """The path and the content of the file that names the model of the vectors."""
    return _MODEL, f"{json_line(model.to_dict())}\n".encode()


class ReadVectors:
    """The vectors in a folder: each is of the text that its memory had at the export.

    Attributes:
        model: that made them, unless a vector names another one; None if there are no vectors.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._unusable = 0
        found = self._values(_MODEL)
        self.model = EmbeddingMetadata.from_dict(found) if found else None

    def added(self, entry: MemoryEntry) -> MemoryEntry:
        """The memory with its vector, if there is one of its text."""
        values = self._values(_vector_path(entry.id)) if self.model else None
        if values is None or values.get("content") != _text_hash(entry):
            return entry
        try:
            vector = vector_from_base64(values["embedding"])
        except (EntryError, KeyError, TypeError, AttributeError):
            self._unusable += 1
            return entry
        model = values.get("model")
        return with_vector(entry, vector, model if isinstance(model, str) else None)

    def finish(self) -> None:
        """Note how many vectors can't be read."""
        if self._unusable:
            vectors = counted(self._unusable, "vector was", "vectors were")
            self._source.notes.append(f"{vectors} not read, because the files are damaged.")

    def _values(self, path: str) -> dict[str, Any] | None:
        try:
            with self._source.open(path) as file:
                found = parsed(file.read(_VECTOR_BYTES))
        except KeyError:
            return None
        except EntryError:
            self._unusable += 1
            return None
        return found if isinstance(found, dict) else None


def _vector_path(memory_id: str) -> str:
    key = key_of(memory_id)
    return f"{VECTORS}{key[:2]}/{key}.json"


def _text_hash(entry: MemoryEntry) -> str:
    return f"sha256:{hashlib.sha256(entry.content.encode()).hexdigest()[:32]}"
