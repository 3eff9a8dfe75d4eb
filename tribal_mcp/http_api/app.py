"""The routes of the HTTP door.

Each takes what its caller sent, hands the work to a store process and answers with what that said.
A caller names no file: a bundle is the body of a request or of an answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from tribal_mcp import __version__
from tribal_mcp.config import HttpSettings, Settings
from tribal_mcp.errors import StoreLocked, TribalError, UsageError
from tribal_mcp.files.spool import Spool
from tribal_mcp.http_api.access import Gate, Rules
from tribal_mcp.http_api.content import BundleResponse, form_for, take_body, wants_events
from tribal_mcp.http_api.dispatch import Calls, Events
from tribal_mcp.http_api.docs_page import POLICY, page_of
from tribal_mcp.http_api.problems import (
    NothingTaken,
    Problem,
    ProblemResult,
    answer_in_problems,
    problems,
)
from tribal_mcp.http_api.schemas import (
    EXPORT_CURL,
    EXPORTED,
    IMPORT_BODY,
    IMPORT_CURL,
    IMPORTED,
    ExportFields,
    Health,
    ImportOptions,
    ReembedFields,
    UndoFields,
)
from tribal_mcp.mcp_server.server import build_server
from tribal_mcp.portability.limits import MIB, Limits
from tribal_mcp.services.results import ImportResult, ReembedResult, StatsResult, UndoResult
from tribal_mcp.worker.pool import OnProgress, StoreProcesses

DESCRIPTION = """\
The memories of an agent, in and out as portable bundles. An answer is either what was asked for or
a problem (RFC 9457) with a `code` that stays and a sentence that says what to do next.\
"""
_MCP_BYTES = MIB
_SMALL_BYTES = MIB
_SESSIONS = 256


async def _json_only(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and await request.body():
        raise Problem(
            415, "wrong_type", "The fields of an export are sent as application/json. Say so."
        )


async def export(
    request: Request,
    query: Annotated[ExportFields, Query()],
    body: Annotated[ExportFields | None, Body()] = None,
) -> Response:
    """The memories that the filter takes, as a bundle; without a filter all of them.

    A memory is taken if it has at least one of the tags and was created in the range of dates. What
    comes back is the bundle itself, as POST /v1/import takes it. Fields go in the body or in the
    address.
    """
    calls: Calls = request.app.state.calls
    form = form_for(request)
    fields = query.model_dump(exclude_unset=True)
    sent = body.model_dump(exclude_unset=True) if body else {}
    if twice := sorted(fields.keys() & sent.keys()):
        raise UsageError(f"{twice[0]} is given twice, in the body and in the address.")
    with ExitStack() as stack:
        stack.enter_context(calls.place())
        file = stack.enter_context(calls.spool.new())
        arguments = fields | sent | {"output_path": form.name, "passing": file.name}
        result = await calls.call(request, "export", arguments)
        reader = stack.enter_context(await anyio.to_thread.run_sync(file.reader))
        headers = {
            "Content-Length": str(file.size()),
            "Content-Disposition": f'attachment; filename="{form.saved_as}"',
            "Vary": "Accept, Accept-Encoding",
            "Tribal-Memory-Count": str(result["memory_count"]),
            "Tribal-Sha256": result["sha256"],
            "Tribal-Without-Vector": str(result["without_vector"]),
            "Tribal-Dangling": str(result["dangling"]),
        }
        return BundleResponse(reader, form, headers, stack.pop_all())


async def import_(request: Request, query: Annotated[ImportOptions, Query()]) -> Response:
    """Bring the memories of the bundle in the body into the store.

    The body is the bundle, or an object with the bundle and the options:
    `{"bundle": {…}, "conflict_resolution": "merge"}`. All of it is checked before anything is
    written. Interrupted, or left by you, it ends after the batch in hand; the same again completes
    it.
    """
    calls: Calls = request.app.state.calls

    async def run(on_progress: OnProgress | None = None) -> dict[str, Any]:
        with calls.place(), calls.spool.new() as file:
            await take_body(request, file)
            arguments = query.model_dump(exclude_unset=True) | {"passing": file.name}
            result = await calls.call(request, "import", arguments, on_progress)
        if result["total"] and result["errors"] == result["total"]:
            raise NothingTaken(result)
        return result

    return Events(run) if wants_events(request) else JSONResponse(await run())


async def stats(request: Request) -> Response:
    """How many memories there are, and which model made their vectors."""
    calls: Calls = request.app.state.calls
    with calls.place():
        return JSONResponse(await calls.call(request, "stats", {}))


async def health(request: Request) -> Response:
    """Whether the server can do its work, and no more than that."""
    calls: Calls = request.app.state.calls
    try:
        if not calls.is_busy:
            await calls.call(request, "stats", {})
    except StoreLocked:
        pass  # another program writes, as it may
    except TribalError:
        return JSONResponse({"status": "not ok"}, 503)
    return JSONResponse({"status": "ok"})


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is called with a small body and answers with its result.

    Attributes:
        name: as `Jobs.run` knows it.
        fields: the model of the body, in which unknown fields are refused.
        result: the model of the answer.
        summary: what it does, in a few words.
    """

    name: str
    fields: type[BaseModel]
    result: type[BaseModel]
    summary: str


