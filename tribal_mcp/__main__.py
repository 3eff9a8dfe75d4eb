"""`python -m tribal_mcp` is `tribal-mcp`."""

from tribal_mcp.cli.main import main

main()
