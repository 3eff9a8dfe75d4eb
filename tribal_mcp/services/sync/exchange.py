"""Reads what other replicas have put into the shared folder, and publishes what is new here.

(Over 300 lines: both need the same listing of the folder and what is known of it.)
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import BinaryIO

from tribal_mcp.errors import EntryError, Stopped, TribalError
from tribal_mcp.files.replica_folders import Listing, ReplicaFile, SharedFolder
from tribal_mcp.portability.bundle.compression import compressed, decompressed
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.replication.compaction import Cut, Report
from tribal_mcp.portability.replication.records import (
    REPLICA,
    Head,
    Operation,
    Record,
    check_readable,
    dump_head,
    is_bookkeeping,
    operation_of,
    read_head,
    read_record,
)
from tribal_mcp.services.context import Context
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.services.secrets import Screen
from tribal_mcp.services.sync import encrypted_files
from tribal_mcp.services.sync.replicas import note_removed, report_of, take_new_id
from tribal_mcp.services.sync.state import Applied, SyncState, Unpublished
from tribal_mcp.services.sync.vectors import Vectors
from tribal_mcp.stores.base import BATCH, STEP
from tribal_mcp.text import counted

PER_FILE = 10_000
"""Versions in one file, so that one that is lost or damaged on the way costs little."""
DAY_S = 86_400
"""How often to write a file without versions, or own files again of which much is old."""
MONTH_S = 30 * DAY_S
"""How often to write own files again of which little is old."""
_SMALL_FILES = 32
_SPARE = 100
PATIENCE_S = DAY_S
"""How long a file of another replica may be missing before its versions are published here."""
_NAMED = 20


def _is_past(since_s: int, wait_s: int) -> bool:
    """Whether it is that long since then, or the clock has been set back by as much."""
    return abs(time.time() - since_s) >= wait_s


@dataclass(slots=True)
class Exchange:
    """A shared folder, and what is known of it.

    Attributes:
        context: settings, limits and progress.
        folder: the shared folder.
        state: what is known of it.
        result: names what is missing or can't be read.
        screen: searches what is published for secrets.
        listing: what was in it at the start.
    """

    context: Context
    folder: SharedFolder
    state: SyncState
    result: SyncResult
    screen: Screen | None = None
    listing: Listing = field(default_factory=Listing)
    _refused: set[tuple[str, str]] = field(default_factory=set)
    """The ids and stamps of versions that other machines can't read, by the limits of this one."""

    @property
    def replica(self) -> str:
        """The id of this replica."""
        return self.state["replica"]

    # What is there.

    def look(self) -> list[ReplicaFile]:
        """Compare the folder with what is known of it; the files to read, the newest first."""
        self.listing = self.folder.listing()
        known = self.state.files()
        for path, file in list(self.listing.files.items()):
            applied = known.get(path)
            if file.replica != self.replica and applied is None:
                continue  # checked when it is read
            if applied and file.identity == applied.file.identity:
                continue
            if not self._is_intact(file):
                self._report(self.result.damaged, path)
                self._drop(file)
            elif applied:
                with self.state.transaction():
                    self.state.add_file(file, applied.records)
        self._notice_copies(known)
        self._repair_own(known)
        for path in self.listing.others:
            self._report(self.result.ignored, path)
        self._notice_wrong_folder(is_known=bool(known))
        new = [file for path, file in self.listing.files.items() if path not in known]
        outdated = self.state.outdated(file.path for file in new)
        for path in outdated:
            if path.partition("/")[0] not in self.state.removed:
                self._report(self.result.outdated, path)
        new = [file for file in new if file.path not in outdated]
        return sorted(new, key=lambda file: (file.replica, -file.number))

    def _notice_wrong_folder(self, *, is_known: bool) -> None:
        for name in self.listing.elsewhere[:_NAMED]:
            what = f"The subfolder {name!r:.80} holds files of machines, and is not used."
            self.result.notes.append(
                f"{what} Rename it to {name.lower()!r}."
                if REPLICA.fullmatch(name.lower())
                else f"{what} If the machines share that one, name it as the folder; if it is a "
                "copy, delete it."
            )
        if is_known and not self.listing.files:
            self.result.notes.append(
                "The folder holds none of the files that were in it: check that it is the right "
                "one, and that its disk is connected."
            )

    def counts(self, file: ReplicaFile) -> bool:
        """Whether a file still counts, by what its replica and the others have said.

        Of those of a removed machine, only what they say about this one is read, once.
        """
        if file.replica in self.state.removed:
            problems = [*self.result.problems]
            head = next(self.read(file), None)
            self.result.problems = problems  # such as that its key is no longer in the settings
            if isinstance(head, Head) and self.replica in head.removed:
                note_removed(self.state, self.result, {self.replica: head.removed[self.replica]})
            with self.state.transaction():
                self.state.note_outdated([file.path])
            return False
        report = self.state.reports().get(file.replica)
        return not (report and report.has_replaced(file.name))

    def _is_intact(self, file: ReplicaFile) -> bool:
        try:
            return self.folder.is_intact(file)
        except OSError:  # deleted meanwhile, or not readable
            return False

    def _drop(self, file: ReplicaFile) -> None:
        """Take a file as missing; one of this replica is removed."""
        del self.listing.files[file.path]
        if file.replica == self.replica and not self.result.dry_run:
            with self.folder.explained():
                self.folder.remove(file)

    def _notice_copies(self, known: dict[str, Applied]) -> None:
        """Take a new id if something else has written with this one: a copy or a backup.

        A file that was replaced here long ago and has come back is removed again, and one that
        can't be read is left alone.
        """
        unknown = [
            file
            for path, file in self.listing.files.items()
            if file.replica == self.replica and path not in known
        ]
        foreign = [file for file in unknown if not self.state.has_written(file.path)]
        heads = [(file, next(self.read(file), None)) for file in foreign]
        theirs, names = Report(), set[str]()
        for file, head in heads:
            if isinstance(head, Head):
                theirs = theirs.updated(report_of(file, head))
                names.update(head.previous)
            else:
                del self.listing.files[file.path]
        if theirs.name:
            paths = {f"{self.replica}/{name}" for name in theirs.files}
            common = 0  # if a file is missing, it may have what was in those of before
            if paths <= self.listing.files.keys():
                common = self.state.last_written_of({*names, *theirs.files})
            take_new_id(self.state, self.result, common)
            return
        returned = [file for file in unknown if file not in foreign]
        for file in returned:
            self._report(self.result.outdated, file.path)
            self._drop(file)
        if returned:
            self.result.notes.append(
                f"{counted(len(returned), 'file')} that this machine had replaced came back, and "
                f"{'was' if len(returned) == 1 else 'were'} removed again. If this happens at each "
                "sync, have the program that copies the folder delete files, too."
            )

    def _repair_own(self, known: dict[str, Applied]) -> None:
        """Have what own files held published again if they are missing or damaged."""
        lost = [
            path
            for path, applied in known.items()
            if applied.file.replica == self.replica and path not in self.listing.files
        ]
        with self.state.transaction():
            again = self.state.publish_again(lost)
            self.state.forget_files(lost)
        if again:
            for path in lost:
                self._report(self.result.repaired, path)

    def settle_missing(self) -> None:
        """Report the files of others that are missing, and replace those missing for long."""
        known, cut = self.state.files(), self.state.cut()
        obsolete: list[str] = []
        replaced: list[str] = []
        for path, applied in known.items():
            if path in self.listing.files or applied.file.replica == self.replica:
                if applied.missing_since is not None:
                    self.state.note_missing(path, None)
                continue
            if cut.is_obsolete(path):
                replaced.append(path)
            elif applied.missing_since is None:
                self.state.note_missing(path, int(time.time()))
                self._report(self.result.missing, path)
            elif not _is_past(applied.missing_since, PATIENCE_S):
                self._report(self.result.missing, path)
            else:
                self._report(self.result.repaired, path)
                self.state.publish_again([path])
                obsolete.append(path)
        for replica, report in cut.reports.items():
            for name in report.files:
                path = f"{replica}/{name}"
                if path not in known and path not in self.listing.files:
                    self._report(self.result.missing, path)
        self.result.missing = [p for p in self.result.missing if p not in self.result.damaged]
        self.state.note_outdated(replaced)
        self.state.forget_files([*replaced, *obsolete])

    def _report(self, paths: list[str], path: str) -> None:
        if path not in paths and len(paths) < _NAMED:
            paths.append(path)

    # What others wrote.

    def read(self, file: ReplicaFile) -> Iterator[Head | list[Record]]:
        """The head of a file, then its versions in batches; nothing if it can't be used.

        What is wrong with a line is in the result, and the file is read again by the next sync.
        """
        shown = f"The file {file.path!r} in the shared folder"
        try:
            opened = self.folder.verified(file)
        except OSError as error:
            self._reject(f"{shown} can't be read: {error.strerror or error}. Not used.")
            return
        if opened is None:
            self._report(self.result.damaged, file.path)
            return
        limits = self.context.limits
        try:
            with self._content(opened, shown) as content:
                lines = decompressed(content, limits)
                head = read_head(lines.readline(limits.line_bytes))
                if (head.replica, head.number) != (file.replica, file.number):
                    raise EntryError("names another replica or number in its first line")  # noqa: TRY301
                yield head
                yield from self._batches(lines, file, shown, head.model)
        except EntryError as error:
            self._reject(f"{shown} {error}. Not used.")
        except TribalError as error:
            text = str(error) if file.path in str(error) else f"{shown}: {error}"
            text = text.removesuffix(" Nothing of it was used.").rstrip(".")
            self._reject(f"{text}. Not used.")
        except OSError as error:
            self._reject(f"{shown} can't be read: {error.strerror or error}. Not used.")

    def _content(self, file: BinaryIO, shown: str) -> BinaryIO:
        if self.state["encrypted"]:
            return encrypted_files.opened(file, self.context, shown)
        return self.context.plain(file, shown)

    def _batches(
        self, lines: BinaryIO, file: ReplicaFile, shown: str, model: EmbeddingMetadata | None
    ) -> Iterator[list[Record]]:
        limits = self.context.limits
        records, rejected = 0, 0
        batch: list[Record] = []
        for number, line in enumerate(iter(lambda: lines.readline(limits.line_bytes), b""), 2):
            try:
                record = read_record(line, limits)
                if record.vector is not None and model and record.vector.size != model.dimensions:
                    record = replace(record, vector=None)  # no store could hold it
                batch.append(record)
                records += 1
            except EntryError as error:
                rejected += 1
                self._reject(f"{shown}, line {number}: {error}. Not used.")
            if len(batch) == STEP:
                yield batch
                batch = []
        if batch:
            yield batch
        if not rejected:
            with self.state.transaction():
                self.state.add_file(file, records)

    def _reject(self, problem: str) -> None:
        if problem not in self.result.problems and len(self.result.problems) < _NAMED:
            self.result.problems.append(problem)

    # What is new here.

    async def publish(self, vectors: Vectors) -> None:
        """Write what is in no file yet, and merge own files once they hold much that is old."""
        own = {p: a for p, a in self.state.files().items() if a.file.replica == self.replica}
        counts = self._looked_through()
        self.result.published = counts[False]
        live = {path: self.state.live([path]) for path in own}
        old = [path for path, applied in own.items() if live[path] < applied.records]
        obsolete = self._to_rewrite(own, live, old, bool(counts))
        if obsolete:
            with self.state.transaction():
                self.state.write_again(obsolete)
            counts = self._looked_through()
        self._search()
        cut, clean = self.state.cut(), set(old) <= set(obsolete)
        is_due = bool(obsolete) or self._owes(cut, clean=clean)
        if self.result.dry_run or not (counts or is_due) or (self.screen and self.screen.refuses):
            return
        kept = {path for path in own if path not in obsolete}
        rows = self._unpublished()
        total = max(1, counts.total())
        for left in range(total, 0, -PER_FILE):
            done = total - left
            if counts:
                self.context.progress(80 + 20 * done / total, f"Published {done:,} of {total:,}")
            last = left <= PER_FILE
            names = kept if last else {*kept, *obsolete}
            number = int(self.state["number"] or 0) + 1
            swept = last and clean
            claims = cut.known(number) if swept and not self.state["behind"] else cut.own.swept
            part = list(islice(rows, PER_FILE))
            kept.add(await self._write(vectors, part, number, sorted(names), claims))
            if swept:
                with self.state.transaction():
                    self.state["swept"] = str(int(time.time()))
            if self.context.stop():
                raise Stopped("Stopped. To continue, repeat the sync.")
        for path in obsolete:
            with self.folder.explained("Everything was published."):
                self.folder.remove(own[path].file)
        with self.state.transaction():
            self.state.forget_files(obsolete)

    def _looked_through(self) -> Counter[bool]:
        """How much is to be published, by whether it is bookkeeping; what can't be is named."""
        self._refused.clear()
        counts = Counter[bool]()
        for row in self._unpublished():
            try:
                check_readable(row.id, row.line, self.context.limits)
                counts[is_bookkeeping(row.line)] += 1
            except EntryError as error:
                self._refused.add((row.id, row.stamp))
                self._reject(f"The memory {row.id!r:.80} can't be published: {error}.")
        return counts

    def _unpublished(self) -> Iterator[Unpublished]:
        """What is to be published."""
        last = ("", "")
        while rows := self.state.unpublished(last, BATCH):
            yield from (row for row in rows if (row.id, row.stamp) not in self._refused)
            last = rows[-1].id, rows[-1].stamp

    def _search(self) -> None:
        """Search what is to be published for secrets, if this was asked for."""
        if self.screen is None:
            return
        for row in self._unpublished():
            fields = read_record(row.line, self.context.limits, trusted=True).version.fields
            self.screen.fields({**(fields or {}), "id": row.id})
        self.result.secrets = self.screen.summary
        self.result.notes += self.screen.notes()
        if self.result.dry_run and self.screen.refuses:
            self.result.notes.append("So nothing would be published.")

    def _keys_changed(self, own: dict[str, Applied]) -> bool:
        """Whether own files are encrypted otherwise than the settings say now."""
        if any(a.file.encrypted != bool(self.state["encrypted"]) for a in own.values()):
            return True
        return bool(own and self.state["encrypted"]) and self.state["keys"] != self._keys()

    def _keys(self) -> str:
        """Names the keys of the settings."""
        if not self.state["encrypted"]:
            return ""
        return encrypted_files.names_of_keys(self.context.settings)

    def _to_rewrite(
        self, own: dict[str, Applied], live: dict[str, int], old: list[str], news: bool
    ) -> list[str]:
        """Own files whose versions go into the next file instead, by how many still count."""
        if self._keys_changed(own):
            return list(own)
        old_records = sum(own[path].records for path in old)
        many = 10 * (old_records - sum(live[path] for path in old)) >= old_records
        is_due = _is_past(int(self.state["swept"] or 0), DAY_S if many else MONTH_S)
        if old and is_due:
            return old
        if not news:
            return []
        total = sum(applied.records for applied in own.values())
        if total > 2 * sum(live.values()) + _SPARE:
            return list(own)
        small = [path for path, applied in own.items() if applied.records < PER_FILE // 5]
        return small if len(small) >= _SMALL_FILES else [path for path in own if not live[path]]

    def _owes(self, cut: Cut, *, clean: bool) -> bool:
        """Whether the others are to hear a new name or what was read, although nothing is new."""
        records = [path for path, applied in self.state.files().items() if applied.records]
        if self.state["said"] not in {"", self.state["name"]}:
            return True
        is_due = _is_past(int(self.state["written"] or 0), DAY_S)
        return (is_due or cut.own.removed != cut.removed) and cut.owes(
            records, behind=bool(self.state["behind"]), clean=clean
        )

    async def _write(
        self,
        vectors: Vectors,
        rows: Sequence[Unpublished],
        number: int,
        paths: list[str],
        swept: Mapping[str, str],
    ) -> str:
        """Publish one file; its path."""
        reports = self.state.reports()
        head = Head(
            self.replica,
            self.state["name"],
            number,
            [path.partition("/")[2] for path in paths],
            {i: report.number for i, report in reports.items() if i != self.replica},
            await vectors.store.identity(),
            dict(swept),
            self.state.removed,
            self._operations(rows),
            self.state.written_last(),
        )
        with self.folder.new_file(self.replica) as new:
            if self.state["encrypted"]:
                with encrypted_files.written(new.file, self.context.settings) as file:
                    await self._fill(file, vectors, head, rows)
            else:
                await self._fill(new.file, vectors, head, rows)
            name = new.name(number, encrypted=bool(self.state["encrypted"]))
            file_row = ReplicaFile(self.replica, number, name)
            with self.state.transaction():  # first: a file that is not known here is of a copy
                self.state.add_file(file_row, len(rows))
                self.state.note_written(file_row.path)
                self.state.assign(((row.id, row.stamp) for row in rows), file_row.path)
                self.state["number"], self.state["written"] = str(number), str(int(time.time()))
                report = report_of(file_row, head)
                self.state.note_report(self.replica, report)
                self.state["keys"], self.state["said"] = self._keys(), self.state["name"]
            published = new.publish(name)
        with self.state.transaction():
            self.state.add_file(published, len(rows))
        self.result.files_written += 1
        self.result.bytes_written += published.size
        return published.path

    def _operations(self, rows: Sequence[Unpublished]) -> dict[str, Operation]:
        """Those that made the versions which are to be published."""
        made = {operation_of(row.line) for row in rows}
        return {point: about for point, about in self.state.operations().items() if point in made}

    async def _fill(
        self, out: BinaryIO, vectors: Vectors, head: Head, rows: Sequence[Unpublished]
    ) -> None:
        file = compressed(out, "zstd")
        file.write(dump_head(head) + b"\n")
        for start in range(0, len(rows), BATCH):
            part, most = rows[start : start + BATCH], self.context.limits.line_bytes
            lines = await vectors.added(part, most, head.model)
            file.write(b"\n".join(lines) + b"\n")
        file.close()
