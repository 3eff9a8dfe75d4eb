"""The HTTP API, with MCP over streamable HTTP on the same port."""
