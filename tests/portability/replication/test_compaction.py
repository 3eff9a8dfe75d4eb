"""What a replica may forget, by what the files of all others say."""

from dataclasses import replace

import orjson
import pytest

from tests.portability.replication.test_versions import START, change, fields, made
from tribal_mcp.errors import EntryError
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.replication.compaction import (
    Cut,
    Report,
    compacted,
    remaining,
    united,
)
from tribal_mcp.portability.replication.reconcile import Known, Maker, reconcile
from tribal_mcp.portability.replication.records import (
    Head,
    Record,
    dump_head,
    dump_record,
    read_head,
    read_record,
)
from tribal_mcp.portability.replication.versions import Version, join, visible

LATER_US = 3_000_000_000_000_000
OWN, FIRST, LAST = "00000004-a", "00000007-b", "00000009-c"
THEIRS = Report(LAST, [FIRST], {"me": 4}, {"me": OWN, "they": "00000009-"})
CUT = Cut(
    "me",
    Report(OWN, [], {"they": 9}, {"me": "00000004-", "they": LAST}),
    {"they": THEIRS},
    {},
    {f"me/{OWN}", f"they/{FIRST}", f"they/{LAST}"},
    {f"me/{OWN}", f"they/{FIRST}", f"they/{LAST}"},
)


def edited_often(times: int) -> Version:
    known = START
    for number in range(times):
        known = change(known, fields(f"text {number}", "old"), "a", LATER_US + number).intended
    [version] = known.heads
    return version


def test_a_file_is_settled_once_all_have_swept_past_it() -> None:
    assert CUT.is_closed
    assert CUT.is_settled(f"me/{OWN}")
    assert CUT.is_settled(f"they/{FIRST}")
    earlier = replace(THEIRS, swept={"me": "00000003-x", "they": "00000009-"})
    assert not replace(CUT, reports={"they": earlier}).is_settled(f"me/{OWN}")
    assert not CUT.is_settled("me/00000003-x")  # files that count no longer
    assert not CUT.is_settled("they/00000008-x")


def test_a_file_is_not_settled_by_what_a_copy_of_a_machine_has_written() -> None:
    other = replace(THEIRS, swept={"me": "00000004-of-the-copy", "they": "00000009-"})
    assert not replace(CUT, reports={"they": other}).is_settled(f"me/{OWN}")
    assert not replace(CUT, forked={"me"}).is_settled(f"me/{OWN}")


def test_a_machine_that_says_nothing_about_it_is_waited_for() -> None:
    old = Report("00000001-d", [], {"me": 4, "they": 9})
    cut = replace(
        CUT, reports={**CUT.reports, "old": old}, applied={*CUT.applied, "old/00000001-d"}
    )
    assert cut.is_closed
    assert not cut.is_settled(f"me/{OWN}")
    assert not replace(CUT, reports={}).is_settled(f"me/{OWN}")


def test_nothing_is_decided_while_files_are_on_the_way() -> None:
    assert not replace(CUT, applied={f"me/{OWN}", f"they/{LAST}"}).is_closed
    ahead = replace(THEIRS, seen={"me": 4, "third": 1})
    assert not replace(CUT, reports={"they": ahead}).is_closed
    assert replace(CUT, reports={"they": ahead}, removed={"third": 1}).is_closed
    unread = Report("00000001-d", [])
    assert not replace(CUT, reports={**CUT.reports, "third": unread}).is_closed


def test_an_old_file_that_is_put_back_does_not_count() -> None:
    assert CUT.is_obsolete("they/00000008-x")
    assert not CUT.is_obsolete(f"they/{FIRST}")
    assert not CUT.is_obsolete("they/00000010-x")
    assert not CUT.is_obsolete("stranger/00000001-x")
    assert [path for path in (f"they/{FIRST}", f"they/{LAST}") if not CUT.is_listed(path)] == []
    assert not CUT.is_listed("they/00000008-x")
    assert CUT.is_listed(f"me/{OWN}")
    assert not CUT.is_listed("me/00000003-x")
    without = replace(CUT, reports={}, removed={"they": 9})
    assert without.is_obsolete(f"they/{LAST}")
    assert not without.is_listed(f"they/{LAST}")


