"""An index of the words, tags and dates of a store, so that a search need not read every memory.

It consists of segments (`search/segments.py`), files in this program's own directory, and is a
cache: who searches brings it up to date, and writers know nothing of it. Chroma numbers each change
in its log, so what changed since is in the log after the last number that the index has. If the log
no longer reaches back so far, all rows are compared; if the index is of another history, because an
older copy of the folder was restored, it is made again. The newest memories, up to a few hundred,
are in memory only. (Over 300 lines: reading, updating and saving share one state.)
"""

import hashlib
import json
import mmap
import secrets
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.search.bm25 import DIGITS, Bm25
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.search.keywords import Keyword
from tribal_mcp.search.segments import UNDATED, Bools, Floats, Ints, Segment, Text
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma.files.nearest import Which
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import Row
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.search import UNKNOWN, Tally, latest_first, month_of, most_first

_SEGMENT = 50_000
"""Texts of one segment."""
_SAVED = 512
"""Texts of the smallest segment that is written to the disk."""
_FEW = 5_000
"""Texts that may be added to the index on the way to something else than a search."""
_NEWEST = 200
"""Rows that tell whether the store still has the history of the index."""
_AT_ONCE = 500
_VERSION = 2
_STATE = "state.json"
_TAG, _SOURCE = "t", "s"


@dataclass(slots=True)
class _Part:
    """A segment.

    Attributes:
        segment: it.
        alive: which of its texts are still in the store.
        name: of its file; empty if it has none.
        data: what would be in the file, if it has none.
    """

    segment: Segment
    alive: Bools
    name: str = ""
    data: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.segment.rows)

    def selected(self, which: Which) -> Bools:
        """Which of its texts are in the store and match a filter."""
        found, created = self.alive, self.segment.created
        if which.tags:
            found = found & self.segment.having(_TAG + tag for tag in which.tags)
        if which.from_us is not None or which.to_us is not None:
            found = found & (created != UNDATED)
        if which.from_us is not None:
            found = found & (created >= which.from_us)
        if which.to_us is not None:
            found = found & (created <= which.to_us)
        return found


@dataclass(slots=True)
class _Matches:
    """The texts of a part that match a filter, and how often they have each keyword."""

    part: _Part
    selected: Bools
    counts: Floats

    @classmethod
    def of(cls, part: _Part, keywords: Sequence[Keyword], which: Which) -> "_Matches":
        counts = np.empty((len(keywords), part.size))
        for place, keyword in enumerate(keywords):
            counts[place] = part.segment.count(keyword)
        return cls(part, part.selected(which), counts)

    def has(self, place: int) -> bool:
        """Whether a text has the keyword at that place."""
        return bool((self.selected & (self.counts[place] > 0)).any())

    def matching(self) -> tuple[Ints, Ints, Ints, Floats]:
        """Kind, row and length of each text that has a keyword; its counts, by keyword."""
        segment = self.part.segment
        at = np.flatnonzero(self.selected & (self.counts > 0).any(axis=0))
        return segment.kinds[at], segment.rows[at], segment.lengths[at], self.counts[:, at]


