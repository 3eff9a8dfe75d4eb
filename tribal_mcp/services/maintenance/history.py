"""The use case: list the operations that changed memories."""

import anyio.to_thread

from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.memory import is_ahead
from tribal_mcp.services.context import Context
from tribal_mcp.services.left_out import describe_empty
from tribal_mcp.services.requests import HistoryRequest
from tribal_mcp.services.results.store import HistoryEntry, HistoryResult
from tribal_mcp.stores.restore_points import SESSION, Point, RestorePoints
from tribal_mcp.text import counted


async def run_history(context: Context, request: HistoryRequest) -> HistoryResult:
    """List all operations, or those that changed one memory."""
    async with context.store() as store:
        points = RestorePoints.of(store)
        result = await anyio.to_thread.run_sync(history, points, request.memory_id)
        if not result.operations:
            result.notes += await describe_empty(store, context.settings)
        return result


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
    ahead = [point for point in found if is_ahead(point.made_at)]
    notes = []
    if ahead:
        notes.append(
            f"{counted(len(ahead), 'operation is', 'operations are')} dated in the future: the "
            "clock was ahead then, or is behind now. The order is still the order in which they "
            "were done."
        )
    return HistoryResult(
        notes=notes,
        operations=[
            HistoryEntry(
                point=point.id,
                at=point.made_at.isoformat(timespec="seconds"),
                operation=point.operation,
                source=point.source,
                sha256=point.sha256,
                how=point.how,
                counts=point.counts or _counted(points, point),
                state=(
                    "undone" if point.undone else "complete" if point.complete else "interrupted"
                ),
                can_undo=not point.emptied,
                local_time=point.made_at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
                bytes=points.size(point) if points else 0,
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


def _counted(points: RestorePoints | None, point: Point) -> dict[str, int]:
    """The counts of an operation that grows, which are not in its restore point."""
    if points is None or point.operation != SESSION:
        return {}
    return {"remembered": sum(1 for _ in points.ids(point))}
