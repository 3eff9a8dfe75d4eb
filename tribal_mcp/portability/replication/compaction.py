"""When a version need no longer say what it replaced, and a deletion need no longer be kept.

Each replica says in its files up to which file of every other one it knew everything when none of
its own files held a version that it knew to be replaced: it has *swept* up to there. If all
replicas have swept past the file that has the only head of a memory, no file and no store holds
anything that this head replaces. Then it forgets what it replaced, and a deletion is marked as
*spent*: it stands for nothing, and yields to any other version. If all have swept past the mark,
too, it is dropped.

A replica that some of the others have not heard of, such as a new one, a copy, or one that was
removed while it was away, may hold what was deleted and dropped meanwhile. It is *behind*: what it
has read, and no file has any more, was replaced.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from tribal_mcp.portability.replication.versions import Heads, Version, digest_of_stamps

_BEGINNING = len("00000001-0123abcd")
_KEPT = 8
"""The latest ancestors are kept, by which an undo is recognised."""


def number_of(name: str) -> int:
    """The number of a file."""
    return int(name.partition("-")[0])


def beginning(name: str) -> str:
    """The beginning of the name of a file, which tells it from the others of its replica."""
    return name[:_BEGINNING]


@dataclass(frozen=True, slots=True)
class Report:
    """What the newest file of a replica says.

    Attributes:
        name: of the file; empty if it is not known.
        files: the names of the files of the replica that count, without this one.
        seen: the number of the last file of each other replica that it had read.
        swept: by replica, the file up to which it knew everything when it had swept; its own
            last one then, by its number alone.
        removed: the replicas that count no longer, each with the number of its last file that does.
        previous: the last files that its machine wrote before, by the `beginning` of each name.
    """

    name: str = ""
    files: Collection[str] = ()
    seen: Mapping[str, int] = field(default_factory=dict)
    swept: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    previous: Collection[str] = ()

    @property
    def number(self) -> int:
        """The number of the file."""
        return number_of(self.name) if self.name else 0

    @property
    def oldest(self) -> int:
        """The number of the oldest file in `previous`; all older ones count as written before."""
        return min(map(number_of, self.previous), default=self.number)

    def follows(self, name: str) -> bool:
        """Whether the machine that wrote this file has written that one before.

        A copy of it, or a backup that was restored, may have written others with the same id.
        """
        return beginning(name) in self.previous or number_of(name) < self.oldest

    def has_replaced(self, name: str) -> bool:
        """Whether a file of the replica no longer counts."""
        return name not in self.files and self.follows(name)

    def updated(self, other: "Report") -> "Report":
        """The later of two; what both say if they are of two machines that used one id."""
        if other.name == self.name or all(map(self.follows, (other.name, *other.files))):
            return self
        if not self.name or all(map(other.follows, (self.name, *self.files))):
            return other
        last = max(self.name, other.name, key=lambda name: (number_of(name), name))
        names = {*self.files, *other.files, self.name, other.name} - {last}
        both, oldest = (self, other), max(self.oldest, other.oldest)
        replaced = ({*filter(one.follows, names)}.difference(one.files) for one in both)
        return Report(
            last,
            sorted(names.difference(*replaced)),
            {i: max(one.seen.get(i, 0) for one in both) for i in {**self.seen, **other.seen}},
            previous=sorted(n for n in {*self.previous, *other.previous} if number_of(n) >= oldest),
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """What a replica knows of all files.

    Attributes:
        replica: its id.
        own: what its own newest file says.
        reports: what the others say that count, by replica.
        removed: the replicas that count no longer, as anyone says.
        applied: the paths of the files that were read whole, or written here, and count.
        read: the paths of all files that were ever read or written here.
        forked: the replicas of which two files with the same number were read: two machines
            used one id.
    """

    replica: str
    own: Report
    reports: Mapping[str, Report]
    removed: Mapping[str, int]
    applied: Collection[str]
    read: Collection[str]
    forked: Collection[str] = ()

    def is_obsolete(self, path: str) -> bool:
        """Whether a file of another replica no longer counts."""
        replica, _, name = path.partition("/")
        report = self.reports.get(replica)
        return replica in self.removed or (report is not None and report.has_replaced(name))

    def is_listed(self, path: str) -> bool:
        """Whether a file counts, according to the newest file of its replica."""
        replica, _, name = path.partition("/")
        if replica == self.replica:
            return path in self.applied
        report = self.reports.get(replica)
        return report is not None and (name == report.name or name in report.files)

    def is_complete(self, replica: str) -> bool:
        """Whether all files of another replica that count have been read."""
        report = self.reports[replica]
        names = (*report.files, report.name)
        return all(f"{replica}/{name}" in self.applied for name in names)

    @property
    def is_closed(self) -> bool:
        """Whether all has been read that any of the others had read."""
        return all(self.is_complete(replica) for replica in self.reports) and all(
            replica in (self.replica, *self.removed)
            or (replica in self.reports and number <= self.reports[replica].number)
            for report in self.reports.values()
            for replica, number in report.seen.items()
        )

    def is_behind(self, *, was: bool) -> bool:
        """Whether others may have dropped what this replica has, as they have not heard of it.

        Args:
            was: whether it was behind before.
        """
        known = all(self.replica in report.seen for report in self.reports.values())
        return not known or (was and not self.is_closed)

    def known(self, number: int) -> dict[str, str]:
        """What `swept` is once this replica has swept, in its file with that number."""
        names = {i: report.name for i, report in self.reports.items() if self.is_complete(i)}
        before = {i: name for i, name in self.own.swept.items() if i in self.reports}
        return {**before, **names, self.replica: f"{number:08}-"}

    def is_settled(self, path: str) -> bool:
        """Whether all replicas have swept past a file; ask only if the cut is closed."""
        replica, _, name = path.partition("/")
        number = number_of(name)
        swept = {i: one.swept for i, one in {**self.reports, self.replica: self.own}.items()}
        if not self.reports or replica in self.forked or not self.is_listed(path):
            return False
        return all(
            replica in one
            and number <= number_of(one[replica])
            and (other == replica or f"{replica}/{one[replica]}" in self.read)
            for other, one in swept.items()
        )

    def owes(self, records: Collection[str], *, behind: bool, clean: bool) -> bool:
        """Whether a file without versions is due, so that the others need not wait for this one.

        Args:
            records: the paths of the files of others that were read and have versions.
            behind: this replica is behind.
            clean: none of its own files has a version that was replaced.
        """
        if any(i not in self.own.seen for i in self.reports) or self.own.removed != self.removed:
            return True  # they may not have heard of it
        if behind or not clean:
            return False
        said = {i: number_of(name) for i, name in self.own.swept.items()}
        paths = (path.partition("/") for path in records)
        return any(i not in said for i in self.reports if self.is_complete(i)) or any(
            number_of(name) > said.get(replica, 0)
            for replica, _, name in paths
            if replica in self.reports and self.is_complete(replica)
        )


def remaining(heads: Heads, is_listed: Callable[[Version], bool], *, behind: bool) -> Heads:
    """The versions that are kept, once the cut is closed, by whether a file still has them.

    A replica that is behind drops what no file has. Another one drops only a deletion beside other
    versions: it was marked where it was published, and the mark has yielded to one of them.
    """
    left = tuple(h for h in heads if is_listed(h) or not (behind or h.fields is None))
    return left if left or behind else heads


def united(heads: Heads) -> Version | None:
    """The deletion that replaces all heads of a memory, if there are several and all are deletions.

    It is the same wherever it is made. Whoever has published the latest of them publishes it.
    """
    if len(heads) < 2 or any(head.fields is not None for head in heads):  # noqa: PLR2004
        return None
    stamps = (head.stamp for head in heads)
    ancestors = frozenset().union(*(head.ancestors for head in heads), stamps)
    stamp = heads[0].stamp._replace(replaced=digest_of_stamps(ancestors))
    return Version(stamp, None, ancestors, left=all(head.left for head in heads))


def compacted(version: Version) -> Version | None:
    """What becomes of the only head of a memory once its file is settled; None if nothing."""
    if version.spent:
        return None
    if version.fields is None:
        return replace(version, ancestors=frozenset(), compact=True)
    latest = sorted(version.ancestors, reverse=True)[:_KEPT]
    kept = version.ancestors & {*latest, *version.since.values()}
    return version if kept == version.ancestors else replace(version, ancestors=kept, compact=True)
