"""`python -m tribal_mcp` is `tribal-mcp`."""

from tribal_mcp.cli import main

main()
