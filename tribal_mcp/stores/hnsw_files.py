"""Reads the vectors of one Chroma segment from its index files (hnswlib's own layout).

`header.bin` says where in an element of `data_level0.bin` the vector and the label stand,
`index_metadata.pickle` which label an id has, and `length.bin` the norm of each vector, by which a
cosine index has divided it.
"""

import mmap
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.memory import Vector

_HEADER = struct.Struct("<i6Qii3QdQ")
_FILES = ("header.bin", "data_level0.bin", "length.bin", "index_metadata.pickle")
_LABEL_BYTES = 8
_DELETED_BYTE = 2


class _PlainUnpickler(pickle.Unpickler):
    """Takes plain values only; a pickle that names anything to call is not Chroma's."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise StoreDamaged(
            f"index_metadata.pickle names {module}.{name}; Chroma writes plain values only, so "
            "this file is not to be trusted."
        )


class HnswFiles:
    """The index files of a segment; without files (all vectors are in the log) it is empty."""

    def __init__(self, folder: Path, *, normalized: bool) -> None:
        self._folder = folder
        self._normalized = normalized
        self._stamp = self._stamps()
        self._labels: dict[str, int] = {}
        self._map: mmap.mmap | None = None
        if (folder / "index_metadata.pickle").exists():
            self._open()

    def _open(self) -> None:
        with (self._folder / "index_metadata.pickle").open("rb") as file:
            try:
                stored = _PlainUnpickler(file).load()
                self._labels = stored["id_to_label"]
            except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
                raise StoreDamaged(f"index_metadata.pickle can't be read: {error}.") from error
        header = (self._folder / "header.bin").read_bytes()
        if len(header) != _HEADER.size:
            raise StoreDamaged(f"header.bin has {len(header)} bytes, not {_HEADER.size}.")
        (version, _, _, count, self._size, label_offset, data_offset, *_) = _HEADER.unpack(header)
        if version != 1 or label_offset + _LABEL_BYTES != self._size:
            raise StoreDamaged(f"header.bin has version {version}, which is not known.")
        with (self._folder / "data_level0.bin").open("rb") as file:
            whole = os.fstat(file.fileno()).st_size // self._size
            count = min(count, whole)
            if not count:
                return
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        elements = np.ndarray((count, self._size), np.uint8, self._map, strides=(self._size, 1))
        labels = elements[:, label_offset:].copy().view("<u8").ravel()
        alive = elements[:, _DELETED_BYTE] & 1 == 0
        self._places: dict[int, int] = dict(
            zip(labels[alive].tolist(), np.flatnonzero(alive).tolist(), strict=True)
        )
        dimensions = (label_offset - data_offset) // 4
        self._vectors = np.ndarray(
            (count, dimensions), "<f4", self._map, offset=data_offset, strides=(self._size, 4)
        )
        if self._normalized:
            self._norms = np.fromfile(self._folder / "length.bin", "<f4", count)

    def close(self) -> None:
        """Give the files back."""
        self._labels = {}
        if self._map is not None:
            del self._vectors
            self._map.close()
            self._map = None

    def changed(self) -> bool:
        """Whether Chroma has written the files since they were opened."""
        return self._stamp != self._stamps()

    def _stamps(self) -> list[Any]:
        stamps: list[Any] = []
        for name in _FILES:
            try:
                found = (self._folder / name).stat()
                stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
            except FileNotFoundError:
                stamps.append(None)
        return stamps

    def __contains__(self, record_id: str) -> bool:
        """Whether the index knows the id."""
        return record_id in self._labels

    def read(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those ids that are here, copied."""
        if self._map is None:
            return {}
        found = {i: p for i in ids if (p := self._places.get(self._labels.get(i, -1))) is not None}
        places = list(found.values())
        vectors = self._vectors[places]
        if self._normalized:
            vectors *= self._norms[places, None]
        vectors.setflags(write=False)
        return dict(zip(found, vectors, strict=True))
