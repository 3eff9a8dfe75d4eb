"""How long recall, remember, forget and stats take through the MCP interface, by size of the store.

`python benchmarks/latency.py 10000 100000` builds a store of generated memories for each size under
`--folder` (kept for the next run) and calls the tools of a server on stdio. The question's vector
comes from a small HTTP server in this process, so embedding costs nothing. Each figure is the CPU
time of the server and its store process; the first call starts the store process.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
DIMENSIONS = 384
WORDS, VOCABULARY = 45, 30_000
BATCH = 1000
MODEL = "latency-bench"
ROUNDS = 7


def vocabulary() -> list[str]:
    """Invented words, the most frequent first."""
    random = np.random.default_rng(1)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en")]
    return [
        "".join(random.choice(syllables, 2 + number % 3))
        + str(number % 7 * (number % 50 == 0) or "")
        for number in range(VOCABULARY)
    ]


def make_bundle(path: Path, count: int) -> None:
    """Write a bundle of generated memories, whose words are as frequent as in natural texts."""
    from tribal_mcp.portability.bundle.writer import BundleWriter
    from tribal_mcp.portability.choices import MemorySource
    from tribal_mcp.portability.manifest import EmbeddingManifest, create_embedding_metadata
    from tribal_mcp.portability.memory import MemoryEntry

    words = np.array(vocabulary())
    share = 1 / np.arange(1, VOCABULARY + 1)
    share /= share.sum()
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    with path.open("wb") as file:
        manifest = EmbeddingManifest(create_embedding_metadata(MODEL, DIMENSIONS), count)
        writer = BundleWriter(file, manifest)
        for start in range(0, count, BATCH):
            random = np.random.default_rng(start)
            size = min(BATCH, count - start)
            texts = words[random.choice(VOCABULARY, (size, WORDS), p=share)]
            vectors = random.normal(size=(size, DIMENSIONS)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            writer.write(
                [
                    MemoryEntry(
                        id=f"memory-{start + n:08d}",
                        content=" ".join(texts[n]) + f" #{start + n}",
                        embedding=vectors[n],
                        source_instance="bench",
                        source_type=MemorySource.AUTO_CAPTURE,
                        created_at=begin + timedelta(minutes=start + n),
                        tags=["work", f"project-{(start + n) % 25}"],
                    )
                    for n in range(size)
                ]
            )
        writer.finish()


class _Embedder(BaseHTTPRequestHandler):
    """Answers each text with a vector made from its hash."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        texts = [given] if isinstance(given, str) else given
        data = []
        for place, text in enumerate(texts):
            vector = np.random.default_rng(abs(hash(text))).normal(size=DIMENSIONS)
            vector /= np.linalg.norm(vector)
            data.append({"index": place, "embedding": vector.tolist()})
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def cpu_ms(pid: int) -> float:
    """The CPU time of a process and its children, in milliseconds."""
    clocks = ((~one << 3) | 2 for one in _tree(pid))  # Linux's clock of another process
    return sum(time.clock_gettime_ns(clock) for clock in clocks) / 1e6


def _mib(pid: int, field: str) -> float:
    """The largest of that memory figure among a process and its children."""
    found = [0]
    for one in _tree(pid):
        lines = Path(f"/proc/{one}/status").read_text().splitlines()
        found += [int(line.split()[1]) for line in lines if line.startswith(field + ":")]
    return max(found) / 1024


class Server:
    """A tribal-mcp server on stdio."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._number = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tribal_mcp", env=self._environment, cwd=ROOT, limit=1 << 24,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        client = {"name": "latency", "version": "1"}
        await self._ask(
            "initialize",
            {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client},
        )
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        await self._process.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
        await self._process.stdin.drain()  # type: ignore[union-attr]

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        while True:
            answer = json.loads(await self._process.stdout.readline())  # type: ignore[union-attr]
            if answer.get("id") == self._number:
                return answer  # type: ignore[no-any-return]

    async def call(self, tool: str, arguments: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Call a tool: the CPU time in ms, and its structured result."""
        before = cpu_ms(self._process.pid)
        answer = await self._ask("tools/call", {"name": tool, "arguments": arguments})
        spent = cpu_ms(self._process.pid) - before
        assert "result" in answer, answer
        assert not answer["result"].get("isError"), answer
        return spent, answer["result"]["structuredContent"]

    def mib(self) -> tuple[float, float]:
        """Of the largest process: anonymous memory; all memory, with the mapped index."""
        return _mib(self._process.pid, "RssAnon"), _mib(self._process.pid, "VmRSS")


