"""What a recall costs on a Chroma server and in the folder, and how many of the best both find.

`python -m benchmarks.server_recall STORE` takes a store that `latency.py` has built, starts a
server on a copy of it, and asks both the same questions, with random vectors. The figures are
medians of CPU time in ms: of this process with the folder; of the server, and of this process with
it; then how many of the five best keyword matches in the folder the server finds.
"""

import argparse
import asyncio
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.latency import DIMENSIONS, cpu_ms, vocabulary
from tests.support.chroma_servers import real_server
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.memories.recall import recall
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore
from tribal_mcp.stores.search import SearchableStore

ROUNDS = 12
KINDS = {
    "rare words": (300, 5000, ExportFilter()),
    "rare words, of a tag": (300, 5000, ExportFilter(tags=["project-3"])),
    "frequent words": (0, 40, ExportFilter()),
}


class _Model:
    """An embedder that answers with a random vector."""

    def __init__(self, state: StoreState) -> None:
        assert state.identity is not None
        self.identity = state.identity

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002
        random = np.random.default_rng(sum(map(ord, "".join(texts))))
        return [random.normal(size=DIMENSIONS).astype(np.float32)]


async def best(store: SearchableStore, query: str, which: ExportFilter) -> set[str]:
    """The ids of the five best keyword matches."""
    return {one.id for one in await store.rank_words(query, "", which, 5)}


async def measure(folder: ChromaStore, server: ChromaServerStore, pid: int) -> None:
    """Print the figures of each kind of question."""
    words = vocabulary()
    for kind, (first, last, which) in KINDS.items():
        random, spent, same, all_ = np.random.default_rng(3), list[tuple[float, ...]](), 0, 0
        for _ in range(ROUNDS):
            query = " ".join(random.choice(words[first:last], 4))
            begin = time.process_time()
            await recall(folder, _Model, query, 5, which)
            middle, server_begin = time.process_time(), cpu_ms(pid)
            await recall(server, _Model, query, 5, which)
            end, server_end = time.process_time(), cpu_ms(pid)
            spent.append((1e3 * (middle - begin), server_end - server_begin, 1e3 * (end - middle)))
            wanted, found = await best(folder, query, which), await best(server, query, which)
            same, all_ = same + len(wanted & found), all_ + len(wanted)
        figures = [round(statistics.median(column)) for column in zip(*spent[1:], strict=True)]
        print(f"{kind}: folder {figures[0]}, server {figures[1]} + {figures[2]}, {same} of {all_}")


async def main(store: Path, url: str, pid: int) -> None:
    """Open both and measure."""
    folder = ChromaStore(store, keep_open=True)
    server = ChromaServerStore(ChromaServer(url), own_folder=store, keep_open=True)
    await measure(folder, server, pid)
    await folder.close()
    await server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        copy = shutil.copytree(asked.store, Path(place) / "chroma")
        with real_server(copy) as running:
            asyncio.run(main(asked.store, running.url, running.pid))
