"""Call the server with pydantic-ai: directly, and as the toolset of an agent with a test model.

Arguments: the command; the calls come on standard input.
"""

import asyncio
import json
import sys

from pydantic_ai import Agent, __version__
from pydantic_ai.mcp import MCPToolset, StdioTransport
from pydantic_ai.models.test import TestModel

given = json.load(sys.stdin)


async def main():
    transport = StdioTransport(sys.argv[1], [], env=given["env"])
    toolset = MCPToolset(transport, tool_error_behavior="error", init_timeout=60)
    async with toolset:
        tools = [tool.name for tool in await toolset.list_tools()]
        results = []
        for name, arguments in given["calls"]:
            try:
                results.append([False, await toolset.direct_call_tool(name, arguments), ""])
            except Exception as error:
                results.append([True, None, str(error)])
        agent = Agent(TestModel(call_tools=["tribal_stats"]), toolsets=[toolset])
        said = await agent.run("How many memories are there?")
        assert "tribal_stats" in said.output, said.output
    print(
        json.dumps(
            {
                "version": __version__,
                "tools": tools,
                "results": results,
                "remark": "also as the toolset of an agent, with its test model",
            }
        )
    )


asyncio.run(main())
