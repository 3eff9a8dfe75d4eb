"""What a caller reads when something can't be done: RFC 9457, with a `code` that stays.

A failure of the services brings its own status and its sentence. What is a bug says only that it is
one; the log has the rest.
"""

import json
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

from tribal_mcp.errors import TribalError
from tribal_mcp.next_steps import in_words

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemResult(BaseModel):
    """Why a request could not be carried out (RFC 9457)."""

    type: str = Field("about:blank", description="always about:blank; `code` tells them apart")
    title: str = Field(description="the name of the status", examples=["Unprocessable Entity"])
    status: int = Field(description="the HTTP status", examples=[422])
    code: str = Field(description="what it is, for programs", examples=["bundle_error"])
    detail: str = Field(
        description="what is wrong, and what to do next",
        examples=["The bundle is cut off at line 8. Nothing was imported. Send it again."],
    )


class Problem(HTTPException):
    """A refusal of the door itself."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code


class NothingTaken(Exception):
    """An import ended and every entry was rejected; its result says why."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("No entry could be taken. Mend the bundle as error_details says.")
        self.result = result


def response_of(error: Exception) -> JSONResponse:
    """The problem that says it."""
    match error:
        case NothingTaken():
            return _response(422, "partial_import", str(error), more={"result": error.result})
        case Problem():
            return _response(error.status_code, error.code, error.detail, error.headers)
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            return _response(error.status_code, code, _detail(error), error.headers)
        case RequestValidationError():
            return _of_validation(error)
        case TribalError():
            # 499 is no status of HTTP's; whoever reads it is still there, so the server stopped it.
            known = error.http_status in set(HTTPStatus)
            status = error.http_status if known else 503
            retry = {"Retry-After": "5"} if status in _LATER else None
            return _response(status, _snake(type(error).__name__), _sentences(error), retry)
    log.error("A request failed", exc_info=error)
    detail = (
        "The request failed because of a bug in tribal-mcp; the server's log has the details. "
        "What was acknowledged is safe."
    )
    return _response(500, "bug", detail)


_LATER = (423, 503)
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
_DETAILS = {
    404: "There is nothing here. GET /docs lists what there is.",
    405: "This can't be done here in that way. GET /docs says how.",
}


def _detail(error: HTTPException) -> str:
    return _DETAILS.get(error.status_code, f"{error.detail}.".replace("..", "."))


def _of_validation(error: RequestValidationError) -> JSONResponse:
    sentences: list[str] = []
    for problem in error.errors():
        if problem["type"] == "json_invalid":
            why = problem.get("ctx", {}).get("error", "")
            return _response(400, "not_json", f"The body is not JSON: {why}. Correct it.")
        place, *names = (str(part) for part in problem["loc"])
        name = ".".join(names) or f"the {place}"
        if problem["type"] == "extra_forbidden":
            sentences.append(f"There is no field {name!r:.80}.")
        else:
            sentences.append(f"{name:.80}: {problem['msg'].removeprefix('Value error, ')}.")
    said = " ".join(sentences[:10])
    detail = f"Nothing was done. {said} GET /docs says what there is."
    return _response(422, "invalid_request", detail)


def _response(
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    body = ProblemResult(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)
    # A lone surrogate that a caller sent is shown, not sent back.
    content = {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in body.model_dump().items()
    }
    return JSONResponse({**content, **(more or {})}, status, headers, MEDIA_TYPE)


def _sentences(error: TribalError) -> str:
    return f"{error} {in_words(error.next_steps, as_request)}".rstrip()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def as_request(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as the request that a user can send."""
    given = json.dumps({n: "…" if v is ... else v for n, v in arguments.items()})
    return f"POST /v1/{action} {given}" if arguments else f"/v1/{action}"


def answer_in_problems(app: FastAPI) -> None:
    """Have every failure of the app answered with a problem."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return response_of(error)

    for kind in (HTTPException, RequestValidationError, TribalError, NothingTaken, Exception):
        app.add_exception_handler(kind, answer)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The declaration of these statuses, and of those that any request may meet."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemResult"}}}
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted({400, 401, 403, 408, 413, 421, 422, 429, 500, 503, *statuses})
    }


_MEANINGS = {
    400: "The request is not understood, or a value in it can't be.",
    401: "The token is missing or wrong.",
    403: "The Origin is not allowed, or the token may only read.",
    404: "There is nothing here.",
    406: "None of the forms in Accept can be had.",
    408: "The body came too slowly.",
    409: "It conflicts with what is stored.",
    413: "The body is larger than allowed.",
    415: "The body is of a kind that is not read.",
    421: "The Host is not one of this server's names.",
    422: "A field is unknown or wrong; or the bundle is refused, and nothing was written.",
    423: "Another process holds the store.",
    429: "Too many calls are at work. Try again soon.",
    500: "A bug. What was acknowledged is safe.",
    503: "The store can't be used, or the server is shutting down.",
    507: "The disk is full.",
}
