"""Requests to one Chroma server: repeated while it is away, and explained when it refuses.

Every request that this program makes may be repeated: it reads, or it puts or removes something
by its id. So what may pass (no connection, a broken one, a busy proxy) is tried again for as long
as the settings allow, and a server that is restarted is not noticed. Chroma's own client is not
used: it waits without end, drops the status of an answer, and constructs the embedding function
that a stored collection names.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tribal_mcp.errors import NoSpace, StoreError
from tribal_mcp.stores.base import OnWait
from tribal_mcp.stores.errors import FULL

FIRST_CONTACT_S = 5.0
"""How long a server is waited for that has not answered once."""

_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
_BUSY = 429
_MAY_PASS = {_BUSY, 502, 503, 504}
_REFUSED = {401, 403}
_ABSENT = 404
_TOO_LARGE = 413
_REDIRECTS = 300
_BAD = 400
_FAILED = 500
_NOT_YET = "hnsw segment reader: Nothing found on disk"
_WORDS = 300


@dataclass(frozen=True, slots=True)
class ChromaServer:
    """A database on a Chroma server.

    Attributes:
        url: http or https, without a slash at the end.
        tenant: the owner of the database.
        database: its name.
        headers: sent with each request, and never shown.
        cloud: the server is Chroma Cloud.
    """

    url: str
    tenant: str = "default_tenant"
    database: str = "default_database"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cloud: bool = False


class Absent(StoreError):
    """What was asked for is not on the server."""


class TooLarge(StoreError):
    """The server, or a proxy before it, takes no request of that size."""


class ServerHttp:
    """One Chroma server. Its methods block, and are called in a thread.

    Args:
        server: its address.
        patience_s: how long to wait for it while it is away.
        on_wait: told why, before each pause; what it raises ends the waiting.
    """

    def __init__(self, server: ChromaServer, patience_s: float, on_wait: OnWait) -> None:
        self.server = server
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._client: httpx.Client | None = None
        self._answered = False

    def close(self) -> None:
        """Give back the connections; they open again when they are needed."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def request(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        """The answer to a request that may be repeated.

        Args:
            method: of HTTP.
            path: below the API's root.
            body: plain values and `orjson.Fragment`.

        Raises:
            Absent: the server does not have it.
            TooLarge: the request has to be made in parts.
            StoreError: the server is away for too long, or refuses.
            NoSpace: its disk is full.
        """
        content = None if body is None else orjson.dumps(body)
        begin = time.monotonic()
        for attempt in range(1 << 30):
            try:
                return self._once(method, path, content)
            except _Away as away:
                patience = self._patience_s
                if not self._answered:
                    patience = min(patience, FIRST_CONTACT_S)
                pause = away.pause_s or _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
                if time.monotonic() - begin + pause > patience:
                    raise StoreError(self._away(str(away))) from None
                self._on_wait(f"The Chroma server is away ({away}); waiting for it")
            time.sleep(pause)
        raise AssertionError

    def _once(self, method: str, path: str, content: bytes | None) -> Any:  # noqa: ANN401 - JSON
        if self._client is None:
            headers = {"content-type": "application/json", **self.server.headers}
            self._client = httpx.Client(headers=headers, timeout=_TIMEOUT)
        try:
            url = f"{self.server.url}/api/v2{path}"
            response = self._client.request(method, url, content=content)
        except httpx.RequestError as error:
            raise _Away(self._plain(str(error)) or type(error).__name__) from None
        # An index that another call is just making is told of as a failure.
        being_made = response.status_code == _FAILED and _NOT_YET in response.text
        if response.status_code in _MAY_PASS or being_made:
            after = response.headers.get("retry-after", "")
            words = self._words(response)
            self._answered |= response.status_code == _BUSY or bool(after)  # there, and at work
            raise _Away(
                f"status {response.status_code}{words and ', '}{words}",
                float(after) if after.isdecimal() else 0,
            )
        self._answered = True
        if response.status_code >= _REDIRECTS:
            raise self._refusal(response)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise self.other_kind() from None

    def other_kind(self) -> StoreError:
        """What there is to say if something else than Chroma is there."""
        return StoreError(
            f"{self} answers, but not as a Chroma server does. Look at TRIBAL_CHROMA_URL."
        )

    def _refusal(self, response: httpx.Response) -> StoreError | NoSpace:
        words = self._words(response)
        status = response.status_code
        if status in _REFUSED:
            key = "CHROMA_API_KEY" if self.server.cloud else "TRIBAL_CHROMA_TOKEN"
            return StoreError(
                f"{self} does not let this program in (status {status}). It wants another {key}"
                f"{'' if self.server.cloud else ' or TRIBAL_CHROMA_HEADERS'}."
            )
        if status == _ABSENT:
            return Absent(f"{self} does not have it: {words}. Look at TRIBAL_CHROMA_URL.")
        if status == _TOO_LARGE:
            return TooLarge(
                f"{self}, or a proxy before it, refuses a request of this size. A single memory "
                "is too large for it: raise its limit."
            )
        if status < _BAD:
            return StoreError(
                f"{self} sends elsewhere (status {status}). Set TRIBAL_CHROMA_URL to the address "
                "where it leads."
            )
        if status == _FAILED and any(word in words.lower() for word in FULL):
            return NoSpace(
                f"The disk of {self} is full. What was acknowledged is safe. Make space there and "
                "run the same again."
            )
        return StoreError(f"{self} refuses (status {status}): {words or 'no reason given'}.")

    def _away(self, reason: str) -> str:
        if self._answered:
            return (
                f"{self} went away: {reason}. What was acknowledged is safe. Start it, and run the "
                "same again."
            )
        return (
            f"{self} can't be reached: {reason}. Start it, or look at TRIBAL_CHROMA_URL, and run "
            "the same again."
        )

    def _words(self, response: httpx.Response) -> str:
        with suppress(orjson.JSONDecodeError, KeyError, TypeError):
            return self._plain(str(orjson.loads(response.content)["message"]))
        return self._plain(response.text)

    def _plain(self, words: str) -> str:
        """Words of others, short and without what only we and the server may know."""
        for value in self.server.headers.values():
            for secret in (value, value.rpartition(" ")[2]):
                words = words.replace(secret, "…")
        return " ".join(words[:_WORDS].split()).rstrip(".")

    def __str__(self) -> str:
        return f"The Chroma server at {self.server.url}"


class _Away(Exception):
    """What may have passed in a moment."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
