"""The HTTP app: the routes under /v1, MCP under /mcp, and the documentation of both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from tribal_mcp import __version__
from tribal_mcp.config import HttpSettings, Settings
from tribal_mcp.files.spool import Spool
from tribal_mcp.http_api.access import AccessControl, Rules
from tribal_mcp.http_api.dispatch import Calls
from tribal_mcp.http_api.docs_page import POLICY, page_of
from tribal_mcp.http_api.mcp_route import SESSIONS, McpRoute
from tribal_mcp.http_api.problems import ProblemResult, answer_in_problems
from tribal_mcp.http_api.routes import add_routes
from tribal_mcp.mcp_server.server import Server, build_server
from tribal_mcp.portability.limits import MIB, Limits
from tribal_mcp.worker.pool import StoreProcesses

DESCRIPTION = """\
Export and import an agent's memories as portable bundles. Every failure is a problem (RFC 9457) \
with a stable `code` and a `detail` that says what to do next.\
"""
_TAGS = [
    {"name": "bundles", "description": "Export and import."},
    {"name": "store", "description": "The store and its changes."},
]
_MCP_BYTES = MIB
_SMALL_BYTES = MIB


def build_app(
    settings: Settings, limits: Limits, http: HttpSettings, address: str
) -> AccessControl:
    """The app behind its access control.

    Args:
        settings: where the store is.
        limits: the limits of a body.
        http: who may call.
        address: the address that the server listens on, as in a Host header.

    Raises:
        PathNotAllowed: nothing can be written below the store's folder.
    """
    processes = StoreProcesses()
    spool = Spool(settings.data_dir)
    spool.sweep()
    mcp = build_server(processes)
    mcp_app = mcp.streamable_http_app(
        max_request_body_size=limits.inline_bytes + _MCP_BYTES,
        max_sessions=4 * SESSIONS,  # those of two tokens, and of what ends
        # The access control checks Host and Origin, for all routes.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    syncs = settings.sync_dir is not None
    app = _app(processes, mcp, Calls(processes, spool), syncs=syncs)
    app = _documented(app, needs_token=bool(http.token))
    app.router.routes.append(Route("/mcp", endpoint=McpRoute(mcp_app)))
    if http.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(http.allowed_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    body_bytes = {
        "/v1/import": limits.file_bytes,
        "/mcp": limits.inline_bytes + _MCP_BYTES,
        "": _SMALL_BYTES,
    }
    return AccessControl(app, Rules(http, address, body_bytes))


def _app(processes: StoreProcesses, mcp: Server, calls: Calls, *, syncs: bool) -> FastAPI:
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
        openapi_tags=_TAGS,
    )
    app.state.calls = calls
    answer_in_problems(app)
    add_routes(app, syncs=syncs)
    return app


def _documented(app: FastAPI, *, needs_token: bool) -> FastAPI:
    """The app with /docs, and an OpenAPI document that shows problems and the token."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = {"Content-Security-Policy": POLICY}
        return HTMLResponse(page_of(app.openapi()), headers=policy)

    document = app.openapi()  # kept by the app, so what is changed here stays
    schemas = document["components"]["schemas"]
    schemas["ProblemResult"] = ProblemResult.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in schemas.keys() & {"ExportBody", "ReembedFields", "SyncFields", "UndoFields"}:
        for field in schemas[name]["properties"].values():  # null means not given
            field["type"] = [field["type"], "null"]
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return app
