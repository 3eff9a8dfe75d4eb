"""Changes that came in through another shared folder of the same store.

To this folder they are no edits: they keep the versions that they have in the other one. As an
edit, a change would replace what this folder has heard of it meanwhile, and two machines that use
both folders could go on for ever, each undoing in one folder what the other did in the other.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from tribal_mcp.files.replica_folders import Listing
from tribal_mcp.portability.replication.reconcile import Known
from tribal_mcp.portability.replication.versions import (
    Fields,
    Heads,
    Stamp,
    digest_of,
    join,
    visible,
)
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.services.sync.opening import explained
from tribal_mcp.services.sync.state import Row, SyncState

OtherRow = tuple[str, Row]
"""What is known in another folder of a memory, and the id that this machine has there."""


@contextmanager
def other_states(state: SyncState) -> Iterator[tuple[list[SyncState], list[SyncState]]]:
    """What the same collection knows of other shared folders; what other collections know."""
    with ExitStack() as stack:
        same, others = list[SyncState](), list[SyncState]()
        for path in sorted(state.path.parent.glob("*.db")):
            if path != state.path:
                with explained(path):
                    other = stack.enter_context(closing(SyncState(path, dry_run=True)))
                is_same = other["collection"] == state["collection"]
                (same if is_same else others).append(other)
        known = state.operations()
        operations = {i: one for other in same for i, one in other.operations().items()}
        if not operations.keys() <= known.keys():
            with state.transaction():
                state.note_operations(operations)
        yield same, others


def note_other_collections(
    result: SyncResult, listing: Listing, others: Collection[SyncState]
) -> None:
    """Say at the first sync of a collection which others of the data folder use the same folder."""
    replicas = {file.replica for file in listing.files.values()}
    for other in others if result.first_contact else ():
        if other["replica"] in replicas:
            result.notes.append(
                f"The collection {other['collection']!r:.80} of this data folder is synced with "
                f"this folder, too, as the machine {other['replica']}. So both collections will "
                "hold the same memories. To keep them apart, use a folder for each."
            )


def kept_here(row: Row, here: Fields | None, incoming: Heads, others: Sequence[OtherRow]) -> Row:
    """What is known of a memory, if what the store holds stayed in spite of deletions that come in.

    Such a deletion only says that the memory is no longer shared here, and another folder shows it;
    or another folder knows the deletion, and the store has got the memory again since.
    """
    hidden = (named for _, other in others if not other.known.shown for named in other.lines)
    times = {named.wall for named in hidden if not named.digest}  # its name may be another one
    is_shown = any(other.known.shown for _, other in others)
    deletions = [
        one
        for one in incoming
        if one.fields is None and (one.stamp.wall in times or (one.left and is_shown))
    ]
    heads = join(row.known.heads, deletions)
    if here is None or not deletions or visible(heads).fields is not None:
        return row
    return replace(row, known=Known(heads))


def with_other_folders(
    row: Row, here: Fields | None, others: Sequence[OtherRow], tags: Collection[str]
) -> tuple[Row, int | None]:
    """What is known of a memory, if the store holds what another folder has left.

    If the versions of that one can be used here, they are known here from then on. Otherwise the
    change becomes a version of this folder, made at the same time, unless this folder has replaced
    that content already; and it replaces nothing here that the other folder does not know.

    Args:
        row: what is known in this folder.
        here: what the store holds, as far as it is shared in this folder.
        others: what is known in other folders.
        tags: only memories with one of these are shared in this folder; all if there are none.

    Returns:
        What is known, and the time of a new version, in microseconds since 1970; None: now.
    """
    digest = digest_of(here)
    if digest == row.known.shown:
        return row, None
    for replica, other in others:
        known = other.known.after_crash(other.intended, here) if other.intended else other.known
        if not _is_of(known, digest) or (not digest and only_left(known.heads)):
            continue
        lines = {head.stamp: other.lines[head.stamp] for head in known.heads}
        heads = join(row.known.heads, known.heads)
        if digest and all(head.left for head in heads):  # it is shared again
            return row, None
        came_in = any(file and not file.startswith(f"{replica}/") for _, file in lines.values())
        left = {head for head in heads if head.stamp not in lines}
        # Versions that both folders know may still mean something else in each.
        is_same = digest == digest_of(visible(heads).fields) or not _knows(known, row.known)
        if (came_in or not left) and is_same and _can_move(row.known.heads, known.heads, tags):
            moved = {named: (line, "") for named, (line, _) in lines.items()}
            return replace(row, known=Known(heads, digest), lines={**moved, **row.lines}), None
        if not came_in:  # an edit of what this folder knew
            return row, None
        return replace(row, known=_weighed(row.known, known)), _made_at(known)[0]
    return row, None


def _made_at(known: Known) -> tuple[int, str]:
    """When what is visible of a memory was made, with its digest; the same in each folder."""
    digest = digest_of(visible(known.heads).fields)
    same = [head.stamp.wall for head in known.heads if head.stamp.digest == digest]
    live = [head.stamp.wall for head in known.heads if head.fields is not None]
    return max(same or live), digest


def _weighed(known: Known, other: Known) -> Known:
    """What is known in this folder, so that an edit replaces what it may."""
    if not known.heads:
        return known
    is_compact = any(head.compact for head in other.heads)
    knows = _knows(known, other)
    if (is_compact or _knows(other, known)) and not (knows and _made_at(known) > _made_at(other)):
        return known
    if not knows or (other.shown and any(head.left for head in known.heads)):
        return replace(known, unsure=True)
    return replace(known, shown=other.shown)


def _knows(known: Known, other: Known) -> bool:
    """Whether a folder has or had the contents that another one has."""
    return _contents(known.heads) >= {head.stamp.digest for head in other.heads}


def _contents(heads: Heads) -> set[str]:
    """Names the contents that a memory has or had, as far as the versions say."""
    return {stamp.digest for stamp in (*(head.stamp for head in heads), *_ancestors(heads))}


def only_left(heads: Heads) -> bool:
    """Whether a memory was not deleted, but is shared no longer in a folder."""
    deletions = [head for head in heads if head.fields is None]
    return bool(deletions) and all(head.left for head in deletions)


def _is_of(known: Known, digest: str) -> bool:
    """Whether a folder has left what the store holds."""
    if not known.heads or known.unsure or known.shown != digest:
        return False
    return bool(digest) or visible(known.heads).fields is None


def _can_move(known: Heads, heads: Heads, tags: Collection[str]) -> bool:
    """Whether the versions of another folder can be used in this one.

    They can't if they would reveal something of private memories, such as digests of earlier
    versions; if they are of a deletion that yields to all others; or if they don't name a version
    of this folder that the other one has replaced under another name, or before it was compacted.
    """
    if any(head.spent for head in heads):
        return False
    named = {*(head.stamp for head in known), *_ancestors(known)}
    shared = all(_is_shared(head.fields, tags) and not head.origin for head in heads)
    if tags and not (shared and _ancestors(heads) <= named):
        return False
    replaced = {stamp.digest for stamp in _ancestors(heads)} - {""}
    left = [head.stamp for head in join(known, heads) if head not in heads]
    is_compact = any(head.compact for head in heads)
    return not left or not (is_compact or any(stamp.digest in replaced for stamp in left))


def _ancestors(heads: Heads) -> set[Stamp]:
    return {stamp for head in heads for stamp in head.ancestors}


def _is_shared(fields: Fields | None, tags: Collection[str]) -> bool:
    return fields is None or any(tag in tags for tag in fields["tags"])
