"""The routes under /v1.

Each passes the request on to a store process and returns its result. No route takes a file name: a
bundle is the body of a request or of a response.
"""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from tribal_mcp.errors import StoreLocked, TribalError, UsageError
from tribal_mcp.http_api.content import BundleResponse, form_for, form_of, take_body, wants_events
from tribal_mcp.http_api.dispatch import Calls, Events
from tribal_mcp.http_api.problems import EveryEntryRejected, Problem, problems
from tribal_mcp.http_api.schemas import (
    EXPORT_CURL,
    EXPORTED,
    IMPORT_BODY,
    IMPORT_CURL,
    IMPORTED,
    WITH_EVENTS,
    ExportBody,
    ExportFields,
    Health,
    ImportOptions,
    ReembedFields,
    SyncFields,
    UndoFields,
)
from tribal_mcp.portability.duplicate_names import given_twice
from tribal_mcp.services.results.bundles import ImportResult
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.services.results.store import StatsResult, UndoResult
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.worker.pool import Progress


async def export(
    request: Request,
    query: Annotated[ExportFields, Query()],
    body: Annotated[ExportBody | None, Body()] = None,
) -> Response:
    """Export the memories that match the filters as a bundle; without filters, all memories.

    A memory matches if it has at least one of the tags and was created in the range of dates. The
    response is the bundle itself, as POST /v1/import takes it, or with `format` the file of another
    system, a folder as a zip archive. Fields go in the body or in the query.
    """
    calls: Calls = request.app.state.calls
    fields = query.model_dump(exclude_unset=True)
    sent = body.model_dump(exclude_unset=True) if body else {}
    if duplicates := sorted(fields.keys() & sent.keys()):
        raise UsageError(f"{duplicates[0]} is both in the body and in the query. Send it once.")
    arguments = fields | sent
    is_bundle = arguments.get("format") in {None, "", "bundle"}
    form = form_for(request) if is_bundle else None
    with ExitStack() as stack:
        stack.enter_context(calls.slot(request))
        file = stack.enter_context(calls.spool.new())
        arguments |= {"output_path": form.name if form else "", "spool_file": file.name}
        result = await calls.call(request, "export", arguments)
        if result["dry_run"]:
            return JSONResponse(result)
        form = form or form_of(result["output_path"])
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
        if result["secrets"]:
            headers["Tribal-With-Secrets"] = str(result["secrets"]["memories"])
        return BundleResponse(reader, form, headers, stack.pop_all())


async def import_(request: Request, query: Annotated[ImportOptions, Query()]) -> Response:
    """Import the memories of the bundle in the body.

    The body is the bundle, or an object with the bundle and the options:
    `{"bundle": {…}, "conflict_resolution": "merge"}`; or the file or archive of another system,
    whose format is recognised. It is checked completely before anything is
    written. If the import is interrupted or the client disconnects, it stops after the current
    batch; the same request completes it.
    """
    calls: Calls = request.app.state.calls

    async def run(on_progress: Progress | None = None) -> dict[str, Any]:
        with calls.spool.new() as file:
            await take_body(request, file)  # a slow client holds no slot
            arguments = query.model_dump(exclude_unset=True) | {"spool_file": file.name}
            with calls.slot(request):
                result = await calls.call(request, "import", arguments, on_progress)
        if result["total"] and result["errors"] == result["total"]:
            raise EveryEntryRejected(result)
        return result

    return Events(run) if wants_events(request) else JSONResponse(await run())


async def stats(request: Request) -> Response:
    """Count the memories, by tag, source and month, and describe the store."""
    calls: Calls = request.app.state.calls
    with calls.slot(request):
        return JSONResponse(await calls.call(request, "stats", {}))


async def health(request: Request) -> Response:
    """Whether the server works; nothing else is revealed."""
    calls: Calls = request.app.state.calls
    try:
        if not calls.is_busy:
            await calls.call(request, "stats", {})
    except StoreLocked:
        pass  # another process writes, which is normal
    except TribalError:
        return JSONResponse({"status": "not ok"}, 503)
    return JSONResponse({"status": "ok"})


@dataclass(frozen=True, slots=True)
class Job:
    """A job with a small JSON body, `POST /v1/<name>`, that responds with its result.

    Attributes:
        name: as in `services.jobs`.
        fields: the model of the body, which refuses unknown fields.
        result: the model of the response.
        summary: a few words for the OpenAPI document.
        description: a sentence for the OpenAPI document.
    """

    name: str
    fields: type[BaseModel]
    result: type[BaseModel]
    summary: str
    description: str


