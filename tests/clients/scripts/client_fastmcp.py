"""Call the server with fastmcp. Arguments: the command; the calls come on standard input."""

import asyncio
import json
import sys

from fastmcp import Client, __version__
from fastmcp.client.transports import StdioTransport

given = json.load(sys.stdin)


async def main():
    async with Client(StdioTransport(sys.argv[1], [], env=given["env"])) as client:
        tools = [tool.name for tool in await client.list_tools()]
        results = []
        for name, arguments in given["calls"]:
            result = await client.call_tool(name, arguments, raise_on_error=False)
            results.append([result.is_error, result.structured_content, result.content[0].text])
    print(json.dumps({"version": __version__, "tools": tools, "results": results}))


asyncio.run(main())
