"""Reads the vectors of one Chroma segment from its index files (hnswlib's own layout).

`header.bin` has the offsets of vector and label in an element of `data_level0.bin`,
`index_metadata.pickle` the label of each id, and `length.bin` the norm of each vector, by which a
cosine index has divided it. Chroma only appends elements, so a vector stays readable while newer
ones are being written, and if that is interrupted. (Over 300 lines: all of it is one layout.)
"""

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS, Labels

FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", LABELS)

_HEADER = struct.Struct("<i6Qii3QdQ")
_LABEL_BYTES = 8
_SECTOR = 512
_DELETED_BYTE = 2
_MAPPED_BYTES = 4 * 1024 * 1024
_AROUND_BYTES = 64 * 1024
"""How much Linux maps for one access, so that vectors in no order map far more than they are."""
_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)  # not on every platform
Stamps = list[list[int] | None]
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Places = npt.NDArray[np.int64]
else:
    Places = Any

_ROUNDING = 2.4e-7
"""Of one addition in float32, for the vector's length and for the product."""
_LEAST_SQUARE, _GREATEST_SQUARE = 1e-20, 1e20


def stamps(segment: Path) -> Stamps:
    """Size and modification time of each index file, None for a missing one."""
    found: Stamps = []
    for name in FILES:
        try:
            stat = (segment / name).stat()
            found.append([stat.st_size, stat.st_mtime_ns])
        except (FileNotFoundError, NotADirectoryError):
            found.append(None)
    return found


def stored_vectors(segment: Path, most: int) -> Vector | None:
    """The first vectors in the index as they are stored; None if the index can't be read."""
    try:
        index = HnswFiles(segment, normalized=False, labels=Labels(list))
    except StoreDamaged:
        return None
    try:
        return index.as_stored(most)
    finally:
        index.close()


class _Directions(NamedTuple):
    """What makes cosines of products, by place.

    Attributes:
        scale: one divided by the length of the vector.
        unknown: whether there is no vector of an id.
        extreme: the places of vectors that are too short or too long for float32.
    """

    scale: "npt.NDArray[np.float32]"
    unknown: "npt.NDArray[np.bool_]"
    extreme: "npt.NDArray[np.intp]"


class _Names(NamedTuple):
    """The ids of an index, as one text: as a list, those of 100,000 memories take 9 MiB."""

    text: bytes
    ends: Places
    by_place: Places
    """The number of the id of the vector at each place, -1 if it has none."""

    def of(self, numbers: Sequence[int]) -> list[str]:
        """The ids of those numbers."""
        return [
            self.text[self.ends[n] : self.ends[n + 1]].decode(errors="surrogatepass")
            for n in numbers
        ]


