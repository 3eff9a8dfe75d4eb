"""A local embedding server with the APIs of OpenAI and Ollama that can misbehave.

Its vectors are bags of hashed words, of length one: texts with common words are near, and a text
has the same vector in every run. The name of the model gives the dimensions: `words-384`.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


def words_vector(text: str, dimensions: int) -> list[float]:
    """Return the vector of a text, made from its words."""
    numbers = np.zeros(dimensions)
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        numbers[int.from_bytes(digest[:4]) % dimensions] += 1 if digest[4] % 2 else -1
    length = float(np.linalg.norm(numbers))
    if not length:
        numbers[0] = length = 1.0
    return [float(number) for number in numbers / length]


_PATHS = re.compile(
    "/v1/embeddings|/api/embed|/v1/embed|/v1/models/[^/]+:batchEmbedContents"
    "|/v1/models/[^/]+/pipeline/feature-extraction"
)


def _asked(path: str, asked: dict[str, Any]) -> tuple[str, list[str]]:
    """The model and the texts of a request, in the API that its path belongs to."""
    if path.endswith(":batchEmbedContents"):
        texts = [one["content"]["parts"][0]["text"] for one in asked["requests"]]
        return asked["requests"][0]["model"].removeprefix("models/"), texts
    if path.endswith("/feature-extraction"):
        return path.split("/")[3], asked["inputs"]
    return asked["model"], asked.get("input") or asked["texts"]


@dataclass
class EmbeddingServer:
    """How the server behaves, and the requests it received.

    Attributes:
        port: its port.
        embedded: how often each text was embedded.
        keys: the Authorization of each request.
        fails: statuses of the next answers, before it answers again.
        lie: "few" vectors, "short" ones, "nan", or no "json".
        gone: models that it does not have.
    """

    port: int = 0
    embedded: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    fails: list[int] = field(default_factory=list)
    lie: str = ""
    gone: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The TRIBAL_EMBEDDING_URL for the OpenAI API; that for Ollama has no path."""
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self, dimensions: int = 8) -> dict[str, str]:
        """The environment of a program that uses this server."""
        return {
            "TRIBAL_EMBEDDING_PROVIDER": "openai-compatible",
            "TRIBAL_EMBEDDING_URL": self.url,
            "TRIBAL_EMBEDDING_MODEL": f"words-{dimensions}",
            "TRIBAL_EMBEDDING_DIMENSIONS": str(dimensions),
        }

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and the body for a request."""
        self.requests.append(asked)
        if self.fails:
            return self.fails.pop(0), b"{}"
        model, texts = _asked(path, asked)
        if model in self.gone:
            return 404, b"{}"
        dimensions = int(model.rpartition("-")[2]) - (self.lie == "short")
        vectors = [words_vector(text, dimensions) for text in texts]
        self.embedded.update(texts)
        if self.lie == "few":
            vectors.pop()
        if self.lie == "nan":
            vectors[0][0] = float("nan")
        if self.lie == "json":
            return 200, b"<html>"
        return 200, json.dumps(_answer(path, vectors)).encode()


def _answer(path: str, vectors: list[list[float]]) -> Any:  # noqa: ANN401 - any JSON value
    """The answer, in the API that its path belongs to."""
    if path == "/api/embed":
        return {"embeddings": vectors}
    if path.endswith("/embed"):
        return {"embeddings": {"float": vectors}}
    if path.endswith(":batchEmbedContents"):
        return {"embeddings": [{"values": vector} for vector in vectors]}
    if path.endswith("/feature-extraction"):
        return vectors
    data = [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    return {"data": data[::-1]}


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """Run a server until the end of the block, on a port chosen by the system."""
    state = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.keys.append(self.headers.get("Authorization", ""))
            known = _PATHS.fullmatch(self.path)
            status, body = state.answer(self.path, asked) if known else (404, b"{}")
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