@dataclass(slots=True)
class WordIndex:
    """The word index of one store; its methods require the folder's lock.

    Attributes:
        place: the directory for its files; None to keep it in memory.
    """

    place: Path | None
    _parts: list[_Part] = field(default_factory=list)
    _segments: list[str] = field(default_factory=list)
    _applied: list[int] = field(default_factory=list)
    _version: int = -1
    _rest: list[tuple[int, Row]] = field(default_factory=list)
    _complete: bool = True
    _loaded: bool = False
    _counted: bool = False
    _announced: bool = False
    _saved: tuple[int, int] | None = None

    @property
    def waits(self) -> bool:
        """Whether `update` has done one step of several."""
        return bool(self._rest)

    def update(
        self,
        files: ChromaFiles,
        kinds: Sequence[RawCollection],
        *,
        make: bool,
        in_steps: bool = False,
    ) -> bool:
        """Bring the index up to date.

        Args:
            files: the folder's files.
            kinds: the collection of each kind of text.
            make: whether to do so if it takes long.
            in_steps: whether to do only one step if it takes long.

        Returns:
            Whether it is up to date.
        """
        try:
            return self._update(files, kinds, make=make, in_steps=in_steps)
        except BaseException:  # it may be half done
            self._start_over()
            raise

    def _update(
        self, files: ChromaFiles, kinds: Sequence[RawCollection], *, make: bool, in_steps: bool
    ) -> bool:
        version, segments = files.version(), [files.segment(c) for c in kinds]
        if self._version != version or self._segments != segments:
            self._rest = []  # others have written since the last step
        elif not self._rest:
            return True
        applied = [files.applied(segment) or 0 for segment in segments]
        if any(files.unapplied(c) for c in kinds) or any(map(files.is_beyond_log, applied)):
            return False
        if not self._loaded or self._saved != self._on_disk():  # another process has saved more
            self._start_over()
            self._load(files)
        then = self._applied
        if self._segments != segments[: len(then)] or any(map(int.__lt__, applied, then)):
            self.forget()
        if not make and not (self._parts and self._complete):
            return False
        self._version = version
        if not self._bring_up(files, kinds, applied, make=make, in_steps=in_steps):
            return False
        counts = tuple(files.count(c) for c in kinds) if not self._counted else ()
        if counts and counts != self.counts()[: len(kinds)]:  # another history, or damage
            self._applied = [-1] * len(kinds)
            if not self._bring_up(files, kinds, applied, make=make, in_steps=in_steps):
                return False
        self._counted = True
        return True

    def _bring_up(
        self,
        files: ChromaFiles,
        kinds: Sequence[RawCollection],
        applied: list[int],
        *,
        make: bool,
        in_steps: bool,
    ) -> bool:
        """Mark what was deleted and add what is new; whether that was done.

        If much is new, the index is saved after each segment, as one that lacks the rest.
        """
        new, whole = self._rest, True
        if not new:
            new, whole = self._difference(files, kinds, applied)
            if len(new) > _FEW and not make:
                self._start_over()
                return False
            if in_steps and len(new) > _FEW and not self._announced:
                self._announced = True  # the first step takes no time; each later one adds some
                self._put_off(files, kinds, new)
                return False
        while len(new) > _SEGMENT:
            self._add(files, new[:_SEGMENT])
            new = new[_SEGMENT:]
            self._put_off(files, kinds, new)
            self._save(files)
            if in_steps:
                return False
        self._add(files, new)
        self._rest, self._complete, self._applied, self._announced = [], True, applied, False
        self._segments = [files.segment(c) for c in kinds]
        if whole or len(new) >= _SAVED:
            self._save(files)
        return True

    def _put_off(
        self, files: ChromaFiles, kinds: Sequence[RawCollection], rest: list[tuple[int, Row]]
    ) -> None:
        """Leave those rows to a later step, of this process or another."""
        self._rest, self._complete, self._applied = rest, False, [-1] * len(kinds)
        self._segments = [files.segment(c) for c in kinds]

    def _difference(
        self, files: ChromaFiles, kinds: Sequence[RawCollection], applied: list[int]
    ) -> tuple[list[tuple[int, Row]], bool]:
        """The rows to add, and whether all rows had to be compared. Marks what was deleted."""
        new, whole = list[tuple[int, Row]](), False
        then = [*self._applied, *[-1] * len(kinds)]
        for kind, collection in enumerate(kinds):
            if then[kind] < applied[kind]:
                rows, was_whole = self._changes(files, kind, collection, then[kind])
                new += [(kind, row) for row in rows]
                whole = whole or was_whole
        return new, whole

    def rank(
        self, files: ChromaFiles, keywords: Sequence[Keyword], which: Which, most: int
    ) -> list[Ranked]:
        """The texts that match best, best first; see `KeywordSearch.best`."""
        found = [_Matches.of(part, keywords, which) for part in self._parts]
        for place, keyword in enumerate(keywords):
            if not any(one.has(place) for one in found):
                for one in found:
                    one.counts[place] = one.part.segment.count_misspelled(keyword)
        if not found:
            return []
        kinds, rows, lengths, counts = (
            np.concatenate(column, axis=-1)
            for column in zip(*(one.matching() for one in found), strict=True)
        )
        counts = counts.round(DIGITS)
        texts = sum(int(one.selected.sum()) for one in found)
        characters = sum(int(one.part.segment.lengths[one.selected].sum()) for one in found)
        bm25 = Bm25(keywords, (counts > 0).sum(axis=1).tolist(), texts, characters)
        scores = bm25.score(list(counts), lengths)
        if not rows.size or not keywords or not scores.max() > 0:
            return []
        least = np.partition(scores, -most)[-most] if most < scores.size else 0
        best = np.flatnonzero((scores > 0) & (scores >= least))  # more if some are equal
        best = best[np.lexsort((rows[best], kinds[best], -scores[best]))][:most]
        scale = bm25.scale(counts[:, best[0]].tolist(), float(scores[best[0]]))
        ids = files.ids_of(rows[best].tolist())
        return [Ranked(i, fit) for i, fit in zip(ids, (scores[best] * scale).tolist(), strict=True)]

    def sample(self, files: ChromaFiles, which: Which, count: int) -> list[str]:
        """`count` or more of the ids that match a filter, at equal distances, if there are."""
        kinds, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part in self._parts:
            selected = part.selected(which)
            kinds.append(part.segment.kinds[selected])
            rows.append(part.segment.rows[selected])
        found = np.concatenate(rows)
        order = np.lexsort((found, np.concatenate(kinds)))
        return files.ids_of(found[order[:: max(1, len(order) // count)]].tolist())

    def tally(self) -> Tally:
        """Counts of all texts."""
        labels, months, total = Counter[str](), Counter[str](), 0
        for part in self._parts:
            total += int(part.alive.sum())
            labels.update(part.segment.count_labels(part.alive))
            created = part.segment.created[part.alive]
            created = created[(created != UNDATED) & (created != 0)]
            days, counts = np.unique(created // (86_400 * 10**6), return_counts=True)
            for day, count in zip(days.tolist(), counts.tolist(), strict=True):
                months[month_of(day * 86_400 * 10**6)] += count
        tags = Counter({n[1:]: c for n, c in labels.items() if n[0] == _TAG})
        sources = Counter({n[1:]: c for n, c in labels.items() if n[0] == _SOURCE})
        sources[UNKNOWN] += total - sources.total()
        months[UNKNOWN] += total - months.total()
        return Tally(most_first(+tags), most_first(+sources), latest_first(+months))

    def counts(self) -> tuple[int, int]:
        """How many texts there are of the first and of the second kind."""
        main, pending = 0, 0
        for part in self._parts:
            found = np.bincount(part.segment.kinds[part.alive], minlength=2).tolist()
            main, pending = main + found[0], pending + found[1]
        return main, pending

    def forget(self) -> None:
        """Start over: the next search makes the index again."""
        self._parts, self._segments, self._applied, self._version = [], [], [], -1
        self._rest, self._complete = [], True

    def _start_over(self) -> None:
        """Forget what may be half done; what is on the disk is read again."""
        self.forget()
        self._loaded = self._counted = False

    def remove(self, files: ChromaFiles) -> None:
        """Start over, here and in other processes: the index was found to be wrong."""
        if files.version() != self._version:
            return  # another program has just written
        self.forget()
        if self.place is not None:
            with suppress(OSError):
                (self.place / _STATE).unlink()

    def _changes(
        self, files: ChromaFiles, kind: int, collection: RawCollection, since: int
    ) -> tuple[list[Row], bool]:
        """The rows to add, and whether all rows had to be compared. Marks what was deleted."""
        changed = files.changed_since(collection, since) if since >= 0 else None
        rows = files.numbered(collection, changed)
        here = {(row.row, row.written, _hash(row.id)): row for row in rows}
        wanted = None if changed is None else np.array([_hash(i) for i in changed], np.int64)
        for part in self._parts:
            segment = part.segment
            suspect = part.alive & (segment.kinds == kind)
            if wanted is not None:
                suspect &= np.isin(segment.hashes, wanted)
            at = np.flatnonzero(suspect)
            columns = (segment.rows[at], segment.written[at], segment.hashes[at])
            known = zip(at.tolist(), *(column.tolist() for column in columns), strict=True)
            deleted = [place for place, *one in known if here.pop(tuple(one), None) is None]
            part.alive[deleted] = False
        return list(here.values()), changed is None

    def _add(self, files: ChromaFiles, new: list[tuple[int, Row]]) -> None:
        """Add those rows, together with smaller segments, so that there are always few."""
        while new and self._parts and self._parts[-1].size < min(2 * len(new), _SEGMENT // 2):
            last = self._parts.pop()
            segment, alive = last.segment, last.alive
            kinds = dict(
                zip(segment.rows[alive].tolist(), segment.kinds[alive].tolist(), strict=True)
            )
            new = [*((kinds[row.row], row) for row in files.numbered_rows(list(kinds))), *new]
        for rows in in_parts(new, _SEGMENT):
            segment, data = Segment.build(list(_texts(files, rows)))
            part = _Part(segment, np.ones(len(segment.rows), np.bool_), data=data)
            self._parts.append(part)
            if part.size >= _SAVED:
                self._write(part)

    def _write(self, part: _Part) -> None:
        """Write a segment to the disk; if that fails, it stays in memory."""
        if self.place is None:
            return
        name = f"{secrets.token_hex(8)}.words"
        with suppress(OSError):
            make_private(self.place)
            write_atomically(self.place / name, part.data)
            part.name, part.data = name, []

    def _save(self, files: ChromaFiles) -> None:
        """Write everything to the disk; if that fails, the next process makes the index again."""
        if self.place is None:
            return
        for part in self._parts:
            if not part.name:
                self._write(part)
        if not all(part.name for part in self._parts):
            return
        state = {
            "version": _VERSION,
            "collections": self._segments,
            "applied": self._applied,
            "entries": [files.log_entry(number) for number in self._applied],
            "newest": self._newest(files),
            "segments": [[p.name, np.flatnonzero(~p.alive).tolist()] for p in self._parts],
        }
        with suppress(OSError):
            make_private(self.place)
            checked = {"crc32": _crc32(state), "state": state}
            write_atomically(self.place / _STATE, json.dumps(checked).encode())
            for path in self.place.glob("*.words"):
                if path.name not in {part.name for part in self._parts}:
                    path.unlink()
        self._saved = self._on_disk()

    def _on_disk(self) -> tuple[int, int] | None:
        """What tells whether another process has saved the index; None if there is none."""
        if self.place is None:
            return None
        try:
            found = (self.place / _STATE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _load(self, files: ChromaFiles) -> None:
        """Read the index from the disk, if it is there, whole, and of the history of the rows."""
        self._loaded, self._saved = True, self._on_disk()
        if self.place is None:
            return
        try:
            checked = json.loads((self.place / _STATE).read_bytes())
            state = checked["state"]
            if state["version"] != _VERSION or checked["crc32"] != _crc32(state):
                return
            for name, dead in state["segments"]:
                with (self.place / name).open("rb") as file:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                segment = Segment.read(memoryview(data))
                alive = np.ones(len(segment.rows), np.bool_)
                alive[dead] = False
                self._parts.append(_Part(segment, alive, name))
            self._segments, self._applied = state["collections"], state["applied"]
            self._complete = -1 not in self._applied
            if not self._has_history(files, state["entries"], state["newest"]):
                self.forget()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self.forget()

    def _newest(self, files: ChromaFiles) -> list[list[int | str]]:
        """Row, log entry and digest of the texts that were written last."""
        rows, written = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part in self._parts:
            rows.append(part.segment.rows[part.alive])
            written.append(part.segment.written[part.alive])
        last = np.argsort(-np.concatenate(written), kind="stable")[:_NEWEST]
        found = np.concatenate(rows)[last].tolist()
        entries = dict(zip(found, np.concatenate(written)[last].tolist(), strict=True))
        return [[row, entries[row], digest] for row, digest in files.digests(found).items()]

    def _has_history(
        self, files: ChromaFiles, entries: list[str | None], newest: list[tuple[int, int, str]]
    ) -> bool:
        """Whether the rows are those of the index, with later changes at most.

        If the log has the last entry of the index, that one tells. If not, all rows have to be
        compared, by row, log entry and id; the newest rows tell whether these mean the same. A row
        that was written again has a later entry.
        """
        here = [files.log_entry(number) for number in self._applied]
        if here == entries and None not in here:
            return True
        if any(now and then and now != then for now, then in zip(here, entries, strict=True)):
            return False
        self._applied = [
            number if now and now == then else -1
            for number, now, then in zip(self._applied, here, entries, strict=True)
        ]
        written = {row.row: row.written for row in files.numbered_rows([r for r, _, _ in newest])}
        digests = files.digests([row for row, entry, _ in newest if written.get(row) == entry])
        return bool(digests) and all(
            row not in written or written[row] > entry or digests.get(row) == digest
            for row, entry, digest in newest
        )


def _crc32(state: object) -> int:
    return zlib.crc32(json.dumps(state).encode())


def _texts(files: ChromaFiles, rows: Sequence[tuple[int, Row]]) -> Iterator[Text]:
    for part in in_parts(rows, _AT_ONCE):
        found = files.searchable([row.row for _, row in part])
        for kind, row in part:
            one = found[row.row]
            labels = [_TAG + tag for tag in one.tags]
            labels += [] if one.source is None else [_SOURCE + one.source]
            created = UNDATED if one.created_us is None else one.created_us
            yield Text(row.row, kind, row.written, _hash(row.id), created, labels, one.content)


def _hash(memory_id: str) -> int:
    digest = hashlib.blake2b(memory_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
