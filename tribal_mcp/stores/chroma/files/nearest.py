"""Exact cosine search: one product of the question with the mapped index file.

The product is in float32 and only chooses candidates. Their cosines are computed again in float64,
and enough candidates are taken for the result to be the same as if all had been compared so.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tribal_mcp.portability.vectors import Vector, cosines
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.search import Nearest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CANDIDATES = (3, 40, 200)
"""For each memory that is asked for: more are taken if the filter leaves too few. If it leaves too
few of the most, the ids that match it are listed instead."""
_EQUAL = 1e-8
"""Cosines that differ by less are ordered by insertion."""
_HIDDEN = -2
"""How near a vector is that is left out."""
_AT_ONCE = 1000


class LostVector(Exception):
    """A record has no vector."""


class Which(NamedTuple):
    """A filter, as in `ChromaTables.matching_ids`."""

    tags: Sequence[str] = ()
    from_us: int | None = None
    to_us: int | None = None


class _Candidates:
    """All vectors of a collection, by how near they are to a question.

    Attributes:
        error: the largest error of how near a vector is.
    """

    def __init__(
        self,
        files: ChromaFiles,
        collection: RawCollection,
        vector: Vector,
        without: Collection[str],
    ) -> None:
        import numpy as np

        exact = vector.astype(np.float64)
        direction = (exact / (np.linalg.norm(exact) or 1)).astype(np.float32)
        index = files.index(collection)
        self._index = index.files
        in_files, self.error = index.files.near(direction)
        if index.in_log and in_files.size:  # the log has a newer vector, or none
            _hide(in_files, index.files.places(list(index.in_log)))
        self._logged, vectors = files.logged(collection)
        in_log = cosines(vector, vectors) if self._logged else np.empty(0)
        self._nearness = np.concatenate((in_files, in_log.astype(np.float32)))
        self._of_files = in_files.size
        _hide(self._nearness, self._places(list(without)))

    def only(self, ids: Sequence[str]) -> None:
        """Leave out all others."""
        places = self._places(ids)
        kept = self._nearness[places]
        self._nearness[:] = _HIDDEN
        self._nearness[places] = kept

    def _places(self, ids: Sequence[str]) -> "npt.NDArray[np.int64]":
        """The places of those ids that have a vector which is not left out."""
        import numpy as np

        found = self._index.places(ids)
        if self._logged:
            numbers = {i: n for n, i in enumerate(self._logged, self._of_files)}
            found = np.array([numbers.get(i, p) for i, p in zip(ids, found.tolist(), strict=True)])
        return found[found >= 0].astype(np.int64)

    def best(self, most: int) -> tuple[list[str], int]:
        """The ids of the `most` nearest and of those that may be as near; how many are left out."""
        import numpy as np

        there = self._nearness > _HIDDEN
        sure = self._nearness[there & (self._nearness < np.inf)]
        least = np.float32(_HIDDEN)
        if most < sure.size:
            least = np.partition(sure, -most)[-most] - 2 * self.error - _EQUAL
        places = np.flatnonzero(there & (self._nearness >= least))
        in_files = places < self._of_files
        ids = self._index.ids_at(places[in_files])
        ids += [self._logged[n] for n in (places[~in_files] - self._of_files).tolist()]
        return ids, int(there.sum()) - len(ids)


def nearest(
    files: ChromaFiles,
    collection: RawCollection,
    vector: Vector,
    count: int,
    *,
    which: Which,
    without: Collection[str] = (),
) -> list[tuple[str, float]]:
    """The ids of the nearest records with their cosines; see `SearchableStore.nearest`.

    Args:
        files: the folder's files.
        collection: where to search.
        vector: float32 of shape (dimensions,).
        count: the most to return.
        which: the filter.
        without: ids to leave out.

    Raises:
        LostVector: a record has no vector.
    """
    _check_complete(files, collection)
    candidates = _Candidates(files, collection, vector, without)
    for most in (times * count for times in _CANDIDATES):
        ids, left = candidates.best(most)
        rows = _rows(files, collection, ids, which)
        # Those beyond `most` only decide the order of equal ones.
        if not left or len(rows) - max(0, len(ids) - most) >= count:
            return _ranked(files, collection, vector, rows, count)
    candidates.only(files.matching_ids(collection, *which))
    ids, _ = candidates.best(count)
    return _ranked(files, collection, vector, _rows(files, collection, ids, Which()), count)


def _hide(nearness: "npt.NDArray[np.float32]", places: "npt.NDArray[np.int64]") -> None:
    nearness[places[places >= 0]] = _HIDDEN


def _rows(
    files: ChromaFiles, collection: RawCollection, ids: Sequence[str], which: Which
) -> dict[str, int]:
    rows: dict[str, int] = {}
    for part in in_parts(ids, _AT_ONCE):
        rows |= files.rows(collection, part, *which)
    return rows


def _ranked(
    files: ChromaFiles, collection: RawCollection, vector: Vector, rows: dict[str, int], count: int
) -> list[tuple[str, float]]:
    found = Nearest(vector)
    ids = sorted(rows, key=rows.__getitem__)
    for part in in_parts(ids, _AT_ONCE):
        vectors = files.vectors(collection, part)
        found.look({i: vectors[i] for i in part})
    return found.best(count)


def _check_complete(files: ChromaFiles, collection: RawCollection) -> None:
    """Check that each record has a vector, once for each state of the index files.

    Raises:
        LostVector: one has none.
    """
    index = files.index(collection)
    if index.is_complete:
        return
    in_log = index.files.places(list(index.in_log))
    logged = sum(seq is not None for seq in index.in_log.values())
    vectors = index.files.readable() - int((in_log >= 0).sum()) + logged
    if vectors != files.count(collection):  # to compare all ids takes seconds for a million
        for memory_id in files.without_vector(collection):
            raise LostVector(memory_id)
    index.is_complete = True
