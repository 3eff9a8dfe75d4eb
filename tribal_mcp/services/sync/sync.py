"""The use case: keep a store and the other replicas of a shared folder the same.

(Over 300 lines: the steps of a sync, in their order.)
"""

import time
from collections.abc import Collection, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial

from tribal_mcp.errors import SecretsFound, Stopped, TribalError, UsageError
from tribal_mcp.files.replica_folders import ReplicaFile, SharedFolder
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.replication.records import Head, Record
from tribal_mcp.portability.replication.versions import digest_of, fields_of, visible
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import configured_model
from tribal_mcp.services.importing.vectors import plan_vectors
from tribal_mcp.services.requests import SyncRequest
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.services.secrets import Screen
from tribal_mcp.services.sync.compacting import compact
from tribal_mcp.services.sync.encrypted_files import check as check_encryption
from tribal_mcp.services.sync.exchange import PER_FILE, Exchange
from tribal_mcp.services.sync.merging import Merging
from tribal_mcp.services.sync.opening import check, configure, explained, locked, path_of, state_of
from tribal_mcp.services.sync.operations import listed, made_here, withdraw
from tribal_mcp.services.sync.other_folders import note_other_collections, other_states
from tribal_mcp.services.sync.replicas import note, remove
from tribal_mcp.services.sync.report import describe, list_conflicts, next_steps
from tribal_mcp.services.sync.state import FOLDER, SyncState
from tribal_mcp.services.sync.vectors import Vectors
from tribal_mcp.stores.base import BATCH, MemoryStore
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import KnowsChanges
from tribal_mcp.text import counted, memories

_COUNTS = ("added", "changed", "deleted")


async def run_sync(context: Context, request: SyncRequest) -> SyncResult:
    """Publish what changed here, apply what others changed, and say both."""
    folder = SharedFolder(path_of(context, request))
    async with context.store() as store:
        return await sync(context, request, folder, store)


async def sync(
    context: Context, request: SyncRequest, folder: SharedFolder, store: MemoryStore
) -> SyncResult:
    """Sync a store with a shared folder.

    Raises:
        SecretsFound: what is to be published has some, and is to have none.
        UsageError: the folder or an argument is not valid, or most memories have disappeared.
        StoreLocked: another sync of the store did not end in time.
        StoreError: the store can't be written to.
        Stopped: `context` stopped it; repeating it continues.
    """
    begin = time.monotonic()
    check(request)
    if store.own_folder is None:
        raise UsageError("This store has no folder for what a sync has to keep.")
    own = store.own_folder / FOLDER
    listing = folder.listing()
    async with locked(own, context, dry_run=request.dry_run):
        state = state_of(own, folder.path, listing, store, dry_run=request.dry_run)
        with explained(state.path), closing(state), other_states(state) as (same, others):
            result = SyncResult(
                folder=str(folder.path), first_contact=state.is_new, dry_run=request.dry_run
            )
            if request.encrypt or state["encrypted"]:
                check_encryption(context.settings)
            configure(state, request, folder, listing, store)
            note_other_collections(result, listing, others)
            points = RestorePoints.of(store, context.settings.restore_points)
            point = None
            if points and not request.dry_run:
                # A sync that was interrupted is continued, so its restore point is, too.
                this = state.path.stem
                model = await store.identity()
                point = points.begin("sync", folder.path.name, this, model=model)
            screen = Screen.of(request.secrets, personal_data=False)
            exchange = Exchange(context, folder, state, result, screen)
            merging = Merging(store, state, result, point, state.tags, same)
            with closing(point) if point else nullcontext():
                running = _Sync(context, request, exchange, merging)
                try:
                    await running.receive()
                    if point:
                        result.restore_point = point.finish(result.model_dump(include=set(_COUNTS)))
                    if points and request.withdraw:
                        result.withdrawn = await withdraw(
                            merging, points, request.withdraw, running.check
                        )
                    await running.publish()
                except TribalError as error:
                    raise running.with_what_came_in(error) from error
    if screen and screen.refuses and not request.dry_run:
        found = ", ".join(f"{one.id!r:.80}" for one in screen.summary.first)
        say = counted(screen.summary.memories, "memory contains", "memories contain")
        raise SecretsFound(
            f"{say} secrets: {found}. Nothing was published; what came in was applied. Edit or "
            "delete them, share only some tags, or publish them knowingly."
        )
    result.duration_ms = round((time.monotonic() - begin) * 1000)
    embeds = configured_model(context.settings) is not None
    result.next_steps = next_steps(result, request, embeds=embeds)
    return result


