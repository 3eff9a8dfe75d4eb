"""The MCP server: tools and resources over stdio or HTTP."""
