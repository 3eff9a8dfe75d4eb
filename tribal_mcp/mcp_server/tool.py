"""A tool that refuses unknown arguments and reports failures in plain words.

The SDK drops unknown arguments and shows a model the names of Python exceptions. Here an error
result says what is wrong and what to do next; a bug goes to the log. This relies on internals of
the SDK; tests cover each of them.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ValidationError

from tribal_mcp.errors import TribalError, invalid_field
from tribal_mcp.mcp_server.next_steps import as_call
from tribal_mcp.next_steps import in_words
from tribal_mcp.services.permissions import READ_ONLY
from tribal_mcp.worker.pool import StoreProcesses

log = logging.getLogger(__name__)

Ctx = Context[StoreProcesses, Any]


async def ask(ctx: Ctx, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Have a store process do a job, and report its progress to the client."""

    async def progress(percent: float, message: str) -> None:
        await ctx.report_progress(percent, 100, message)

    request = ctx.request_context.request
    result = await ctx.request_context.lifespan_context.call(
        name,
        arguments,
        progress,
        # Set by the access check over HTTP; over stdio there is no request, and no limit.
        read_only=request is not None and request.scope[READ_ONLY],
    )
    if steps := result["next_steps"]:
        result["next_step"] = in_words(steps, as_call)
    return result


def answer(result: BaseModel) -> CallToolResult:
    """A result as structured content, and the same as compact text."""
    return CallToolResult(
        content=[TextContent(type="text", text=result.model_dump_json())],
        structured_content=result.model_dump(mode="json"),
    )


def message_of(error: TribalError) -> str:
    """What is wrong, and what to do next."""
    return f"{error} {in_words(error.next_steps, as_call)}".rstrip()


class PlainTool(Tool):
    """A tool that refuses unknown arguments and reports failures in plain words."""

    @classmethod
    def of(cls, fn: Any, title: str, **hints: bool) -> Self:  # noqa: ANN401 - any coroutine function
        """A tool made from a function; the docstring is its description."""
        description = " ".join((fn.__doc__ or "").split())
        annotations = ToolAnnotations(open_world_hint=False, **hints)
        tool = cls.from_function(fn, title=title, description=description, annotations=annotations)
        # Otherwise a misspelled dry_run would be ignored, and the import would be real.
        model = tool.fn_metadata.arg_model
        model.model_config["extra"] = "forbid"
        model.model_rebuild(force=True)
        tool.parameters = _brief(model.model_json_schema(by_alias=True), ("title",))
        if said := tool.fn_metadata.output_schema:
            tool.fn_metadata.output_schema = _brief(said, ("title", "default", "description"))
        assert isinstance(tool, cls)  # noqa: S101 - from_function builds the class it is called on
        return tool

    async def run(
        self,
        arguments: dict[str, Any],
        context: Context[Any, Any],
        convert_result: bool = False,
    ) -> Any:  # noqa: ANN401 - the SDK's signature
        """Run it; a failure that the user can act on becomes an error result."""
        # Many clients send null for an argument that is not given.
        known = self.parameters["properties"]
        given = {k: v for k, v in arguments.items() if v is not None or k not in known}
        try:
            return await super().run(given, context, convert_result)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, TribalError):
                return _failure(message_of(cause))
            if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
                return _failure(self._invalid(cause))
            log.exception("%s failed", self.name)
            return _failure(
                f"{self.name} failed because of a bug in tribal-mcp; the server's log has the "
                "details. Completed changes are safe."
            )

    def _invalid(self, error: ValidationError) -> str:
        known = list(self.parameters["properties"])
        sentences: list[str] = []
        for problem in error.errors(include_url=False):
            if problem["type"] == "extra_forbidden":
                name = str(problem["loc"][0])
                arguments = f"The arguments are: {', '.join(known)}." if known else ""
                sentences.append(f"There is no argument {name!r:.80}. {arguments}".rstrip())
            else:
                sentences.append(invalid_field(problem["loc"], problem))
        return f"Nothing was done. {' '.join(sentences)} Correct the call and try again."


def _brief(schema: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """A schema without keywords that only cost a model tokens."""
    brief: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in ("properties", "$defs"):
            brief[keyword] = {name: _brief(one, without) for name, one in value.items()}
        elif keyword in ("items", "additionalProperties") and isinstance(value, dict):
            brief[keyword] = _brief(value, without)
        elif keyword not in without and (keyword != "default" or value):  # else nothing is given
            brief[keyword] = value
    return brief


def _failure(message: str) -> CallToolResult:
    return CallToolResult(is_error=True, content=[TextContent(type="text", text=message)])
