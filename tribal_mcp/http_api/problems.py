"""Failures as problems (RFC 9457), each with a stable `code`.

A failure of the services has its own status and message. A bug is reported without details; those
are in the log.
"""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tribal_mcp.errors import TribalError, http_statuses, invalid_field
from tribal_mcp.http_api.next_steps import as_request
from tribal_mcp.next_steps import in_words

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemResult(BaseModel):
    """Why a request failed (RFC 9457)."""

    type: str = Field("about:blank", description="always about:blank; see `code`")
    title: str = Field(description="the name of the status", examples=["Unprocessable Entity"])
    status: int = Field(description="the HTTP status", examples=[422])
    code: str = Field(description="the kind of failure, for programs", examples=["bundle_error"])
    detail: str = Field(
        description="what is wrong, and what to do next",
        examples=["The bundle is cut off at line 8. Nothing was imported. Send it again."],
    )


class Problem(HTTPException):
    """A refusal of the HTTP interface itself."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code


def busy(whose: str = "") -> Problem:
    """Too many requests at once: of this client, or of all."""
    many = f"Too many requests at once with {whose}." if whose else "Too many requests at once."
    return Problem(429, "busy", f"{many} Try again soon.", {"Retry-After": "2"})


class EveryEntryRejected(Exception):
    """An import ended and every entry was rejected; its result says why."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("Every entry was rejected. Correct them as error_details says.")
        self.result = result


def response_of(error: Exception) -> JSONResponse:
    """The problem for a failure."""
    match error:
        case EveryEntryRejected():
            return _response(422, "partial_import", str(error), more={"result": error.result})
        case Problem():
            return _response(error.status_code, error.code, error.detail, error.headers)
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            return _response(error.status_code, code, _detail(error), error.headers)
        case RequestValidationError():
            return _of_validation(error)
        case TribalError():
            status = _status_of(error.http_status)
            retry = {"Retry-After": "5"} if status in _TEMPORARY else None
            detail = f"{error} {in_words(error.next_steps, as_request)}".rstrip()
            return _response(status, _snake(type(error).__name__), detail, retry)
    log.error("A request failed", exc_info=error)
    detail = (
        "The request failed because of a bug in tribal-mcp; the server's log has the details. "
        "Completed changes are safe."
    )
    return _response(500, "bug", detail)


_TEMPORARY = (423, 503)
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
_DETAILS = {
    404: "There is no such route. GET /docs lists all routes.",
    405: "This route does not support this method. GET /docs lists all routes.",
}


def _status_of(status: int) -> int:
    """A status that HTTP has; a client that reads 499 was not the one that stopped."""
    return status if status in set(HTTPStatus) else 503


def _detail(error: HTTPException) -> str:
    return _DETAILS.get(error.status_code, f"{error.detail}.".replace("..", "."))


def _of_validation(error: RequestValidationError) -> JSONResponse:
    sentences: list[str] = []
    for problem in error.errors():
        place, *path = problem["loc"]
        if problem["type"] == "json_invalid":
            where = f" at character {path[0]}" if path else ""
            return _response(400, "not_json", f"The body is not valid JSON{where}. Correct it.")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"There is no field {str(path[-1])!r:.80}.")
        else:
            sentences.append(invalid_field(path or [f"The {place}"], problem))
    said = " ".join(sentences[:10])
    detail = f"Nothing was done. {said} GET /docs lists all fields."
    return _response(422, "invalid_request", detail)


def _response(
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    body = ProblemResult(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)
    # A lone surrogate from the request can't be encoded, so it is escaped.
    content = {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in body.model_dump().items()
    }
    return JSONResponse({**content, **(more or {})}, status, headers, MEDIA_TYPE)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def answer_in_problems(app: FastAPI) -> None:
    """Respond to every failure of the app with a problem."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return response_of(error)

    for kind in (HTTPException, RequestValidationError, TribalError, EveryEntryRejected, Exception):
        app.add_exception_handler(kind, answer)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these statuses, and of those that any request may have."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemResult"}}}
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted({400, 401, 403, 408, 413, 421, 422, 429, 500, 503, *statuses})
    }


def _meanings() -> dict[int, str]:
    """What each status means: here, and as a failure of the services."""
    meanings = {
        400: "The request is malformed.",
        401: "The token is missing or wrong.",
        403: "The Origin is not allowed.",
        404: "There is no such route.",
        406: "No media type in Accept is available.",
        408: "The body arrived too slowly.",
        413: "The body is larger than its limit.",
        415: "The media type or encoding of the body is not supported.",
        421: "The Host header does not name this server.",
        422: "A field is unknown or invalid.",
        429: "Too many requests at once. Try again soon.",
        500: "A bug in tribal-mcp. Completed changes are safe.",
        503: "The server is shutting down.",
    }
    for status, meaning in http_statuses().items():
        known = meanings.get(_status_of(status))
        meanings[_status_of(status)] = f"{known} {meaning}" if known else meaning
    return meanings


_MEANINGS = _meanings()