JOBS = (
    Job("undo", UndoFields, UndoResult, "Take an import back"),
    Job("reembed", ReembedFields, ReembedResult, "Vectors anew"),
)
"""Each is `POST /v1/<name>`."""


def _handler(job: Job) -> Callable[..., Awaitable[Response]]:
    async def handle(request: Request, body: Any = None) -> Response:  # noqa: ANN401 - set below
        calls: Calls = request.app.state.calls
        arguments = body.model_dump(exclude_unset=True) if body else {}
        with calls.place():
            return JSONResponse(await calls.call(request, job.name, arguments))

    handle.__doc__ = job.result.__doc__
    handle.__annotations__["body"] = Annotated[job.fields | None, Body()]
    return handle


def _add_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/v1/export",
        export,
        methods=["POST"],
        tags=["bundles"],
        summary="Memories out",
        response_class=Response,
        dependencies=[Depends(_json_only)],
        responses={200: EXPORTED, **problems(406, 415, 423, 507)},
        openapi_extra={"x-curl": EXPORT_CURL},
    )
    app.add_api_route(
        "/v1/import",
        import_,
        methods=["POST"],
        tags=["bundles"],
        summary="Memories in",
        response_model=ImportResult,
        responses={200: IMPORTED, **problems(409, 415, 423, 507)},
        openapi_extra={"x-curl": IMPORT_CURL, **IMPORT_BODY},
    )
    for job in JOBS:
        app.add_api_route(
            f"/v1/{job.name}",
            _handler(job),
            methods=["POST"],
            tags=["store"],
            summary=job.summary,
            response_model=job.result,
            dependencies=[Depends(_json_only)],
            responses=problems(404, 409, 415, 423, 507),
        )
    app.add_api_route(
        "/v1/stats",
        stats,
        tags=["store"],
        summary="What there is",
        response_model=StatsResult,
        responses=problems(423),
    )
    app.add_api_route(
        "/v1/health",
        health,
        tags=["store"],
        summary="Whether all is well",
        response_model=Health,
        responses={**problems(), 503: {"description": "Not ok.", "model": Health}},
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = {"Content-Security-Policy": POLICY}
        return HTMLResponse(page_of(app.openapi()), headers=policy)


def _describe(app: FastAPI, *, with_token: bool) -> None:
    """Have the OpenAPI document show problems as they are, and the token where one is needed."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    schemas["ProblemResult"] = ProblemResult.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if with_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]


def build_app(settings: Settings, limits: Limits, http: HttpSettings, address: str) -> Gate:
    """The app behind its gate.

    Args:
        settings: where the store is.
        limits: what a body may hold.
        http: who may call.
        address: what the server is bound to, as a Host names it.

    Raises:
        PathNotAllowed: nothing can be written below the store's folder.
    """
    processes = StoreProcesses()
    spool = Spool(settings.data_dir)
    spool.sweep()
    calls = Calls(processes, spool)
    mcp = build_server(processes)
    routes = mcp.streamable_http_app(
        max_request_body_size=limits.inline_bytes + _MCP_BYTES,
        max_sessions=_SESSIONS,
        # The gate has done it, for all routes.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    ).routes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with processes, mcp.session_manager.run():
            yield

    app = FastAPI(
        title="tribal-mcp",
        version=__version__,
        summary="Portable memories for AI agents.",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_tags=[
            {"name": "bundles", "description": "Memories out, and in."},
            {"name": "store", "description": "What there is."},
        ],
    )
    app.state.calls = calls
    answer_in_problems(app)
    _add_routes(app)
    _describe(app, with_token=http.token is not None)
    app.router.routes.extend(routes)
    body_bytes = {
        "/v1/import": limits.file_bytes,
        "/mcp": limits.inline_bytes + _MCP_BYTES,
        "": _SMALL_BYTES,
    }
    if http.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(http.allowed_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return Gate(app, Rules(http, address, body_bytes))