def test_a_file_counts_until_a_machine_that_knew_it_has_replaced_it() -> None:
    start, theirs = "00000001-start", ["00000001-start", "00000002-c"]
    original = Report("00000002-a", [], {"x": 2, "y": 1}, previous=[start])
    copy = Report("00000003-c", ["00000002-c"], {"x": 1, "z": 1}, previous=theirs)
    for both in (original.updated(copy), copy.updated(original)):
        assert (both.name, both.files) == ("00000003-c", ["00000002-a", "00000002-c"])
        assert (both.seen, both.has_replaced(start)) == ({"x": 2, "y": 1, "z": 1}, True)
        assert not both.has_replaced("00000002-b")  # of another copy
        assert both.updated(Report(start)) == both.updated(original) == both
        later = replace(original, name="00000004-a", previous=["00000002-a", "00000003-a"])
        after = both.updated(later)
        assert (after.name, after.files) == ("00000004-a", ["00000002-c", "00000003-c"])
        assert later.updated(both) == after
        next_copy = replace(copy, name="00000004-c", previous=[*theirs, "00000003-c"])
        after = both.updated(next_copy)
        assert (after.name, after.files) == ("00000004-c", ["00000002-a", "00000002-c"])
        assert next_copy.updated(both) == after
        after = both.updated(later)
        assert after.has_replaced("00000001-other")  # from before the files that it names
    assert Report("00000002-a", []).has_replaced(start)  # an earlier version names none


def test_a_replica_is_behind_until_all_others_have_heard_of_it() -> None:
    assert not CUT.is_behind(was=True)
    stranger = replace(THEIRS, seen={})
    assert replace(CUT, reports={"they": stranger}).is_behind(was=False)
    assert replace(CUT, reports={"they": THEIRS, "third": stranger}).is_behind(was=False)


def test_a_replica_stays_behind_until_it_has_read_all_that_the_others_had_read() -> None:
    on_the_way = replace(CUT, applied={f"me/{OWN}", f"they/{LAST}"})
    assert on_the_way.is_behind(was=True)
    assert not on_the_way.is_behind(was=False)


def test_a_file_without_versions_answers_no_other_such_file() -> None:
    assert not CUT.owes([f"they/{LAST}"], behind=False, clean=True)
    news = replace(THEIRS, name="00000010-e", files=[FIRST, LAST])
    cut = replace(CUT, reports={"they": news}, applied={*CUT.applied, "they/00000010-e"})
    assert not cut.owes([f"they/{LAST}"], behind=False, clean=True)
    assert cut.owes(["they/00000010-e"], behind=False, clean=True)
    assert not cut.owes(["they/00000010-e"], behind=False, clean=False)


def test_a_replica_says_once_what_it_has_heard_of_others() -> None:
    assert replace(CUT, removed={"gone": 1}).owes([], behind=True, clean=False)
    nothing_said = replace(CUT, own=replace(CUT.own, swept={}))
    assert nothing_said.owes([], behind=False, clean=True)
    assert not nothing_said.owes([], behind=True, clean=True)
    third = {"third": Report("00000001-d", [])}
    one_said = replace(
        CUT,
        own=replace(CUT.own, seen={**CUT.own.seen, "third": 1}),
        reports={**CUT.reports, **third},
        applied={*CUT.applied, "third/00000001-d"},
    )
    assert one_said.owes([], behind=False, clean=True)
    partly = replace(CUT, applied={f"me/{OWN}", f"they/{LAST}"})
    assert not partly.owes(["they/00000010-e"], behind=False, clean=True)
    stranger = replace(CUT, own=replace(CUT.own, seen={}))
    assert stranger.owes([], behind=True, clean=False)


