"""Versions of one memory, made on several machines, and what they are together.

A version names all versions it replaces, its *ancestors*. The *heads* of a memory are the versions
that no known version replaces. Joining two sets of heads is a union without what the other
replaces, so order, repetition and delay don't matter; and as a version is named by its content too,
two machines that use the same replica id by mistake can't hide each other's versions.

Several heads are versions that were made without knowledge of each other. `visible` merges them
field by field, and says what it could not merge.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from tribal_mcp.portability.memory import MADE_BY

Fields = Mapping[str, Any]
"""The JSON form of a memory, without its id, its vector and the model of that."""
Atom = tuple[str, str]
"""What changes on its own: a field (with ""), or one member of a set of texts."""

SETS = ("tags", "related_to")
"""Fields whose members are merged one by one."""
_SILENT = {"updated_at"}
"""Fields that differ after every edit, which is no conflict."""
_LEFT_OUT = {"id", "embedding"}
_DIGEST_BYTES = 16


class Stamp(NamedTuple):
    """Names a version, and orders those made without knowledge of each other.

    Attributes:
        wall: when it was made, in microseconds since 1970 UTC, by the clock of its replica.
        replica: its replica; empty for a memory as it was before it was first shared.
        digest: of its fields; empty if it is a deletion.
        replaced: digest of the ancestors' stamps; empty if there are none.
    """

    wall: int
    replica: str
    digest: str
    replaced: str = ""

    def __str__(self) -> str:
        return f"{self.wall}-{self.replica}-{self.digest}-{self.replaced}"

    @classmethod
    def read(cls, text: str) -> "Stamp":
        """Read what `str` writes.

        Raises:
            ValueError: it is something else.
        """
        wall, replica, digest, replaced = text.rsplit("-", 3)
        return cls(int(wall), replica, digest, replaced)


class Origin(NamedTuple):
    """The operation that made a version along with many others, such as an import.

    Attributes:
        operation: its restore point.
        was: the `short` digest of what it replaced; empty if there was nothing.
    """

    operation: str
    was: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a memory.

    Attributes:
        stamp: names it.
        fields: the memory; None if it was deleted.
        ancestors: all versions that it replaces, directly or not.
        since: the versions that made those parts of the memory which are older than this version.
        reversal: it restores an earlier version, so it yields to whatever is made meanwhile.
        compact: not all ancestors are named, as all replicas know it and have none of those.
        origin: the operation that made it, if that is known; no part of what it is.
        left: it was not deleted, but is shared no longer in this folder; no part of what it is.
    """

    stamp: Stamp
    fields: Fields | None
    ancestors: frozenset[Stamp] = frozenset()
    since: Mapping[Atom, Stamp] = field(default_factory=dict)
    reversal: bool = False
    compact: bool = False
    origin: Origin | None = field(default=None, compare=False)
    left: bool = field(default=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.stamp)

    @property
    def initial(self) -> bool:
        """Whether it is the memory as it was before it was first shared."""
        return not self.stamp.replica

    @property
    def spent(self) -> bool:
        """Whether it is a deletion that no longer has anything to delete."""
        return self.compact and self.fields is None

    def knows(self, stamp: Stamp) -> bool:
        """Whether it was made with knowledge of that version."""
        return stamp == self.stamp or stamp in self.ancestors

    def made(self, atom: Atom) -> Stamp:
        """The version that made this part of it."""
        return self.since.get(atom, self.stamp)

    def replaces(self, other: "Version") -> bool:
        """Whether the other one is superseded by this one.

        A memory as it was before it was first shared is superseded by any version with its content,
        and by what replaced one.
        """
        if other.stamp in self.ancestors:
            return True
        if other.spent:
            return not self.spent or self.stamp > other.stamp
        if self.spent or not other.initial or other.stamp == self.stamp:
            return False
        digest = other.stamp.digest
        if digest == self.stamp.digest:
            return not self.initial or self.stamp > other.stamp
        return any(stamp.digest == digest for stamp in self.ancestors)


Heads = tuple[Version, ...]
"""The heads of a memory, the latest first."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What several heads are together.

    Attributes:
        fields: the memory; None if it is deleted.
        made: the version that made each part of it on which the heads agree.
        others: the heads of which a part is not in it, with the names of those fields; "" is the
            memory as a whole.
    """

    fields: Fields | None
    made: Mapping[Atom, Stamp]
    others: Mapping[Stamp, tuple[str, ...]]


def fields_of(entry_fields: Mapping[str, Any]) -> Fields:
    """The part of a memory's JSON form that versions are about."""
    return {
        name: value
        for name, value in entry_fields.items()
        if name not in _LEFT_OUT and not (name == MADE_BY and type(value) is str)
    }


