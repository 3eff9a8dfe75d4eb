"""A documented import path of `undo`; see `services.maintenance.undo`."""

from tribal_mcp.services.maintenance.undo import undo

__all__ = ["undo"]
