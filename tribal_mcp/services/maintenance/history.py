"""The use case: list the operations that changed memories."""

import anyio.to_thread

from tribal_mcp.next_steps import NextStep
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import HistoryRequest
from tribal_mcp.services.results import HistoryEntry, HistoryResult
from tribal_mcp.stores.restore_points import RestorePoints


async def run_history(context: Context, request: HistoryRequest) -> HistoryResult:
    """List all operations, or those that changed one memory."""
    points = RestorePoints.of(context.store())
    return await anyio.to_thread.run_sync(history, points, request.memory_id)


def history(points: RestorePoints | None, memory_id: str = "") -> HistoryResult:
    """The operations that changed memories, the newest first.

    Args:
        points: the store's restore points.
        memory_id: only the operations that changed this memory.
    """
    found = [
        point
        for point in (points.all() if points else [])
        if points and (not memory_id or memory_id in points.ids(point))
    ]
    return HistoryResult(
        operations=[
            HistoryEntry(
                point=point.id,
                at=point.made_at.isoformat(timespec="seconds"),
                operation=point.operation,
                source=point.source,
                sha256=point.sha256,
                how=point.how,
                counts=point.counts,
                state=(
                    "undone" if point.undone else "complete" if point.complete else "interrupted"
                ),
                can_undo=not point.emptied,
            )
            for point in found
        ],
        next_steps=[
            NextStep(
                "To see what undoing one of them would change, run {call}.",
                "undo",
                {"point": ..., "dry_run": True},
            )
            if found
            else NextStep("No operation has changed any memory yet.")
        ],
    )
