"""Versions of a memory that were made on several machines."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from tribal_mcp.portability.replication.reconcile import Clock, Known, Maker, Outcome, reconcile
from tribal_mcp.portability.replication.versions import (
    Stamp,
    Version,
    digest_of,
    join,
    visible,
)

DAY_US = 86_400_000_000
LATER_US = 3_000_000_000_000_000


def fields(content: str = "text", *tags: str, **more: str | None) -> dict[str, Any]:
    return {
        "content": content,
        "tags": list(tags),
        "related_to": [],
        "context": None,
        "updated_at": "2026-01-01T00:00:00+00:00",
        **more,
    }


def change(known: Known, here: dict[str, Any] | None, replica: str, at: int) -> Outcome:
    return reconcile(known, here, (), Maker(replica, lambda: at))


START = change(Known(), fields("text", "old"), "", 0).intended


def made(here: dict[str, Any] | None, replica: str, at: int, known: Known = START) -> Version:
    [version] = change(known, here, replica, at).heads
    return version


def merged(*versions: Version) -> tuple[Any, list[tuple[str, ...]]]:
    """What is visible, the same in every order, and which fields of other versions are not."""
    found = []
    for order in permutations(versions):
        heads = join(START.heads)
        for version in order:
            heads = join(heads, [version], heads)
        found.append(visible(heads))
    assert all(one == found[0] for one in found)
    return found[0].fields, sorted(found[0].others.values())


def test_a_later_version_replaces_what_it_knew() -> None:
    first = change(START, fields("first"), "a", 5).intended
    last = change(first, fields("last"), "b", 1)  # its clock is behind
    assert join(last.heads, first.heads, START.heads) == last.heads


def test_a_memory_from_before_it_was_shared_is_replaced_by_what_has_or_had_its_content() -> None:
    before = change(Known(), fields("else"), "", 0).intended
    same = change(before, fields("text", "old"), "a", 5).intended
    after = change(same, fields("other"), "a", 6).intended
    assert join(START.heads, same.heads) == same.heads
    assert join(START.heads, after.heads) == after.heads


def test_a_change_of_what_a_killed_sync_may_have_shown_overwrites_no_part_of_other_versions() -> (
    None
):
    tagged = change(START, fields("text", "old", "new"), "a", 5).intended
    later = change(replace(tagged, unsure=True), fields("other"), "a", LATER_US)
    shown, others = merged(*later.heads)
    assert (shown["content"], others) == ("other", [("content",)])


def test_changes_of_different_fields_are_both_kept() -> None:
    shown, others = merged(
        made(fields("new text", "old"), "a", 1),
        made(fields("text", "old", context="work"), "b", 2),
    )
    assert (shown["content"], shown["context"], others) == ("new text", "work", [])
    assert shown["tags"] == ["old"]


def test_tags_are_merged_one_by_one() -> None:
    shown, others = merged(
        made(fields("text", "old", "a"), "a", 1),
        made(fields("text", "old", "b"), "b", 2),
        made(fields("text"), "c", 3),
    )
    assert (sorted(shown["tags"]), others) == (["a", "b"], [])
    first, last = made(fields("text", "old", "z"), "a", 1), made(fields("text", "y", "old"), "b", 2)
    assert merged(first, last)[0]["tags"] == ["y", "old", "z"]


def test_of_two_texts_the_later_is_visible_and_the_other_a_conflict() -> None:
    shown, others = merged(made(fields("one", "old"), "a", 2), made(fields("two", "old"), "b", 1))
    assert (shown["content"], others) == ("one", [("content",)])


def test_an_edit_ends_a_conflict() -> None:
    heads = join([made(fields("one"), "a", 1)], [made(fields("two"), "b", 2)])
    known = Known(heads, digest_of(visible(heads).fields))
    outcome = change(known, fields("two and one"), "c", 0)
    assert join(outcome.heads, heads) == outcome.heads
    assert not outcome.visible.others


def test_the_same_text_from_two_machines_is_no_conflict() -> None:
    shown, others = merged(made(fields("same"), "a", 1), made(fields("same"), "b", 2))
    assert (shown["content"], others) == ("same", [])


def test_an_edit_survives_a_deletion_made_elsewhere_and_both_are_listed() -> None:
    shown, others = merged(made(None, "a", 2), made(fields("edited"), "b", 1))
    assert (shown["content"], others) == ("edited", [("",)])


def test_an_undo_does_not_revive_what_was_deleted_elsewhere() -> None:
    edited = change(START, fields("edited", "old"), "a", 1).intended
    undone = made(fields("text", "old"), "a", 9, edited)
    assert undone.reversal
    assert merged(undone, made(None, "b", 2, edited)) == (None, [("",)])


def test_an_undone_deletion_does_not_undo_the_deletion_of_others() -> None:
    deleted = change(START, None, "a", 1).intended
    undone = made(fields("text", "old"), "a", 9, deleted)
    assert merged(undone, made(None, "b", 2)) == (None, [("",)])
    assert merged(undone)[0] == fields("text", "old")


def test_an_undo_yields_to_an_edit_made_elsewhere() -> None:
    edited = change(START, fields("edited", "old"), "a", 1).intended
    undone = made(fields("text", "old"), "a", 9, edited)
    shown, _ = merged(undone, made(fields("edited twice", "old"), "b", 2, edited))
    assert shown["content"] == "edited twice"


def test_two_stores_that_hold_the_same_memory_have_the_same_first_version() -> None:
    assert change(Known(), fields(), "a", 1).heads == change(Known(), fields(), "b", 2).heads


def test_an_old_copy_of_a_memory_does_not_come_back() -> None:
    edited = change(START, fields("edited"), "a", 1).intended
    deleted = change(edited, None, "a", 2).heads
    for old in (fields("text", "old"), fields("edited")):
        assert reconcile(Known(), old, deleted, Maker("new", lambda: 9)).visible.fields is None


@pytest.mark.parametrize(("deleted_at_us", "survives"), [(5, True), (2_000_000_000_000_000, False)])
def test_at_the_first_contact_the_later_of_a_memory_and_its_deletion_wins(
    deleted_at_us: int, survives: bool
) -> None:
    outcome = reconcile(
        Known(), None, START.heads, Maker("new", lambda: 9), deleted_at_us=deleted_at_us
    )
    assert (outcome.visible.fields is not None) == survives


def test_a_version_from_the_far_future_does_not_win_against_later_edits() -> None:
    wrong = change(START, fields("wrong clock"), "a", 9_000 * DAY_US).intended
    shown, others = merged(
        made(fields("after"), "b", 5, wrong), made(fields("before"), "c", 6, wrong), *wrong.heads
    )
    assert (shown["content"], others) == ("before", [("content",)])


def test_a_wrong_clock_does_not_spread() -> None:
    clock = Clock("a")
    clock.see(Stamp(9_000 * DAY_US, "b", "x"), 100)
    assert clock.next(100) == 100
    clock.see(Stamp(200, "b", "x"), 100)
    assert [clock.next(100), clock.next(50), clock.next(300)] == [201, 202, 300]


def test_a_clock_that_was_ahead_recovers() -> None:
    clock = Clock("a")
    clock.next(9_000 * DAY_US)
    assert clock.next(100) == 100


def test_copies_of_one_machine_do_not_hide_each_others_versions() -> None:
    one, two = made(fields("one"), "a", 1), made(fields("two"), "a", 1)
    assert len(join([one], [two])) == 2
    assert made(None, "a", 1) != made(None, "a", 1, change(START, fields("x"), "a", 1).intended)


def test_after_a_kill_what_the_sync_intended_is_no_change_of_the_user() -> None:
    incoming = [made(fields("theirs", "old"), "b", 1)]
    outcome = reconcile(START, fields("text", "old"), join(incoming), Maker("a", lambda: 2))
    known = START.after_crash(outcome.intended, outcome.visible.fields)
    assert reconcile(known, outcome.visible.fields, (), Maker("a", lambda: 3)).new is None


def test_a_change_after_a_kill_replaces_nothing_that_the_user_may_not_have_seen() -> None:
    mine = change(START, fields("mine", "old"), "a", 1).intended
    incoming = join([made(fields("theirs", "old"), "b", 2)])
    intended = reconcile(mine, fields("mine", "old"), incoming, Maker("a", lambda: 3)).intended
    known = mine.after_crash(intended, fields("changed", "old"))
    outcome = reconcile(known, fields("changed", "old"), incoming, Maker("a", lambda: 4))
    assert {head.fields["content"] for head in outcome.heads if head.fields} == {
        "mine",
        "theirs",
        "changed",
    }


def test_an_edit_of_one_field_after_a_merge_yields_to_a_concurrent_edit_of_another() -> None:
    text = change(START, fields("new text", "old"), "a", 1).intended
    heads = join(text.heads, [made(fields("text", "old", context="work"), "b", 2)])
    both = Known(heads, digest_of(visible(heads).fields))
    later = made(fields("new text", "old", context="home"), "c", 9, both)
    other = made(fields("newer text", "old"), "d", 5, text)
    shown, others = merged(later, other)
    assert (shown["content"], shown["context"], others) == ("newer text", "home", [])


def test_of_deletions_from_before_a_memory_was_shared_the_latest_counts() -> None:
    nothing = Maker("", lambda: 0)
    early, late = (
        reconcile(Known(), None, (), nothing, deleted_at_us=at_us).heads[0]
        for at_us in (LATER_US, LATER_US + 2)
    )
    edit = made(fields("new"), "a", LATER_US + 1)
    assert merged(edit, early)[0] == fields("new")
    assert merged(edit, early, late)[0] is None
    assert join([early], [late]) == join([late], [early]) == (late,)


def test_a_stamp_is_read_back() -> None:
    for stamp in (Stamp(-5, "", "abc"), Stamp(1 << 60, "r1", "", "0f")):
        assert Stamp.read(str(stamp)) == stamp


def test_two_copies_of_a_machine_that_make_one_version_agree_whether_it_is_a_reversal() -> None:
    edit = made(fields("new"), "a", 1)
    reversal = replace(edit, reversal=True)
    assert [head.reversal for head in (*join([edit], [reversal]), *join([reversal], [edit]))] == [
        False,
        False,
    ]


def test_copies_of_a_machine_agree_whether_a_memory_was_deleted_or_is_shared_no_longer() -> None:
    deletion = made(None, "a", 1)
    left = replace(deletion, left=True)
    for group in ([deletion, left], [left, deletion], [left]):
        assert [head.left for head in join(group)] == [True]
    assert not join([deletion])[0].left