def test_a_memory_that_was_edited_often_forgets_most_of_what_it_replaced() -> None:
    version = edited_often(400)
    record = dump_record(Record("a", version))
    short = compacted(version)
    assert short
    line = dump_record(Record("a", short))
    assert len(line) < len(record) / 20
    assert read_record(line, DEFAULT_LIMITS, trusted=True).version == short
    assert compacted(short) is short
    assert {short.stamp} | set(short.since.values()) <= {short.stamp, *short.ancestors}


def test_an_edit_after_that_merges_as_before() -> None:
    version = edited_often(30)
    short = compacted(version)
    assert short
    results = []
    for head in (version, short):
        known = Known((head,), START.shown)
        one = reconcile(known, fields("text 29"), (), Maker("b", lambda: LATER_US + 99)).heads
        two = change(
            Known((version,), ""), fields("text 29", "old", "new"), "c", LATER_US + 98
        ).heads
        results.append(visible(join(one, two)).fields)
    assert results[0] == results[1]
    assert results[1]
    assert results[1]["tags"] == ["new"]  # the tag that is older than all edits was removed


def test_a_deletion_becomes_a_mark_that_yields_to_anything_and_then_nothing() -> None:
    [deletion] = change(START, None, "a", 5).heads
    mark = compacted(deletion)
    assert mark
    assert read_record(dump_record(Record("a", mark)), DEFAULT_LIMITS).version == mark
    for group in ([deletion, mark], [mark, deletion]):
        assert join(group) == (mark,)
    assert join([mark], START.heads) == join(START.heads, [mark]) == START.heads
    assert compacted(mark) is None
    later = compacted(made(None, "b", 6))
    assert later
    assert join([mark], [later]) == join([later], [mark]) == (later,)


def test_a_mark_does_not_replace_a_deletion_from_before_a_memory_was_shared() -> None:
    """Neither may replace the other, or the memory would be unknown and both would be gone."""
    [deletion] = change(START, None, "a", 5).heads
    mark = compacted(deletion)
    assert mark
    first = reconcile(Known(), None, (), Maker("a", lambda: 1), deleted_at_us=9).heads
    assert join([mark], first) == join(first, [mark]) == first


def test_only_a_replica_that_is_behind_drops_a_version_because_no_file_has_it() -> None:
    [deletion] = change(START, None, "a", 5).heads
    heads = join([deletion], change(START, fields("edited"), "b", 6).heads)
    live = tuple(head for head in heads if head.fields)
    for behind in (True, False):
        assert remaining(heads, lambda _: True, behind=behind) == heads
        assert remaining(heads, lambda head: head is not deletion, behind=behind) == live
    assert remaining(heads, lambda _: False, behind=True) == ()
    assert remaining(heads, lambda _: False, behind=False) == live
    assert remaining((deletion,), lambda _: False, behind=False) == (deletion,)


def test_several_deletions_become_one_that_replaces_what_each_of_them_does() -> None:
    one, two = (change(START, None, replica, 5).heads for replica in "ab")
    heads = join(one, two)
    both = united(heads)
    assert both == united(join(two, one))
    assert both
    assert join(heads, [both]) == join(START.heads, [both], two) == (both,)
    assert read_record(dump_record(Record("a", both)), DEFAULT_LIMITS).version == both
    assert united(one) is None
    marks = [replace(head, left=True) for head in heads]
    assert [both.left for both in map(united, [(marks[0], two[0]), tuple(marks)]) if both] == [
        False,
        True,
    ]
    assert united(join(one, change(START, fields("edited"), "b", 6).heads)) is None


def test_the_head_of_a_file_of_an_earlier_version_says_nothing_about_it() -> None:
    one, two, name = "1" * 16, "2" * 16, f"00000007-{'a' * 16}.jsonl.zst"
    head = Head(one, "name", 3, [name], {two: 4}, None, {one: "00000004-", two: name}, {two: 2})
    assert read_head(dump_head(head)) == head
    data = orjson.loads(dump_head(head))
    del data["swept"], data["removed"]
    assert read_head(orjson.dumps(data)).swept == {}
    with pytest.raises(EntryError):
        read_head(orjson.dumps({**data, "swept": {two: "x"}}))