async def measure(store: dict[str, str], embedder: str) -> dict[str, Any]:
    """First and warm CPU time of each kind of call on one store."""
    words = vocabulary()
    random = np.random.default_rng(7)

    def rare() -> dict[str, Any]:
        return {"query": " ".join(random.choice(words[300:5000], 4))}

    def new() -> dict[str, Any]:
        return {"content": rare()["query"] + " note"}

    def of_a_tag() -> dict[str, Any]:
        return rare() | {"tags": ["project-3"]}

    def frequent() -> dict[str, Any]:
        return {"query": " ".join(words[:4])}

    plain = {**os.environ, **store}
    meaning = {
        **plain, "TRIBAL_EMBEDDING_PROVIDER": "openai-compatible", "TRIBAL_EMBEDDING_URL": embedder,
        "TRIBAL_EMBEDDING_MODEL": MODEL, "TRIBAL_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "OPENAI_API_KEY": "none",
    }  # fmt: skip
    kinds: list[tuple[str, dict[str, str], str, Callable[[], dict[str, Any]]]] = [
        ("recall, both searches", meaning, "tribal_recall", rare),
        ("the same, of a tag", meaning, "tribal_recall", of_a_tag),
        ("recall, frequent words", meaning, "tribal_recall", frequent),
        ("recall, keyword search", plain, "tribal_recall", rare),
        ("list", plain, "tribal_recall", dict),
        ("stats", plain, "tribal_stats", dict),
        ("remember, with a vector", meaning, "tribal_remember", new),
        ("remember, without", plain, "tribal_remember", new),
    ]
    result: dict[str, Any] = {}
    for name, environment, tool, arguments in kinds:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(Server(environment))
            first, _ = await server.call(tool, arguments())
            calls = [await server.call(tool, arguments()) for _ in range(ROUNDS)]
            warm = statistics.median(spent for spent, _ in calls)
            result[name] = [round(first), round(warm), *map(round, server.mib())]
            print(name, result[name], flush=True)
            if tool == "tribal_remember":
                forgotten = [
                    (await server.call("tribal_forget", {"ids": [found["id"]]}))[0]
                    for _, found in calls
                ]
                forget = name.replace("remember", "forget")
                result[forget] = [round(forgotten[0]), round(statistics.median(forgotten))]
                print(forget, result[forget], flush=True)
    return result


def build(folder: Path, count: int) -> dict[str, str]:
    """The settings of a store of that size, which is built if it is missing."""
    store = folder / f"store-{count}"
    settings = {"TRIBAL_DATA_DIR": str(store), "TRIBAL_RESTORE_POINTS": "2"}
    if not store.exists():
        folder.mkdir(parents=True, exist_ok=True)
        bundle = folder / f"bundle-{count}.json"
        make_bundle(bundle, count)
        command = [sys.executable, "-m", "tribal_mcp", "import", str(bundle)]
        limits = {"TRIBAL_LIMIT_ENTRIES": str(2 * count)}
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **settings, **limits})  # noqa: S603
        bundle.unlink()
    return settings


def main() -> None:
    """Measure the sizes in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "tribal-latency")
    parser.add_argument("--build", action="store_true", help="only build the stores")
    asked = parser.parse_args()
    embedder = ThreadingHTTPServer(("127.0.0.1", 0), _Embedder)
    threading.Thread(target=embedder.serve_forever, daemon=True).start()
    for count in asked.sizes:
        store = build(asked.folder, count)
        if not asked.build:
            url = f"http://127.0.0.1:{embedder.server_port}"
            print(json.dumps({str(count): asyncio.run(measure(store, url))}))


if __name__ == "__main__":
    main()
