"""Requests to a Chroma server: retried after transient failures, and explained when refused.

Every request of this program is idempotent: it reads, or it writes or deletes something by its id.
So after a transient failure (no connection, a broken one, a busy proxy) it is retried for as long
as the settings allow, and users do not notice the restart of a server. Chroma's own client is not
used: it waits forever, drops the status of an answer, and constructs the embedding function that a
stored collection names.
"""

import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import orjson

from tribal_mcp.errors import NoSpace, StoreError
from tribal_mcp.stores.base import OnWait
from tribal_mcp.stores.errors import FULL

FIRST_CONTACT_S = 5.0
"""How long to wait for a server that has not answered yet."""

_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
_BUSY = 429
_TRANSIENT = {_BUSY, 502, 503, 504}
_UNAUTHORIZED = {401, 403}
_ABSENT = 404
_TOO_LARGE = 413
_REDIRECTS = 300
_BAD = 400
_FAILED = 500
_NOT_YET = "hnsw segment reader: Nothing found on disk"
_MESSAGE_CHARS = 300
_NETWORK_REASONS = {
    "certificate": "its TLS certificate is not valid",
    "refused": "connection refused",
    "name": "its host name can't be resolved",
}
"""By a part of what the system says, in order."""

_log = logging.getLogger(__name__)


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
    """The server does not have what was requested."""


class TooLarge(StoreError):
    """The server, or its proxy, accepts no request of that size."""


def verification_of(url: str) -> ssl.SSLContext | bool:
    """How to verify the server at a URL: an argument of httpx's clients."""
    return _authorities() if httpx.URL(url).scheme == "https" else False


@cache
def _authorities() -> ssl.SSLContext:
    """The certificates of all authorities, which take 20 ms to load."""
    return httpx.create_ssl_context()


class ServerHttp:
    """One Chroma server. Its methods block, and are called in a thread.

    Attributes:
        server: the server.
        patience_s: how long to wait for it while it can't be reached.
        on_wait: called with the reason before each retry; an exception from it ends the waiting.
    """

    def __init__(self, server: ChromaServer, patience_s: float, on_wait: OnWait) -> None:
        self.server = server
        self.patience_s = patience_s
        self.on_wait = on_wait
        self._client: httpx.Client | None = None
        self._answered = False

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def request(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        """The answer to an idempotent request.

        Args:
            method: the HTTP method.
            path: below the root of the API.
            body: what orjson can dump.

        Raises:
            Absent: the server does not have it.
            TooLarge: the request must be split.
            StoreError: the server can't be reached for too long, or refuses the request.
            NoSpace: its disk is full.
        """
        content = None if body is None else orjson.dumps(body)
        begin = time.monotonic()
        for attempt in range(1 << 30):
            try:
                return self._once(method, path, content)
            except _TransientError as error:
                patience = self.patience_s
                if not self._answered:
                    patience = min(patience, FIRST_CONTACT_S)
                pause = error.pause_s or _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
                if time.monotonic() - begin + pause > patience:
                    raise StoreError(self._unreachable(str(error))) from None
                self.on_wait(f"Waiting for the Chroma server ({error})")
            time.sleep(pause)
        raise AssertionError

    def _once(self, method: str, path: str, content: bytes | None) -> Any:  # noqa: ANN401 - JSON
        if self._client is None:
            headers = {"content-type": "application/json", **self.server.headers}
            verify = verification_of(self.server.url)
            self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, verify=verify)
        try:
            url = f"{self.server.url}/api/v2{path}"
            response = self._client.request(method, url, content=content)
        except httpx.RequestError as error:
            raise _TransientError(_reason(error)) from None
        # Chroma reports an index that another call is creating as a failure.
        being_created = response.status_code == _FAILED and _NOT_YET in response.text
        if response.status_code in _TRANSIENT or being_created:
            after = response.headers.get("retry-after", "")
            self._answered |= response.status_code == _BUSY or bool(after)  # it runs, but is busy
            raise _TransientError(
                f"HTTP status {response.status_code}", float(after) if after.isdecimal() else 0
            )
        self._answered = True
        if response.status_code >= _REDIRECTS:
            raise self._refusal(response)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise self.not_chroma() from None

    def not_chroma(self) -> StoreError:
        """The failure for an answer that no Chroma server would give."""
        return StoreError(f"{self} is not a Chroma server. Check TRIBAL_CHROMA_URL.")

    def _refusal(self, response: httpx.Response) -> StoreError | NoSpace:
        status = response.status_code
        if status in _UNAUTHORIZED:
            name = "CHROMA_API_KEY" if self.server.cloud else "TRIBAL_CHROMA_TOKEN"
            more = "" if self.server.cloud else " and TRIBAL_CHROMA_HEADERS"
            return StoreError(
                f"{self} rejected the credentials (HTTP status {status}). Check {name}{more}."
            )
        if status == _ABSENT:
            return Absent(
                f"{self} does not have what was requested (HTTP status 404). Check "
                "TRIBAL_CHROMA_URL."
            )
        if status == _TOO_LARGE:
            return TooLarge(
                f"{self}, or its proxy, refuses a request of this size (HTTP status 413). A single "
                "memory is too large for it. Raise its limit."
            )
        if status < _BAD:
            return StoreError(
                f"{self} redirects to another address (HTTP status {status}). Set "
                "TRIBAL_CHROMA_URL to that address."
            )
        if status == _FAILED and any(text in response.text.lower() for text in FULL):
            return NoSpace(
                f"The disk of {self} is full. Everything that was acknowledged is safe. Free some "
                "space there and try again."
            )
        _log.info("%s refused a request: %s", self, self._without_secrets(response.text))
        return StoreError(
            f"{self} refused the request (HTTP status {status}). Its log may say why."
        )

    def _unreachable(self, reason: str) -> str:
        if self._answered:
            return (
                f"{self} can't be reached any more: {reason}. Everything that was acknowledged is "
                "safe. Start the server and try again."
            )
        return (
            f"{self} can't be reached: {reason}. Start the server, or check TRIBAL_CHROMA_URL, and "
            "try again."
        )

    def _without_secrets(self, text: str) -> str:
        """The beginning of an answer, without the credentials that it may repeat."""
        for value in self.server.headers.values():
            for secret in (value, value.rpartition(" ")[2]):
                text = text.replace(secret, "…")
        return " ".join(text[:_MESSAGE_CHARS].split())

    def __str__(self) -> str:
        return f"The Chroma server at {self.server.url}"


class _TransientError(Exception):
    """A failure that may be over soon; `pause_s` is how long the server asks to wait."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def _reason(error: httpx.RequestError) -> str:
    """Why there was no answer, in our own words."""
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    text = str(error).lower()
    known = (reason for part, reason in _NETWORK_REASONS.items() if part in text)
    is_unconnected = isinstance(error, httpx.ConnectError)
    return next(known, "no connection" if is_unconnected else "the connection broke")
