"""What a sync does with one memory: a pure function, which tests run over random histories."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tribal_mcp.portability.memory import EPOCH, microseconds, read_date
from tribal_mcp.portability.replication.versions import (
    Fields,
    Heads,
    Origin,
    Stamp,
    Version,
    Visible,
    atoms_of,
    digest_of,
    digest_of_stamps,
    join,
    visible,
)

_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Clock:
    """A hybrid logical clock: the time of this machine, which rises with each version.

    It only orders versions that were made without knowledge of each other. A time that is more than
    a day ahead of this machine's is not taken over, so one wrong clock does not spread.

    Attributes:
        replica: the id of this replica.
        wall: the latest time known, in microseconds since 1970 UTC.
    """

    replica: str
    wall: int = 0

    def see(self, stamp: Stamp, now_us: int) -> None:
        """Take note of another replica's version."""
        if self.wall < stamp.wall <= now_us + _DAY_US:
            self.wall = stamp.wall

    def next(self, now_us: int) -> int:
        """The time of a new version, in microseconds since 1970 UTC."""
        late = self.wall > now_us + _DAY_US  # this machine's own clock was wrong
        self.wall = now_us if late else max(now_us, self.wall + 1)
        return self.wall


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes new versions: a replica, and the time of each."""

    replica: str
    time: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Known:
    """What a replica knows of a memory.

    Attributes:
        heads: its versions; empty if it was never synced.
        shown: the digest of what the store held after the last sync, made of those versions.
        unsure: the store may have held something else since, or has kept its own: a change
            replaces none of them but its own deletion.
    """

    heads: Heads = ()
    shown: str = ""
    unsure: bool = False

    def after_crash(self, intended: "Known", here: Fields | None) -> "Known":
        """The same, if a sync was killed that intended this and may have changed the store."""
        digest = digest_of(here)
        if digest == intended.shown:
            return intended
        return self if digest == self.shown else replace(self, unsure=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a memory.

    Attributes:
        heads: its versions from now on.
        new: the version that was made here since the last sync, if there is one.
        visible: what the store is to hold.
    """

    heads: Heads
    new: Version | None
    visible: Visible

    @property
    def intended(self) -> Known:
        """What the replica knows once the store holds what is visible."""
        fields = self.visible.fields
        of_head = (head.stamp.digest for head in self.heads if head.fields is fields)
        return Known(self.heads, next(of_head, None) or digest_of(fields))


def reconcile(
    known: Known,
    here: Fields | None,
    incoming: Heads,
    maker: Maker,
    *,
    deleted_at_us: int | None = None,
    origin: Origin | None = None,
    left: bool = False,
) -> Outcome:
    """Bring together what a replica knew, what its store holds, and what others made.

    Before a caller changes the store, it saves `new` as known, and what it intends; afterwards it
    saves that this is known.

    Args:
        known: as of the last sync.
        here: what the store holds now.
        incoming: versions of other replicas.
        maker: makes a new version.
        deleted_at_us: when the store deleted it, if `here` is None and this is known.
        origin: the operation that made what the store holds, if that is known.
        left: the store holds it, but it is shared no longer.
    """
    heads = join(known.heads, incoming) if incoming else known.heads
    digest = digest_of(here)
    new: Version | None = None
    if not known.heads:
        new = _initial(here, digest, deleted_at_us)
    elif digest != known.shown and digest != digest_of(visible(heads).fields):
        new = edited(known, here, maker)
    if new is not None:
        new = replace(new, origin=origin, left=left) if origin or left else new
        heads = join(heads, [new])
        if not any(head.stamp == new.stamp for head in heads):
            new = None
    return Outcome(heads, new, visible(heads))


def edited(known: Known, here: Fields | None, maker: Maker) -> Version:
    """The version that replaces all known ones with this content."""
    digest = digest_of(here)
    seen = [
        head
        for head in known.heads
        if not known.unsure or (head.fields is None and head.stamp.replica == maker.replica)
    ]
    stamps = (head.stamp for head in seen)
    ancestors = frozenset().union(*(head.ancestors for head in seen), stamps)
    before = visible(known.heads)
    old = atoms_of(before.fields or {})
    since = {
        atom: before.made[atom]
        for atom, value in atoms_of(here or {}).items()
        if atom in before.made and old[atom] == value
    }
    reversal = here is not None and any(ancestor.digest == digest for ancestor in ancestors)
    stamp = Stamp(maker.time(), maker.replica, digest, digest_of_stamps(ancestors))
    return Version(stamp, here, ancestors, since, reversal)


def left_of(operation: str, heads: Heads) -> Origin | None:
    """The origin of the only version of a memory, if that operation made it."""
    origin = heads[0].origin if len(heads) == 1 else None
    return origin if origin and origin.operation == operation else None


def withdrawn(known: Known, was: Fields | None, maker: Maker, origin: Origin | None) -> Outcome:
    """Put what was there before in the place of the only version of a memory.

    As with a reversal, what others do meanwhile wins.

    Args:
        known: as of the last sync.
        was: what was there; None if there was nothing.
        maker: makes the new version.
        origin: the withdrawal.
    """
    new = edited(known, was, maker)
    new = replace(new, reversal=was is not None, origin=origin)
    return Outcome((new,), new, visible((new,)))


def _initial(here: Fields | None, digest: str, deleted_at_us: int | None) -> Version | None:
    """The first version of a memory: the same on every machine that holds the same content."""
    if here is not None:
        return Version(Stamp(_updated_at(here), "", digest), here)
    if deleted_at_us is not None:
        return Version(Stamp(deleted_at_us, "", ""), None)
    return None


def _updated_at(fields: Fields) -> int:
    try:
        return microseconds(read_date(fields["updated_at"]))
    except ValueError:
        return microseconds(EPOCH)
