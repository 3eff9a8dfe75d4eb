"""A request body: a bundle alone, or one wrapped with options."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.to_thread
from pydantic import ValidationError

from tribal_mcp.errors import UsageError
from tribal_mcp.files.spool import Spool
from tribal_mcp.portability.bundle.envelope import OPTIONS, unwrap
from tribal_mcp.portability.limits import Limits
from tribal_mcp.services.requests import ImportRequest


@asynccontextmanager
async def unwrapped(
    request: ImportRequest, spool: Spool, limits: Limits, still_wanted: Callable[[], None]
) -> AsyncIterator[ImportRequest]:
    """The request with the options of the wrapper, and a spool file with the bundle alone.

    Raises:
        UsageError: an option is unknown, invalid, or given twice.
        BundleError: it begins like a wrapped bundle, and is not one.
    """
    if not request.spool_file:
        yield request
        return
    with spool.new() as alone:
        with spool.reading(request.spool_file) as file:
            options = await anyio.to_thread.run_sync(
                partial(unwrap, file, alone.draft, limits, still_wanted)
            )
        if options is None:
            yield request
            return
        alone.draft.flush()
        yield _with_options(request, options, alone.name)


def _with_options(request: ImportRequest, options: dict[str, Any], name: str) -> ImportRequest:
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise UsageError(
            f"Unknown option {unknown[0]!r:.80} beside the bundle. The options are "
            f"{', '.join(OPTIONS)}. Nothing was imported."
        )
    options = {name: value for name, value in options.items() if value is not None}
    given = request.model_dump(exclude_unset=True)
    if twice := sorted(given.keys() & options.keys()):
        raise UsageError(f"{twice[0]} is given twice, once beside the bundle. Give it once.")
    try:
        return type(request).model_validate(given | options | {"spool_file": name})
    except ValidationError as error:
        problem = error.errors()[0]
        choices = problem.get("ctx", {}).get("expected")
        allowed = f"one of {choices}".replace(" or ", ", ") if choices else "true or false"
        raise UsageError(
            f"The option {problem['loc'][0]} beside the bundle must be {allowed}. Nothing was "
            "imported."
        ) from None
