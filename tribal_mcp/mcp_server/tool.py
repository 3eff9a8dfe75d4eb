"""A tool as the MCP door wants it: unknown arguments refused, every failure a sentence.

The SDK drops arguments that it does not know and shows a model the names of Python's exceptions.
Here a call that can't be carried out says what is wrong and what to do next; what only its
developers can mend goes to the log. This touches the inside of the SDK; tests hold each part.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Self

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ValidationError

from tribal_mcp.errors import TribalError
from tribal_mcp.next_steps import in_words
from tribal_mcp.services.permissions import READ_ONLY
from tribal_mcp.worker.pool import StoreProcesses

log = logging.getLogger(__name__)

Ctx = Context[StoreProcesses, Any]


async def ask(ctx: Ctx, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Have a store process do a job, and tell the client how far it is."""

    async def progress(percent: float, message: str) -> None:
        await ctx.report_progress(percent, 100, message)

    request = ctx.request_context.request
    result = await ctx.request_context.lifespan_context.call(
        name,
        arguments,
        progress,
        # Over HTTP the gate has noted it; over stdio there is no request, and no limit.
        read_only=request is not None and request.scope[READ_ONLY],
    )
    if steps := result["next_steps"]:
        result["next_step"] = in_words(steps, as_call)
    return result


def as_call(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as the tool call that a user can paste."""
    given = ", ".join(
        f"{name}={'…' if value is ... else json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()
    )
    return f"tribal_{action}({given})"


def answer(result: BaseModel) -> CallToolResult:
    """A result as its schema says, and the same as compact text."""
    return CallToolResult(
        content=[TextContent(type="text", text=result.model_dump_json())],
        structured_content=result.model_dump(mode="json"),
    )


class SentenceTool(Tool):
    """A tool that refuses unknown arguments and fails in sentences."""

    @classmethod
    def of(cls, fn: Any, title: str, **hints: bool) -> Self:  # noqa: ANN401 - any coroutine function
        """Make a tool of a function; its docstring is the description."""
        description = " ".join((fn.__doc__ or "").split())
        annotations = ToolAnnotations(open_world_hint=False, **hints)
        tool = cls.from_function(fn, title=title, description=description, annotations=annotations)
        # Else `dryrun: true` would import for real.
        model = tool.fn_metadata.arg_model
        model.model_config["extra"] = "forbid"
        model.model_rebuild(force=True)
        tool.parameters = model.model_json_schema(by_alias=True)
        assert isinstance(tool, cls)  # noqa: S101 - from_function builds the class it is called on
        return tool

    async def run(
        self,
        arguments: dict[str, Any],
        context: Context[Any, Any],
        convert_result: bool = False,
    ) -> Any:  # noqa: ANN401 - the SDK's signature
        """Run it; what its user can mend comes back as an error result with one sentence."""
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, TribalError):
                return _failure(f"{cause} {in_words(cause.next_steps, as_call)}".rstrip())
            if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
                return _failure(self._sentence(cause))
            log.exception("%s failed", self.name)
            return _failure(
                f"{self.name} failed because of a bug in tribal-mcp; the server's log has the "
                "details. What was acknowledged is safe."
            )

    def _sentence(self, error: ValidationError) -> str:
        known = ", ".join(self.parameters["properties"]) or "none"
        sentences: list[str] = []
        for problem in error.errors(include_url=False):
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                sentences.append(f"There is no argument {name!r:.80}; the arguments are {known}.")
            else:
                sentences.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}.")
        return f"Nothing was done. {' '.join(sentences)} Correct the call and try again."


def _failure(message: str) -> CallToolResult:
    return CallToolResult(is_error=True, content=[TextContent(type="text", text=message)])