JOBS = (
    Job(
        "undo",
        UndoFields,
        UndoResult,
        "Undo a change",
        "Undo an import or another change: every memory that it changed is as it was before.",
    ),
    Job(
        "reembed",
        ReembedFields,
        ReembedResult,
        "Compute vectors",
        "Compute vectors for the memories that have none, or for every memory.",
    ),
)
SYNC = Job(
    "sync",
    SyncFields,
    SyncResult,
    "Sync with other machines",
    "Share memories with other machines through the folder that the setting TRIBAL_SYNC_DIR names: "
    "publish what changed here, and apply what changed there. If the client disconnects, it stops; "
    "the same request completes it.",
)
"""Offered only if a setting names the folder."""


def _handler(job: Job) -> Callable[..., Awaitable[Response]]:
    async def handle(request: Request, body: Any = None) -> Response:  # noqa: ANN401 - set below
        calls: Calls = request.app.state.calls
        arguments = body.model_dump(exclude_unset=True) if body else {}

        async def run(on_progress: Progress | None = None) -> dict[str, Any]:
            with calls.slot(request):
                return await calls.call(request, job.name, arguments, on_progress)

        return Events(run) if wants_events(request) else JSONResponse(await run())

    handle.__annotations__["body"] = Annotated[job.fields | None, Body()]
    return handle


_SEVERAL = frozenset({"tags", "mapping", "add_tags", "map_tags"})
"""The fields that may stand several times in a query."""


async def _each_once(request: Request) -> None:
    """Refuse an option that is given twice or in the wrong place, before anything is done."""
    sent = [name for name, _ in request.query_params.multi_items()]
    if twice := next((n for n in sent if sent.count(n) > 1 and n not in _SEVERAL), None):
        raise Problem(
            400, "given_twice", f"The query gives {twice!r:.80} more than once. Send it once."
        )


async def _no_query(request: Request) -> None:
    """Refuse a query where there are no options: `?dry_run=true` would be ignored."""
    if request.query_params:
        name = next(iter(request.query_params))
        raise Problem(
            400,
            "no_query",
            f"Nothing was done. {request.url.path} has no option {name!r:.80} in its query."
            + (" Send its fields as JSON in the body." if request.method == "POST" else ""),
        )


async def _json_only(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and await request.body():
        raise Problem(
            415, "wrong_type", "Send the fields as JSON, with Content-Type: application/json."
        )
    if twice := given_twice(await request.body()):
        raise Problem(
            400, "given_twice", f"The body gives {twice!r:.80} more than once. Send it once."
        )


def add_routes(app: FastAPI, *, syncs: bool) -> None:
    """Add all routes to the app, whose `state.calls` they use.

    Args:
        app: the app.
        syncs: whether a setting names a folder to sync with.
    """
    each_once, no_query = Depends(_each_once), Depends(_no_query)
    json_only = Depends(_json_only)
    app.post(
        "/v1/export",
        tags=["bundles"],
        summary="Export memories",
        response_class=Response,
        dependencies=[each_once, json_only],
        responses={200: EXPORTED, **problems(406, 415, 423, 507)},
        openapi_extra={"x-curl": EXPORT_CURL},
    )(export)
    app.post(
        "/v1/import",
        tags=["bundles"],
        summary="Import memories",
        response_model=ImportResult,
        dependencies=[each_once],
        responses={200: IMPORTED, **problems(409, 415, 423, 507)},
        openapi_extra={"x-curl": IMPORT_CURL, **IMPORT_BODY},
    )(import_)
    for job in (*JOBS, SYNC) if syncs else JOBS:
        app.post(
            f"/v1/{job.name}",
            tags=["store"],
            summary=job.summary,
            description=job.description,
            response_model=job.result,
            dependencies=[no_query, json_only],
            responses={200: WITH_EVENTS, **problems(404, 409, 415, 423, 507)},
        )(_handler(job))
    app.get(
        "/v1/stats",
        tags=["store"],
        summary="Describe the store",
        response_model=StatsResult,
        dependencies=[no_query],
        responses=problems(423),
    )(stats)
    app.get(
        "/v1/health",
        tags=["store"],
        summary="Check the server",
        response_model=Health,
        responses={
            **problems(),
            503: {"description": "The server does not work.", "model": Health},
        },
    )(health)
