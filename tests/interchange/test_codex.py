"""Codex's memory folder."""

from pathlib import Path

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.stores.base import UNDATED

GROUP = """# Task Group: Shop
scope: the shop

## Task 1: Cache

### rollout_summary_files

- rollout_summaries/a.md (success, cwd=/srv/shop, updated_at=2026-09-01T08:00:00Z, thread_id=1)
- rollout_summaries/b.md (partial, cwd=/srv/shop, updated_at=2026-09-03T08:00:00Z, thread_id=2)

### keywords

- cache, redis

## Reusable knowledge

- Clear it with `make clear-cache`. [Task 1]
"""


def test_the_latest_rollout_dates_a_group_and_keywords_are_its_tags() -> None:
    _, (entry,), _ = read_sample(source_of(GROUP.encode(), "MEMORY.md"))
    assert entry.content == "Clear it with `make clear-cache`. [Task 1]"
    assert entry.updated_at.isoformat() == "2026-09-03T08:00:00+00:00"
    assert entry.extra[UNDATED] is True
    assert (entry.tags, entry.source_instance) == (["cache", "redis"], "codex:/srv/shop")
    assert len(entry.metadata["rollout_summary_files"]) == 2


def test_groups_do_not_share_dates_keywords_or_projects() -> None:
    other = GROUP.replace("Shop", "Docs").replace("/srv/shop", "/srv/docs").replace("redis", "x")
    _, entries, _ = read_sample(source_of((GROUP + other).encode(), "MEMORY.md"))
    assert [entry.source_instance for entry in entries] == ["codex:/srv/shop", "codex:/srv/docs"]
    assert [entry.tags[1] for entry in entries] == ["redis", "x"]


def test_a_group_of_two_projects_names_none() -> None:
    text = GROUP.replace("/srv/shop", "/srv/docs", 1)
    _, (entry,), _ = read_sample(source_of(text.encode(), "MEMORY.md"))
    assert entry.source_instance == "codex"


def test_a_date_that_is_none_stays_in_the_metadata() -> None:
    text = GROUP.replace("2026-09-03T08:00:00Z", "yesterday")
    _, (entry,), _ = read_sample(source_of(text.encode(), "MEMORY.md"))
    assert entry.updated_at.isoformat() == "2026-09-01T08:00:00+00:00"
    assert "yesterday" in entry.metadata["rollout_summary_files"][1]


def test_items_that_look_like_a_header_are_memories() -> None:
    items = "- scope: only the shop\n- docs/a.md (worth reading)\n- keywords: none\n"
    _, entries, _ = read_sample(source_of(f"{GROUP}{items}".encode(), "MEMORY.md"))
    assert [entry.content for entry in entries[1:]] == [
        "scope: only the shop",
        "docs/a.md (worth reading)",
        "keywords: none",
    ]


def test_keywords_of_each_task_are_tags() -> None:
    text = "# Task Group: A\n\nkeywords: a, b\n\n## Task 2\n\nkeywords: b, c\n\n- Fact.\n"
    _, (entry,), _ = read_sample(source_of(text.encode(), "MEMORY.md"))
    assert entry.tags == ["a", "b", "c"]


def test_the_table_of_contents_is_left_out_with_what_is_below_it(tmp_path: Path) -> None:
    text = "## General Tips\n\n- Tip.\n\n## What\u2019s in Memory\n\n### shop\n\n- cache: redis\n"
    files = {"MEMORY.md": GROUP, "memory_summary.md": text}
    _, entries, _ = read_sample(source_with(tmp_path / "memories", files))
    assert [e.content for e in entries if e.metadata["file"] == "memory_summary.md"] == ["Tip."]


def test_raw_memories_that_repeat_the_handbook_are_left_out(tmp_path: Path) -> None:
    files = {"MEMORY.md": GROUP, "raw_memories.md": "# Raw\n\n- Clear it with `make clear-cache`."}
    conversion, entries, _ = read_sample(source_with(tmp_path / "memories", files))
    assert (len(entries), conversion.left_out.total()) == (1, 1)


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    files = {"MEMORY.md": f"{GROUP}\n{GROUP}", "memory_summary.md": "## Tips\n"}
    conversion, _, _ = read_sample(source_with(tmp_path / "memories", files))
    assert conversion.places == {"the same record as an earlier one": ["MEMORY.md, line 35"]}


def test_a_rollout_summary_keeps_its_id_by_its_thread(tmp_path: Path) -> None:
    head = "thread_id: 7\nupdated_at: 2026-09-01T08:00:00Z\ncwd: /srv/shop\n\n"
    ids = set()
    for name in ("old", "new"):
        files = {f"rollout_summaries/{name}.md": head + name, "memory_summary.md": "- tip"}
        _, entries, _ = read_sample(source_with(tmp_path / name, files))
        ids.add(next(entry.id for entry in entries if entry.content == name))
    assert len(ids) == 1


def test_the_folder_of_codex_itself_gives_the_same_memories(tmp_path: Path) -> None:
    files = {
        "AGENTS.md": "- Not a memory.",
        "memories/MEMORY.md": GROUP,
        "memories/memory_summary.md": "- tip",
        "memories/rollout_summaries/a.md": "thread_id: 7\n\nText",
        "sessions/1.jsonl": "{}",
    }
    _, entries, _ = read_sample(source_with(tmp_path / "codex", files))
    _, alone, _ = read_sample(source_with(tmp_path / "codex" / "memories", {}))
    assert len(entries) == 3
    assert entries == alone


def test_another_memory_md_is_not_claimed() -> None:
    found = recognise(source_of(b"# Memory\n\n- A fact.\n", "MEMORY.md"))
    assert found is None or found.format.name != "codex"
