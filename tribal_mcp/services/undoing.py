"""The documented import path of `undo`."""

from tribal_mcp.services.maintenance.undo import undo

__all__ = ["undo"]
