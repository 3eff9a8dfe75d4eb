"""Finds memories in a Chroma folder: vectors are compared in its files, all else asks its rows.

Every vector is looked at: that is exact, takes any filter, holds no index in memory and takes less
than a second for 100,000 memories, where Chroma's own index is approximate and has to be loaded
first.
"""

import os
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import BATCH, EVERYTHING, StoreState
from tribal_mcp.stores.chroma.files.tables import DOCUMENT
from tribal_mcp.stores.chroma.folder import Files
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.chroma.session import Sessions, in_thread
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.search import Nearest, Tally, check_dimensions

T = TypeVar("T")
Texts = dict[str, str]

_OF_A_STORE = re.compile(
    rf"chroma\.sqlite3.*|{OWN_FOLDER}|[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}"
)
"""What is the store's of all that may lie in its folder; bundles are not."""


class ChromaSearching(Sessions):
    """What makes a Chroma store a `SearchableStore`."""

    _name: str

    @abstractmethod
    async def _read(self, work: Callable[[Files, list[RawCollection]], T]) -> T: ...

    @abstractmethod
    async def _glance(self, work: Callable[[Files, list[RawCollection]], T]) -> T: ...

    @abstractmethod
    def _vector(self, collection: RawCollection, record: RawRecord) -> Vector | None: ...

    @abstractmethod
    async def state(self) -> StoreState:
        """What the store is at the moment."""

    @abstractmethod
    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of what the filter takes."""

    async def nearest(
        self,
        vector: Vector,
        count: int,
        filters: ExportFilter = EVERYTHING,
        *,
        without: Collection[str] = (),
    ) -> list[tuple[str, float]]:
        """The memories whose vectors are nearest, by exact cosine, best first."""
        found = Nearest(vector)
        async with self.session():
            check_dimensions(vector, await self.state())
            ids = [i for i in await self.list_ids(filters) if i not in without]
            for start in range(0, len(ids), BATCH):
                part = ids[start : start + BATCH]
                found.look(await self._read(partial(self._vectors, part)))
        return found.best(count)

    def _vectors(
        self, ids: Sequence[str], files: Files, collections: list[RawCollection]
    ) -> dict[str, Vector]:
        """The vectors of those of the ids that have one.

        Raises:
            StoreDamaged: one is lost.
        """
        main = next((c for c in collections if c.name == self._name), None)
        if main is None:
            return {}
        with_row = set(files.existing(main, ids))
        here = [i for i in ids if i in with_row]
        vectors = files.vectors(main, here)
        for memory_id in here:
            if memory_id not in vectors:
                self._vector(main, RawRecord(memory_id, None, {}, None))
        return {i: vectors[i] for i in here}

    async def list_pending(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of those without a vector that the filter takes, oldest insertion first."""
        async with self.session():
            pending = await self._read(
                lambda files, cs: {i for c in cs if c.name != self._name for i in files.ids(c)}
            )
            return [i for i in await self.list_ids(filters) if i in pending] if pending else []

    async def read_texts(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[dict[str, str]]:
        """The contents of those ids in that order, in batches; an id that is gone is left out."""

        def read(part: Sequence[str], files: Files, collections: list[RawCollection]) -> Texts:
            found = {i: text for c in collections for i, text in files.texts(c, part).items()}
            return {i: found[i] for i in part if i in found}

        for start in range(0, len(ids), batch_size):
            batch = await self._read(partial(read, ids[start : start + batch_size]))
            if batch:
                yield batch

    async def find_text(self, content: str) -> list[str]:
        """The ids of the memories whose content is exactly this, oldest insertion first."""
        return [memory_id for _, memory_id in await self._with_value(DOCUMENT, [content])]

    async def corrections(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For each id that some memory supersedes: the ids of those, oldest insertion first."""
        found: dict[str, list[str]] = {}
        for superseded, memory_id in await self._with_value("supersedes", ids):
            found.setdefault(superseded, []).append(memory_id)
        return found

    async def _with_value(self, key: str, values: Sequence[str]) -> list[tuple[str, str]]:
        return await self._read(
            lambda files, collections: [
                pair for c in collections for pair in files.with_value(c, key, values)
            ]
        )

    async def tally(self) -> Tally:
        """Counts of all memories; answered while another process writes, too."""
        tally = await self._glance(lambda files, cs: files.tally(cs) if cs else Tally())
        tally.bytes = await in_thread(self._folder, partial(_size, self._folder.path), alone=False)
        return tally


def _size(folder: Path) -> int:
    """The bytes of the store's files; another process may be at work on them."""
    total = 0
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = filter(_OF_A_STORE.fullmatch, folders)
            files[:] = filter(_OF_A_STORE.fullmatch, files)
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(parent, name)).st_size
    return total