class HnswFiles:
    """The index files of a segment.

    Args:
        folder: the segment's directory.
        normalized: whether vectors are stored divided by their norms, as under cosine.
        labels: the labels of its ids; None for an empty index, whose vectors are all in the log.

    Raises:
        StoreDamaged: the files can't be read, or have an unknown layout.
    """

    def __init__(self, folder: Path, *, normalized: bool, labels: Labels | None) -> None:
        self._folder = folder
        self._normalized = normalized
        self._stamps = stamps(folder)
        self._labels = labels or Labels(list)
        self._map: mmap.mmap | None = None
        self._bytes = 0
        self._directions: _Directions | None = None
        self._names: _Names | None = None
        if labels is not None:
            try:
                self._open()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise StoreDamaged(f"The index files can't be read: {error.strerror}.") from error

    def _open(self) -> None:
        import numpy as np

        header = (self._folder / "header.bin").read_bytes()
        if len(header) != _HEADER.size:
            raise StoreDamaged(f"header.bin has {len(header)} bytes, not {_HEADER.size}.")
        (version, _, _, count, size, label_offset, data_offset, *_) = _HEADER.unpack(header)
        if version != 1 or not 0 < data_offset < label_offset == size - _LABEL_BYTES:
            raise StoreDamaged(f"header.bin has version {version} or unknown offsets.")
        self._size, self._data_offset = size, data_offset
        with (self._folder / "data_level0.bin").open("rb") as file:
            self._count = count
            count = min(count, os.fstat(file.fileno()).st_size // size)
            if not count:
                return
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        elements = np.ndarray((count, size), np.uint8, self._map, strides=(size, 1))
        labels = np.empty(count, "<i8")
        self._alive = np.empty(count, np.bool_)
        step = max(1, _MAPPED_BYTES // size)
        for part in (slice(start, start + step) for start in range(0, count, step)):
            labels[part] = elements[part, label_offset:].copy().view("<i8").ravel()
            self._alive[part] = elements[part, _DELETED_BYTE] & 1 == 0
            self._release(_MAPPED_BYTES)
        # Elements that were allocated and never written have label 0: only the first one counts.
        self._order = np.argsort(labels, kind="stable")
        self._sorted = labels[self._order]
        self._vectors = np.ndarray(
            (count, (label_offset - data_offset) // 4),
            "<f4",
            self._map,
            offset=data_offset,
            strides=(size, 4),
        )
        if self._normalized:
            norms = np.fromfile(self._folder / "length.bin", "<f4", count)
            self._norms = np.full(count, np.nan, np.float32)
            self._norms[: norms.size] = norms
            self._alive &= ~np.isnan(self._norms)

    def _release(self, count: int) -> None:
        """Release the pages that were read, so that the index takes no memory."""
        self._bytes += count
        if self._bytes >= _MAPPED_BYTES and self._map is not None:
            self._bytes = 0
            if _DONT_NEED is not None:
                self._map.madvise(_DONT_NEED)

    def close(self) -> None:
        """Close the files."""
        self._labels = Labels(list)
        self._directions = self._names = None
        if self._map is not None:
            del self._vectors
            self._map.close()
            self._map = None

    def changed(self) -> bool:
        """Whether Chroma has written the files since they were opened here."""
        return self._stamps != stamps(self._folder)

    def __contains__(self, record_id: str) -> bool:
        """Whether the index has a label for the id."""
        return record_id in self._labels

    def ids(self) -> set[str]:
        """The ids whose vectors can be read."""
        return set(self._places(list(self._labels)))

    def _places(self, ids: Sequence[str]) -> dict[str, int]:
        found = zip(ids, self.places(ids).tolist(), strict=True)
        return {i: place for i, place in found if place >= 0}

    def places(self, ids: Sequence[str]) -> Places:
        """Where the vectors of those ids are in the file, -1 for one that can't be read."""
        return self._places_of(self._labels.of(ids))

    def _places_of(self, labels: Places) -> Places:
        import numpy as np

        if self._map is None:
            return np.full(labels.size, -1)
        at = np.minimum(np.searchsorted(self._sorted, labels), self._sorted.size - 1)
        places = self._order[at]
        good = (labels >= 0) & (self._sorted[at] == labels) & self._alive[places]
        return np.where(good, places, -1)

    def ids_at(self, places: Places) -> list[str]:
        """The ids of the vectors at those places, which are none of -1."""
        names = self._with_names()
        return names.of(names.by_place[places].tolist())

    def readable(self) -> int:
        """How many ids have a vector that can be read."""
        return int((self._with_names().by_place >= 0).sum())

    def _with_names(self) -> "_Names":
        import numpy as np

        if self._names is None:
            texts, ends, end = [b""], [np.zeros(1, np.int64)], 0
            labels = [np.empty(0, np.int64)]
            for part in self._labels.pairs():
                names = [i.encode(errors="surrogatepass") for i in part]
                ends.append(end + np.cumsum(np.fromiter(map(len, names), np.int64, len(names))))
                end = int(ends[-1][-1]) if names else end
                texts.append(b"".join(names))
                labels.append(np.fromiter(part.values(), np.int64, len(names)))
            places = self._places_of(np.concatenate(labels))
            by_place = np.full(0 if self._map is None else self._alive.size, -1)
            readable = places >= 0
            by_place[places[readable]] = np.flatnonzero(readable)
            self._names = _Names(b"".join(texts), np.concatenate(ends), by_place)
        return self._names

    def near(self, direction: Vector) -> "tuple[npt.NDArray[np.float32], float]":
        """About how near each vector in the file is to a direction, and the largest error of that.

        The product of the mapped file with the direction: nothing is copied.

        Args:
            direction: float32 of shape (dimensions,) and of length 1.

        Returns:
            The cosine by place, -2 where there is no vector of an id, and infinity where float32
            does not suffice to compute it.
        """
        import numpy as np

        if self._map is None or direction.size != self._vectors.shape[1]:
            return np.empty(0, np.float32), 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            if self._directions is None:
                squares = np.einsum("ij,ij->i", self._vectors, self._vectors)
                unknown = self._with_names().by_place < 0
                computable = (squares > _LEAST_SQUARE) & (squares < _GREATEST_SQUARE)
                scale = np.where(computable, squares, 1).astype(np.float32) ** -0.5
                extreme = np.flatnonzero(~computable & ~unknown)
                self._directions = _Directions(scale, unknown, extreme)
            known = self._directions
            # BLAS would use threads, which wait for each other and gain nothing.
            cosines = np.einsum("ij,j->i", self._vectors, direction)
            cosines *= known.scale
        cosines[known.extreme] = np.inf
        cosines[known.unknown] = -2
        return cosines, _ROUNDING * direction.size

    def read(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those ids that can be read, copied."""
        found = self._places(ids)
        if not found:
            return {}
        places = list(found.values())
        vectors = self._vectors[places]
        self._release(len(places) * max(self._vectors.strides[0], _AROUND_BYTES))
        if self._normalized:
            vectors *= self._norms[places, None]
        vectors.setflags(write=False)
        return dict(zip(found, vectors, strict=True))

    def is_written(self, record_id: str, *, strict: bool) -> bool:
        """Whether the disk has stored the vector: no sector of it is left as zeros.

        Args:
            record_id: an id whose vector can be read.
            strict: a sector of zeros inside the vector counts. If not, the sector has to reach
                beyond the vector, into bytes that are never zero.
        """
        [place] = self._places([record_id]).values()
        data = self._map or b""
        if self._normalized and not self._norms[place]:
            return False
        start = place * self._size + self._data_offset
        end = place * self._size + self._size
        for sector in range(start // _SECTOR * _SECTOR, end, _SECTOR):
            inside = start <= sector and sector + _SECTOR <= end - _LABEL_BYTES
            if (strict or not inside) and not any(data[sector : sector + _SECTOR]):
                return False
        return True

    def torn_links(self) -> bool:
        """Whether `link_lists.bin` does not have one list for each vector."""
        if self._map is None:
            return False
        data = (self._folder / "link_lists.bin").read_bytes()
        at = 0
        for _ in range(self._count):
            if at + 4 > len(data):
                return True
            at += 4 + int.from_bytes(data[at : at + 4], "little")
        return at != len(data)

    def as_stored(self, most: int) -> Vector | None:
        """The first vectors in the file, of shape (vectors, dimensions), whatever their labels."""
        import numpy as np

        return None if self._map is None else np.array(self._vectors[:most])

    def all_vectors(self) -> Iterator[Vector]:
        """Every vector in the file, copied, whatever its label, deleted ones included."""
        import numpy as np

        if self._map is not None:
            for place in range(len(self._map) // self._size):
                start = place * self._size + self._data_offset
                end = place * self._size + self._size - _LABEL_BYTES
                yield np.frombuffer(self._map[start:end], "<f4")
