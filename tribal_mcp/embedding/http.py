"""Models behind an address: OpenAI's form of a request, which most speak, and Ollama's.

A plain request needs no package of the provider's. What may pass, a busy server or a limit on how
often one may ask, is waited for; what may not ends in one sentence.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import httpx

from tribal_mcp.embedding.base import TextRefused, checked
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector

TEXTS = 64
"""Texts in one request."""

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_PAUSE_S = 60.0
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_MAY_PASS = {408, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}
_ABSENT = 404
_BAD = 400
_HERE = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class HttpEmbedder:
    """An `Embedder` that asks a server.

    Attributes:
        identity: the model.
        url: where it is asked.
        form: how it is asked.
        key: sent as a bearer token, and shown nowhere.
        key_variable: the name of its variable, for messages.
        more: further fields of a request.
        query_more: those of a question, besides.
        sleep: waits that many seconds.
    """

    identity: EmbeddingMetadata
    url: str
    form: Literal["openai", "ollama"] = "openai"
    key: str = field(default="", repr=False)
    key_variable: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    query_more: dict[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
        """See `Embedder`."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        vectors: list[Vector] = []
        far = httpx.URL(self.url).host not in _HERE  # a proxy is for what is far
        async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=far) as client:
            for start in range(0, len(texts), TEXTS):
                part = list(texts[start : start + TEXTS])
                fields = {"model": self.identity.model_name, "input": part, **self.more}
                answer = await self._ask(client, fields | (self.query_more if query else {}))
                vectors += checked(self._vectors(answer), part, self.identity)
        return vectors

    async def _ask(self, client: httpx.AsyncClient, fields: dict[str, Any]) -> Any:  # noqa: ANN401
        for pause in (*_PAUSES_S, None):
            try:
                answer = await client.post(self.url, json=fields)
            except httpx.HTTPError as error:
                if pause is None:
                    raise self._away(error) from None
                await self.sleep(pause)
                continue
            if answer.status_code in _MAY_PASS and pause is not None:
                await self.sleep(_pause(answer, pause))
                continue
            if answer.status_code >= _BAD:
                raise self._refusal(answer)
            try:
                return answer.json()
            except ValueError:
                break
        raise EmbedderError(f"{self.url} answers, but not as a server of embeddings does. {_LOOK}")

    def _vectors(self, answer: Any) -> list[Any]:  # noqa: ANN401 - what a server said
        try:
            if self.form == "ollama":
                return list(answer["embeddings"])
            data = sorted(answer["data"], key=lambda one: one["index"])
            return [one["embedding"] for one in data]
        except (KeyError, TypeError):
            raise EmbedderError(
                f"{self.url} answers, but not as a server of embeddings does. {_LOOK}"
            ) from None

    def _away(self, error: httpx.HTTPError) -> EmbedderError:
        why = "it takes too long" if isinstance(error, httpx.TimeoutException) else "no connection"
        return EmbedderError(
            f"The embedding server {self.url} can't be reached ({why}). Look whether it runs and "
            "the network is there, and run the same again."
        )

    def _refusal(self, answer: httpx.Response) -> EmbedderError:
        status, model = answer.status_code, self.identity.model_name
        if status in _REFUSED:
            name = self.key_variable or "the key"
            return EmbedderError(
                f"{self.url} does not let us in (status {status}). Look at the key in {name}."
            )
        if status == _ABSENT:
            return EmbedderError(
                f"{self.url} does not have the model {model!r:.80}. Correct TRIBAL_EMBEDDING_MODEL"
                + (f", or fetch it: ollama pull {model:.80}." if self.form == "ollama" else ".")
            )
        if status in _MAY_PASS:
            return EmbedderError(
                f"{self.url} is busy or allows no more requests for now (status {status}). Run the "
                "same again later; what is done is done."
            )
        return TextRefused(
            f"{self.url} refuses what it was asked (status {status}). Look at "
            "TRIBAL_EMBEDDING_MODEL and TRIBAL_EMBEDDING_DIMENSIONS; a text may be too long for it."
        )


_LOOK = "Look at TRIBAL_EMBEDDING_URL."


def _pause(answer: httpx.Response, pause: float) -> float:
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(answer.headers.get("Retry-After", ""))))
    except ValueError:
        return pause
