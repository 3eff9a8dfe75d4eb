"""Call the server with the OpenAI Agents SDK, through the tools that an agent would get.

Arguments: the command; the calls come on standard input.
"""

import asyncio
import json
import sys
from importlib.metadata import version

from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStdio, MCPUtil
from agents.tool_context import ToolContext

given = json.load(sys.stdin)


async def main():
    params = {"command": sys.argv[1], "env": given["env"]}
    async with MCPServerStdio(params, client_session_timeout_seconds=60) as server:
        tools = [tool.name for tool in await server.list_tools()]
        agent = Agent("tester", mcp_servers=[server])
        functions = {
            tool.name: tool
            for tool in await MCPUtil.get_function_tools(
                server, True, RunContextWrapper(None), agent
            )
        }
        assert sorted(functions) == sorted(tools)
        strict = [name for name, tool in functions.items() if tool.strict_json_schema]
        results = []
        for name, arguments in given["calls"]:
            result = await server.call_tool(name, arguments)
            is_error = getattr(result, "is_error", None)
            is_error = result.isError if is_error is None else is_error
            structured = getattr(result, "structured_content", None)
            structured = (
                getattr(result, "structuredContent", None) if structured is None else structured
            )
            results.append([bool(is_error), structured, result.content[0].text])
        context = ToolContext(None, tool_name="tribal_stats", tool_call_id="1", tool_arguments="{}")
        said = await functions["tribal_stats"].on_invoke_tool(context, "{}")
        assert "count" in str(said), said
    print(
        json.dumps(
            {
                "version": version("openai-agents"),
                "tools": tools,
                "results": results,
                "remark": f"{len(strict)} of {len(functions)} tools as strict schemas",
            }
        )
    )


asyncio.run(main())
