"""Models on an HTTP server with OpenAI's API, which most providers have, or a provider's own.

The own APIs of Cohere, Google and Hugging Face are used because they distinguish a question from a
document, or because there is no other.

Plain requests need no provider's package. Transient failures, such as a busy server or a rate
limit, are retried; others end with an error message.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import httpx

from tribal_mcp.embedding.base import BATCH, TextRefused, checked
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma_server.http import verification_of

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_PAUSE_S = 60.0
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_UNAUTHORIZED = {401, 403}
_ABSENT = 404
_BAD = 400
_LOCAL = {"localhost", "127.0.0.1", "::1"}


Form = Literal["openai", "ollama", "cohere", "google", "huggingface"]


@dataclass(frozen=True, slots=True)
class HttpEmbedder:
    """An `Embedder` that uses a server.

    Attributes:
        identity: the model.
        url: the URL for embeddings.
        form: the API.
        key: sent as a bearer token, and never shown.
        key_variable: the environment variable of the key, for messages.
        more: additional fields of each request.
        query_more: additional fields for search queries.
        prefixes: what the model expects before a document, and before a search query.
        sleep: waits the given number of seconds.
    """

    identity: EmbeddingMetadata
    url: str
    form: Form = "openai"
    key: str = field(default="", repr=False)
    key_variable: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    query_more: dict[str, Any] = field(default_factory=dict)
    prefixes: tuple[str, str] = ("", "")
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
        """See `Embedder`."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.form == "google":
            headers = {"x-goog-api-key": self.key}
        vectors: list[Vector] = []
        is_remote = httpx.URL(self.url).host not in _LOCAL  # proxies are for remote servers
        verify = verification_of(self.url)
        async with httpx.AsyncClient(
            headers=headers, timeout=_TIMEOUT, trust_env=is_remote, verify=verify
        ) as client:
            for start in range(0, len(texts), BATCH):
                part = list(texts[start : start + BATCH])
                answer = await self._ask(client, self._request(part, query=query))
                vectors += checked(self._vectors(answer), part, self.identity)
        return vectors

    def _request(self, texts: list[str], *, query: bool) -> dict[str, Any]:
        model, more = self.identity.model_name, self.more | (self.query_more if query else {})
        texts = [self.prefixes[query] + text for text in texts]
        if self.form == "google":
            name = f"models/{model}"
            return {
                "requests": [
                    {"model": name, "content": {"parts": [{"text": text}]}, **more}
                    for text in texts
                ]
            }
        if self.form == "huggingface":
            return {"inputs": texts, **more}
        return {"model": model, "texts" if self.form == "cohere" else "input": texts, **more}

    async def _ask(self, client: httpx.AsyncClient, fields: dict[str, Any]) -> Any:  # noqa: ANN401
        for pause in (*_PAUSES_S, None):
            try:
                answer = await client.post(self.url, json=fields)
            except httpx.HTTPError as error:
                if pause is None:
                    raise self._unreachable(error) from None
                await self.sleep(pause)
                continue
            if answer.status_code in _TRANSIENT and pause is not None:
                await self.sleep(_pause(answer, pause))
                continue
            if answer.status_code >= _BAD:
                raise self._refusal(answer)
            try:
                return answer.json()
            except ValueError:
                break
        raise self._invalid_answer()

    def _vectors(self, answer: Any) -> list[Any]:  # noqa: ANN401 - any JSON
        try:
            if self.form == "ollama":
                return list(answer["embeddings"])
            if self.form == "cohere":
                return list(answer["embeddings"]["float"])
            if self.form == "google":
                return [one["values"] for one in answer["embeddings"]]
            if self.form == "huggingface":
                return [*answer] if isinstance(answer, list) else list(answer["embeddings"])
            data = sorted(answer["data"], key=lambda one: one["index"])
            return [one["embedding"] for one in data]
        except (KeyError, TypeError):
            raise self._invalid_answer() from None

    def _invalid_answer(self) -> EmbedderError:
        return EmbedderError(
            f"{self.url} answered, but not with embeddings. Check TRIBAL_EMBEDDING_URL."
        )

    def _unreachable(self, error: httpx.HTTPError) -> EmbedderError:
        is_slow = isinstance(error, httpx.TimeoutException)
        why = "it does not answer in time" if is_slow else "no connection"
        return EmbedderError(
            f"The embedding server {self.url} can't be reached: {why}. Check that it runs and that "
            "the network is available, and try again."
        )

    def _refusal(self, answer: httpx.Response) -> EmbedderError:
        status, model = answer.status_code, self.identity.model_name
        if status in _UNAUTHORIZED:
            key = f"the key in {self.key_variable}" if self.key_variable else "its key"
            return EmbedderError(
                f"{self.url} rejected the credentials (HTTP status {status}). Check {key}."
            )
        if status == _ABSENT:
            return EmbedderError(
                f"{self.url} does not have the model {model!r:.80}. Correct TRIBAL_EMBEDDING_MODEL"
                + (f", or download it: ollama pull {model:.80}" if self.form == "ollama" else ".")
            )
        if status in _TRANSIENT:
            return EmbedderError(
                f"{self.url} is busy or has reached its rate limit (HTTP status {status}). Try "
                "again later; everything that was acknowledged is safe."
            )
        return TextRefused(
            f"{self.url} refused the request (HTTP status {status}). Check "
            "TRIBAL_EMBEDDING_MODEL and TRIBAL_EMBEDDING_DIMENSIONS; a text may "
            "be too long."
        )


def _pause(answer: httpx.Response, pause: float) -> float:
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(answer.headers.get("Retry-After", ""))))
    except ValueError:
        return pause
