"""all-MiniLM-L6-v2 and similar models, run by onnxruntime on this machine.

A model is a folder with `model.onnx` and `tokenizer.json`. Texts of similar length are embedded
together, padded only to the longest of them: the vectors are those of Chroma's function, which pads
every text to 256 tokens.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH, checked
from tribal_mcp.embedding.model_files import MODEL_FILE, TOKENIZER_FILE, install
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MOST_TOKENS = 256
_TOGETHER = 16
"""Texts in one run of the model: larger batches are no faster on a processor, and need memory."""

Vectors = Callable[[Sequence[str]], list[Vector]]


@dataclass(slots=True)
class OnnxEmbedder:
    """An `Embedder` that runs a model with mean pooling on this machine.

    Attributes:
        identity: the model.
        folder: its files.
        downloads: whether missing files are downloaded; they are those of the default model.
    """

    identity: EmbeddingMetadata
    folder: Path
    downloads: bool = False
    _vectors: Vectors | None = None
    _alone: threading.Lock = field(default_factory=threading.Lock)

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002 - the model has one form for both
        """See `Embedder`."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            found = await anyio.to_thread.run_sync(self._embed, part)
            vectors += checked(found, part, self.identity)
        return vectors

    def _embed(self, texts: list[str]) -> list[Vector]:
        with self._alone:
            if self._vectors is None:
                if self.downloads:
                    install(self.folder)
                self._vectors = load(self.folder)
            return self._vectors(texts)


def load(folder: Path) -> Vectors:
    """The function that makes vectors of unit length with the model in that folder.

    Raises:
        EmbedderError: a file is missing or is not a model.
    """
    import onnxruntime  # noqa: PLC0415 - takes a tenth of a second
    from tokenizers import Tokenizer  # noqa: PLC0415

    for name in (MODEL_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise EmbedderError(f"The embedding model has no file {folder / name}.")
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # both libraries raise plain exceptions
        raise EmbedderError(
            f"The files in {folder} are not a model that onnxruntime can run: "
            f"{str(error).splitlines()[0][:200].rstrip('.')}."
        ) from error
    tokenizer.enable_truncation(max_length=_MOST_TOKENS)
    tokenizer.no_padding()
    takes = {given.name for given in session.get_inputs()}

    def pooled(encoded: Sequence[Any]) -> "npt.NDArray[np.float32]":
        """The vectors of texts, as rows."""
        import numpy as np

        longest = max(len(one.ids) for one in encoded)
        ids = np.zeros((len(encoded), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = one.ids
            mask[row, : len(one.ids)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [states] = session.run(None, {name: given[name] for name in takes})[:1]
        means = (states * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        vectors: npt.NDArray[np.float32] = (means / np.maximum(norms, 1e-12)).astype(np.float32)
        return vectors

    def embed(texts: Sequence[str]) -> list[Vector]:
        encoded = tokenizer.encode_batch(list(texts))
        by_length = sorted(range(len(encoded)), key=lambda place: len(encoded[place].ids))
        found: dict[int, Vector] = {}
        for start in range(0, len(by_length), _TOGETHER):
            places = by_length[start : start + _TOGETHER]
            found |= zip(places, pooled([encoded[place] for place in places]), strict=True)
        return [found[place] for place in range(len(texts))]

    return embed