def digest_of(fields: Fields | None) -> str:
    """Names a content; empty for none."""
    if fields is None:
        return ""
    data = orjson.dumps(dict(fields), option=orjson.OPT_SORT_KEYS)
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def short(digest: str) -> str:
    """The beginning of a digest, which tells the few versions of one memory apart."""
    return digest[:8]


def digest_of_stamps(stamps: Iterable[Stamp]) -> str:
    """Names a set of versions; empty for none."""
    names = "\n".join(sorted(map(str, stamps)))
    return blake2b(names.encode(), digest_size=8).hexdigest() if names else ""


def atoms_of(fields: Fields) -> dict[Atom, Any]:
    """The parts of a memory that change on their own, with their values."""
    atoms: dict[Atom, Any] = {}
    for name, value in fields.items():
        if name in SETS:
            atoms.update(((name, member), True) for member in value)
        else:
            atoms[name, ""] = value
    return atoms


def join(*groups: Iterable[Version]) -> Heads:
    """The heads of all versions of a memory in the groups.

    A memory that one machine imported, while another had it anyway, is not of that import; nor is
    it a reversal if a copy of the machine made the same version as an edit.
    """
    known: dict[Stamp, Version] = {}
    for version in (version for group in groups for version in group):
        same = known.setdefault(version.stamp, version)
        if same is not version:
            origin = min(same.origin, version.origin, key=lambda one: one or ())
            reversal = same.reversal and version.reversal
            kept = version if version.compact else same
            left = same.left or version.left
            known[version.stamp] = replace(kept, origin=origin, reversal=reversal, left=left)
    if len(known) == 1:
        return tuple(known.values())
    heads = [v for v in known.values() if not any(o.replaces(v) for o in known.values())]
    return tuple(sorted(heads, key=lambda version: version.stamp, reverse=True))


def visible(heads: Heads) -> Visible:
    """What the heads of a memory are together.

    An edit survives a deletion made without knowledge of it, except for a deletion from before the
    memory was first shared here, which survives what is older. A reversal survives neither.
    """
    shown = _shown(heads)
    others: dict[Stamp, tuple[str, ...]] = {h.stamp: ("",) for h in heads if h not in shown}
    if not shown:
        return Visible(None, {}, {s: fields for s, fields in others.items() if s.digest})
    if len(shown) == 1:
        [head] = shown
        fields = head.fields or {}
        return Visible(fields, {atom: head.made(atom) for atom in atoms_of(fields)}, others)
    return _merged(shown, others)


def _shown(heads: Heads) -> Heads:
    """Those of the heads that are visible: all alive, or none if the memory is deleted."""
    live = tuple(head for head in heads if head.fields is not None)
    deletions = [head for head in heads if head.fields is None]
    edits = tuple(head for head in live if not head.reversal)
    before = max((d.stamp.wall for d in deletions if d.initial), default=None)
    if not deletions:
        return edits or live
    if before is not None and all(head.stamp.wall <= before for head in edits):
        return ()
    return edits


def _merged(heads: Heads, others: dict[Stamp, tuple[str, ...]]) -> Visible:
    """The heads, merged part by part: of each the latest version that no head has replaced."""
    atoms = [(head, atoms_of(head.fields or {})) for head in heads]
    chosen: dict[Atom, Any] = {}
    made: dict[Atom, Stamp] = {}
    for atom in sorted({atom for _, own in atoms for atom in own}):
        own_versions = [(head.made(atom), head, own[atom]) for head, own in atoms if atom in own]
        left = [one for one in own_versions if not _overwritten(atom, *one, atoms)]
        if not left and atom[0] in SETS:
            continue
        stamp, _, chosen[atom] = max(left or own_versions, key=lambda v: (v[0], v[1].stamp))
        losers = [head for _, head, value in left if value != chosen[atom]]
        if not losers:
            made[atom] = stamp
        elif atom[0] not in _SILENT:
            for head in losers:
                others[head.stamp] = (*others.get(head.stamp, ()), atom[0])
    fields = {name: value for (name, _), value in chosen.items() if name not in SETS}
    for name in SETS:
        members = [member for set_name, member in chosen if set_name == name]
        first = [m for m in (heads[0].fields or {}).get(name, []) if m in members]
        fields[name] = [*dict.fromkeys(first), *(m for m in members if m not in first)]
    return Visible(fields, made, others)


def _overwritten(
    atom: Atom,
    stamp: Stamp,
    head: Version,
    value: object,
    atoms: Collection[tuple[Version, Mapping[Atom, Any]]],
) -> bool:
    """Whether another head knew this part of a head, and changed or removed it."""
    return any(
        other is not head and other.knows(stamp) and (atom not in own or own[atom] != value)
        for other, own in atoms
    )
