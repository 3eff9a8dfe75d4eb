"""The HTTP door: `/v1` for programs, `/mcp` for agents, both behind one gate."""
