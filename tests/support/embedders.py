"""An embedder without a model: each word adds its own fixed direction."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.stores.base import StoreState


class BagOfWords:
    """An `Embedder` that places texts with common words near, and its own `embedder_of`."""

    def __init__(self, name: str = "bag-of-words", dimensions: int = 64, fails: str = "") -> None:
        self.identity = EmbeddingMetadata(name, dimensions, "tests", "2026-01-01T00:00:00+00:00")
        self.fails = fails
        self.asked: list[str] = []

    def __call__(self, _state: StoreState) -> "BagOfWords":
        return self

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002 - queries are embedded like texts
        self.asked += texts
        if self.fails:
            raise EmbedderError(self.fails)
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> Vector:
        """Return the vector of a text, of unit length."""
        total = np.full(self.identity.dimensions, 1e-3)
        for word in re.findall(r"\w+", text.casefold()):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
            total += np.random.default_rng(seed).normal(size=total.size)
        return as_vector((total / np.linalg.norm(total)).astype(np.float32))


def no_embedder(_state: StoreState) -> None:
    """Use as `embedder_of`: no embedder is available."""
