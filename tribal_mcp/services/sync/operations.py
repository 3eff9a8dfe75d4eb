"""Operations that changed many memories, such as imports, and how any machine withdraws one.

A version says which operation made it, and how the digest of what it replaced begins. So what an
operation did and nobody has edited since are the heads that name it. A machine that had the earlier
memories still has them in its restore points.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice, takewhile

from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, with_vector
from tribal_mcp.portability.memory_json import entry_from_dict
from tribal_mcp.portability.replication.reconcile import left_of
from tribal_mcp.portability.replication.records import Operation
from tribal_mcp.portability.replication.versions import Origin, digest_of, fields_of, short
from tribal_mcp.services.results.sync import OperationResult, WithdrawnResult
from tribal_mcp.services.sync.merging import Made, Merging
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.stores.base import STEP
from tribal_mcp.stores.restore_points import Point, RestorePoints, time_of

WITHDRAW = "withdraw"
_NAMED = {"import", "copy", "forget", "undo", WITHDRAW}
_MANY = 2


def made_here(points: RestorePoints, state: SyncState, ids: Collection[str]) -> dict[str, Made]:
    """The operations since the last sync that changed these memories last.

    Left out are operations on a single one, and what the restore points no longer tell.
    """
    wanted, found = set(ids), dict[str, Made | None]()
    every = points.all()
    for point in takewhile(lambda point: point.number > int(state["point"] or -1), every):
        is_named = point.operation in _NAMED
        for change in points.lines(point) if not point.emptied else ():
            if (memory_id := change["id"]) in wanted and memory_id not in found:
                origin = Origin(point.id, _short(change["was"]))
                found[memory_id] = Made(change["now"], origin) if is_named else None
    counts = Counter(made.origin.operation for made in found.values() if made)
    made = {i: one for i, one in found.items() if one and counts[one.origin.operation] >= _MANY}
    named = {one.origin.operation for one in made.values()}
    state.note_operations(
        {p.id: _described(p, every, state["name"]) for p in every if p.id in named}
    )
    return made


def _short(was: object) -> str:
    return short(digest_of(fields_of(was))) if isinstance(was, dict) else ""


def _described(point: Point, every: Collection[Point], machine: str) -> Operation:
    undone = next((p for p in every if p.id == point.source), None)
    source = f"{undone.operation} {undone.source}" if undone else point.source
    return Operation(point.operation, source[:200], machine)


def listed(state: SyncState) -> list[OperationResult]:
    """The operations of which something is left that nobody has edited since, the newest first."""
    counts = state.counts()
    return [
        _result(point, about, counts[point])
        for point, about in reversed(state.operations().items())
        if point in counts
    ]


def _result(point: str, about: Operation, count: int) -> OperationResult:
    at = time_of(point).isoformat(timespec="seconds")
    return OperationResult(operation=point, at=at, memories=count, **about._asdict())


async def withdraw(
    merging: Merging, points: RestorePoints, operation: str, on_batch: Callable[[], None]
) -> WithdrawnResult:
    """Delete what an operation added and restore what it changed, unless it was edited since.

    Args:
        merging: the store.
        points: its restore points.
        operation: the restore point of the operation.
        on_batch: called after each batch.

    Raises:
        UsageError: the operation is not known.
        TribalError: extended by what to do.
    """
    state, dry_run = merging.state, merging.result.dry_run
    about = state.operations().get(operation)
    if about is None:
        raise UsageError(
            f"No operation {operation!r:.80} is known in this folder.",
            NextStep(
                "To list the operations, run {call}.",
                "sync",
                {"folder": merging.result.folder, "operations": True},
            ),
        )
    result = WithdrawnResult(**_result(operation, about, 0).model_dump(exclude={"memories"}))
    model = await merging.store.identity()
    source = f"{about.what} {about.source}".rstrip()
    point = None if dry_run else points.begin(WITHDRAW, source, operation, model=model)
    received, merging.point = merging.point, point
    done_by = point.about.id if point else ""
    running = _Withdrawal(merging, points, model, done_by, result, on_batch)
    with closing(point) if point else nullcontext():
        try:
            await running.run(operation)
        except TribalError as error:
            raise error.extended("To complete the withdrawal, repeat it.") from error
        finally:
            merging.point = received
        if point and point.name:
            with state.transaction():
                state.note_operations({done_by: Operation(WITHDRAW, source, state["name"])})
            counts = result.model_dump(include={"deleted", "restored"})
            result.restore_point = point.finish(counts)
    return result


@dataclass(frozen=True, slots=True)
class _Withdrawal:
    """A withdrawal in progress.

    Attributes:
        merging: the store.
        points: its restore points.
        model: of its vectors.
        point: that of the withdrawal; empty in a dry run.
        result: counts.
        on_batch: called after each batch.
    """

    merging: Merging
    points: RestorePoints
    model: EmbeddingMetadata | None
    point: str
    result: WithdrawnResult
    on_batch: Callable[[], None]

    async def run(self, operation: str) -> None:
        was = await self._left(operation)
        added = (i for i in was if not was[i])
        while batch := list(islice(added, STEP)):
            await self._revert(dict.fromkeys(batch))
        wanted = {i: digest for i, digest in was.items() if digest}
        for point in self.points.all() if wanted else ():
            kept = self._kept(point, wanted)
            while part := dict(islice(kept, STEP)):
                await self._revert(part)
        self.result.unknown = len(wanted)

    async def _left(self, operation: str) -> dict[str, str]:
        """What it made and nobody has edited since, with the short digest of what was there."""
        left: dict[str, str] = {}
        ids = iter(self.merging.state.made_by(operation))
        while batch := list(islice(ids, STEP)):
            for memory_id, row in self.merging.state.rows(batch).items():
                if origin := left_of(operation, row.known.heads):
                    left[memory_id] = origin.was
                else:
                    self.result.edited += 1
        return left

    def _kept(self, point: Point, wanted: dict[str, str]) -> Iterator[tuple[str, MemoryEntry]]:
        """Of what was there before, what a restore point has; it is no longer wanted then."""
        fits = point.is_of(self.model)
        for change in self.points.lines(point) if not point.emptied else ():
            if change["id"] in wanted and _short(change["was"]) == wanted[change["id"]]:
                del wanted[change["id"]]
                entry = entry_from_dict(change["was"], NO_LIMITS)
                yield change["id"], entry if fits else with_vector(entry, None)

    async def _revert(self, was: Mapping[str, MemoryEntry | None]) -> None:
        done = await self.merging.revert(was, self.point)
        self.result.edited += len(was) - len(done)
        self.result.deleted += done.count(None)
        self.result.restored += len(done) - done.count(None)
        self.on_batch()