@dataclass(slots=True)
class _Sync:
    """A sync in progress.

    Attributes:
        context: settings, progress and cancellation.
        request: the arguments.
        exchange: the shared folder.
        merging: the store.
        mark: what the store held when its changes were looked for. What this sync writes comes
            later, so the next one looks at it again, in case another program has changed it since.
        local: how much of the progress, in percent, it takes to find and record what changed here.
    """

    context: Context
    request: SyncRequest
    exchange: Exchange
    merging: Merging
    mark: str = ""
    local: int = 20

    @property
    def store(self) -> MemoryStore:
        """The store."""
        return self.merging.store

    @property
    def state(self) -> SyncState:
        """What is known of the shared folder."""
        return self.merging.state

    @property
    def result(self) -> SyncResult:
        """The counts."""
        return self.merging.result

    async def receive(self) -> None:
        """Record what changed here, then apply what the others changed."""
        new = self.exchange.look()
        self.local = 20 if new else 80
        await self._local()
        before = self.state.shown() if self.state.is_new else {}
        if self.state["behind"]:
            self._hear_of_removals(new)
        for position, file in enumerate(new):
            read, what = 0, f"Reading file {position + 1:,} of {len(new):,}"
            self._progress(position / len(new), what)
            if not self.exchange.counts(file):
                continue
            for part in self.exchange.read(file):
                if isinstance(part, Head):
                    note(self.state, self.result, file, part)
                    self._begin_file(part)
                else:
                    await self._merge(part, file.path)
                    read += len(part)
                    done = (position + min(1, read / PER_FILE)) / len(new)
                    self._progress(done, f"{what}: {memories(read)}")
        if before:
            after, here_only = self.state.shown(), self.state.unpublished_ids()
            is_same = (after.get(i) == what and i not in here_only for i, what in before.items())
            self.result.same = sum(is_same)
        with self.state.transaction():
            self.exchange.settle_missing()
        if self.state["narrowed"]:  # now, as a deletion replaces what others did before
            self.merging.narrowing = True
            await self._batches(await self.store.list_ids())
            self.merging.narrowing = False
            with self.state.transaction():
                self.state["narrowed"] = ""
        listing = self.exchange.listing
        remove(self.state, self.result, listing, self.request.remove_machine)
        await compact(self.merging)
        if self.request.resolve:
            await self._resolve(self.request.resolve, self.request.version)

    async def publish(self) -> None:
        """Publish what is new here, and describe the whole."""
        self._progress(1.0, "Publishing")
        await self.exchange.publish(Vectors(self.store, self.mark))
        with self.state.transaction():
            self.state["mark"] = self.mark
        self.result.tags = list(self.merging.tags)
        listing = self.exchange.listing
        describe(self.result, self.state, listing, conflicts=self.request.conflicts)
        if self.request.operations:
            self.result.operations = listed(self.state)
            if not self.result.operations:
                self.result.notes.append(
                    "There is nothing to withdraw: no operation is known in this folder that "
                    "changed several memories and of which something is left."
                )

    def with_what_came_in(self, error: TribalError) -> TribalError:
        """The error of this sync, with what it had applied before."""
        counts = [f"{getattr(self.result, did):,} {did}" for did in _COUNTS]
        point = self.merging.point
        if not (point and point.name):
            return error
        undo = NextStep("To undo it, run {call}.", "undo", {"point": point.name})
        return error.extended(f"Of what came in, this was applied: {', '.join(counts)}.", undo)

    def _progress(self, done: float, message: str) -> None:
        self.context.progress(20 + 60 * done, message)
        self.check()

    def check(self) -> None:
        """Stop here if this was asked for."""
        if self.context.stop():
            raise Stopped("Stopped. What was done is kept. To continue, repeat the sync.")

    async def _local(self) -> None:
        """Find what changed in the store since the last sync, and make versions of it."""
        mark, written = "", None
        if isinstance(self.store, KnowsChanges):
            mark, written = await self.store.changes(self.state["mark"])
        is_same = bool(mark) and mark == self.state["mark"]
        self.mark = mark
        interrupted = self.state.interrupted()
        if is_same and not interrupted:
            return
        ids = await self.store.list_ids()
        shown = self.state.shown()
        vanished = sorted(shown.keys() - set(ids))
        await self._refuse_loss(len(shown), sorted({*vanished} - {*interrupted}))
        changed = await self._changed(ids if written is None else sorted(written), shown)
        # Which tags a deleted memory had is not known, so with tags none is published.
        first = self.state.is_new and not self.merging.tags
        deleted = await self.store.forgotten() if first else {}
        missing = self.state.hidden().difference(ids)  # nothing is in the way of theirs any more
        new = {*changed, *vanished, *interrupted, *deleted, *missing}
        if points := RestorePoints.of(self.store):
            newest = next(iter(points.all()), None)
            with self.state.transaction():
                self.merging.made = made_here(points, self.state, new)
        await self._batches(new)
        if points and newest:
            with self.state.transaction():
                self.state["point"] = str(newest.number)

    async def _changed(self, ids: Sequence[str], shown: dict[str, str]) -> list[str]:
        """Those of the memories whose content differs from what the last sync left."""
        if not shown:
            return list(ids)
        changed = []
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            for memory_id, entry in (await self.store.get_many(part, vectors=False)).items():
                if digest_of(fields_of(entry_fields(entry))) != shown.get(memory_id):
                    changed.append(memory_id)
            percent = 0.8 * self.local * start / len(ids)
            self.context.progress(percent, f"Compared {start:,} of {memories(len(ids))}")
            if self.context.stop():
                raise Stopped("Stopped. Nothing was changed.")
        return changed

    async def _refuse_loss(self, count: int, vanished: Sequence[str]) -> None:
        """Ask before a store that lost half of its memories deletes them everywhere."""
        lost = set(vanished) - (await self.store.forgotten(vanished)).keys() if vanished else set()
        points = RestorePoints.of(self.store)
        if lost and points:
            undos = (point for point in points.all() if point.operation == "undo")
            lost.difference_update(*map(points.ids, undos))
        if lost and 2 * len(lost) >= count and not self.request.accept_deletions:
            raise UsageError(
                f"{len(lost):,} of {memories(count)} have disappeared from this store without "
                "having been deleted: it may be another store, or damaged. Nothing was changed. "
                "To get them back, restore a backup, or sync a new store with the folder.",
                NextStep(
                    "To delete them on all machines, run {call}.",
                    "sync",
                    {"folder": self.result.folder, "accept_deletions": True},
                ),
            )

    async def _batches(self, ids: Collection[str]) -> None:
        begin = 0.0 if self.state.is_new else 0.8 * self.local
        ids = sorted(ids)  # as the state is, so that each part of it is written once
        for start in range(0, len(ids), BATCH):
            await self.merging.merge(ids[start : start + BATCH], {})
            done = min(len(ids), start + BATCH)
            percent = begin + (self.local - begin) * done / len(ids)
            self.context.progress(percent, f"Recorded {done:,} of {memories(len(ids))}")
            if self.context.stop():
                raise Stopped("Stopped. To continue, repeat the sync.")

    def _hear_of_removals(self, new: Sequence[ReplicaFile]) -> None:
        """Read first what the newest files say, so that no file of a removed machine is used.

        The others may have dropped what it holds, and a memory that is here as well would count as
        published.
        """
        for file in {file.replica: file for file in reversed(new)}.values():
            if self.exchange.counts(file):
                head = next(self.exchange.read(file), None)
                if isinstance(head, Head):
                    note(self.state, self.result, file, head)

    def _begin_file(self, head: Head) -> None:
        self.result.files_read += 1
        model = head.model
        self.merging.made_by = model
        self.merging.plan = partial(
            plan_vectors,
            model,
            model.dimensions if model else 0,
            target=configured_model(self.context.settings),
            strategy=ReembeddingStrategy.AUTO,
        )

    async def _merge(self, records: Sequence[Record], path: str) -> None:
        incoming: dict[str, list[tuple[Record, str]]] = {}
        for record in records:
            incoming.setdefault(record.id, []).append((record, path))
        await self.merging.merge(list(incoming), incoming)

    async def _resolve(self, memory_id: str, number: int) -> None:
        """Keep what is visible (0), or another version, as `_conflicts` numbers them."""
        heads = self.state.rows([memory_id])[memory_id].known.heads
        seen = visible(heads)
        others = [head for head in heads if head.stamp in seen.others]
        listing = list_conflicts(self.result.folder)
        if not others:
            raise UsageError(f"There is no conflict about {memory_id!r:.80}.", listing)
        if number > len(others):
            raise UsageError(
                f"{memory_id!r:.80} has {counted(len(others), 'other version')}, so there is no "
                f"version {number:,}.",
                listing,
            )
        fields = others[number - 1].fields if number else seen.fields
        await self.merging.replace(memory_id, fields)
        self.result.resolved = 1
