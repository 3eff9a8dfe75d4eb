"""What the formats of JSON exports do with records that naive importers get wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.convert import Conversion
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MADE_BY, MemoryEntry

T = "2026-01-01T00:00:00Z"


def read(value: object, name: str = "") -> tuple[Conversion, list[MemoryEntry]]:
    text = value if isinstance(value, str) else json.dumps(value)
    return read_sample(source_of(text.encode()), format_name=name)[:2]


def pam(*memories: dict[str, Any], **more: object) -> dict[str, Any]:
    records = [{"content": one["id"], "temporal": {}, **one} for one in memories]
    return {"schema": "portable-ai-memory", "memories": records, **more}


def test_pam_links_a_superseded_memory_and_leaves_out_what_is_retracted() -> None:
    conversion, entries = read(
        pam(
            {"id": "old", "status": "superseded", "temporal": {"superseded_by": "new"}},
            {"id": "new", "status": "active"},
            {"id": "lost", "status": "superseded", "temporal": {"superseded_by": "gone"}},
            {"id": "back", "status": "retracted"},
            {"id": "kept", "status": "archived"},
        )
    )
    assert [(e.id, e.supersedes) for e in entries] == [
        ("old", None),
        ("new", "old"),
        ("kept", None),
    ]
    assert entries[2].metadata["status"] == "archived"
    assert conversion.left_out.total() == 2


def test_pam_reads_a_relation_that_supersedes_and_links_nothing_that_is_left_out() -> None:
    def relation(kind: str, to: str) -> dict[str, str]:
        return {"from": "new", "to": to, "type": kind}

    conversion, entries = read(
        pam(
            *({"id": name, "status": "superseded"} for name in ("first", "second", "lost")),
            {"id": "new"},
            {"id": "back", "status": "retracted"},
            relations=[
                *(relation("supersedes", name) for name in ("first", "second")),
                *(relation("related_to", name) for name in ("lost", "back")),
            ],
        )
    )
    new = entries[-1]
    assert [e.id for e in entries] == ["first", "second", "new"]
    assert (new.supersedes, new.related_to) == ("second", ["first", "second"])
    assert conversion.left_out.total() == 2


def test_pam_keeps_a_dangling_relation_in_the_metadata_only() -> None:
    relations = [{"from": "a", "to": "b", "type": "t"}, {"from": "a", "to": "gone", "type": "t"}]
    _, entries = read(pam({"id": "a"}, {"id": "b"}, relations=relations))
    assert entries[0].related_to == ["b"]
    assert [one["to"] for one in entries[0].metadata["relations"]] == ["b", "gone"]


def test_pam_vectors_of_another_model_are_marked_and_of_another_length_not_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "store.json").write_text(json.dumps(pam({"id": "a"}, {"id": "b"}, {"id": "c"})))
    vectors = [
        {"memory_id": "a", "model": "m", "vector": [1, 2]},
        {"memory_id": "b", "model": "other", "vector": [3, 4]},
        {"memory_id": "c", "model": "m", "vector": [5]},
    ]
    embeddings = {"schema": "portable-ai-memory-embeddings", "embeddings": vectors}
    (tmp_path / "embeddings.json").write_text(json.dumps(embeddings))
    source = source_at(tmp_path)
    conversion, entries, bundle = read_sample(source)
    assert [e.embedding is not None for e in entries] == [True, True, False]
    assert entries[1].extra[MADE_BY] == "other"
    assert json.loads(bundle.split(b"\n")[0])["manifest"]["embedding"]["model_name"] == "m"
    assert (conversion.vectors, len(source.notes)) == (2, 1)


def test_shodh_drops_a_vector_whose_length_is_not_what_it_says_and_says_so() -> None:
    source = source_at(SAMPLES / "shodh-mif-1.0.json")
    conversion, _, _ = read_sample(source)
    assert conversion.vectors == 0
    assert "Vectors that were not read" in source.notes[0]


def cogx(**record: object) -> str:
    record = {"external_system": "zep", "external_id": "1", "kind": "memory", "scope": {}, **record}
    return json.dumps(record) + "\n"


def test_cogx_keeps_validity_and_names_what_a_fact_refers_to() -> None:
    text = cogx(external_id="e", kind="entity", name="Ada") + cogx(
        kind="fact",
        subject_ref="e",
        predicate="likes",
        object_ref="tea",
        invalid_at="2020-01-01T00:00:00+02:00",
    )
    conversion, (entry,) = read(text)
    assert entry.content == "Ada likes tea"
    assert entry.metadata["invalid_at"] == "2020-01-01T00:00:00+02:00"
    assert conversion.left_out.total() == 1


def test_cogx_reads_the_text_of_each_kind_of_record() -> None:
    _, entries = read(
        cogx(external_id="b", kind="memory_block", label="persona", value="Be brief.")
        + cogx(external_id="f", kind="fact", subject_ref="a", object_ref="b", fact_text="A is B.")
        + cogx(external_id="e", kind="entity", name="Ada", description="a person")
        + cogx(external_id="d", kind="document", title="Runbook", content="Restart.")
    )
    assert [(e.content, e.context) for e in entries] == [
        ("Be brief.", "persona"),
        ("A is B.", None),
        ("Ada: a person", None),
        ("Restart.", "Runbook"),
    ]


def test_cogx_leaves_out_conversations() -> None:
    turns = [{"role": "user", "content": "Hello"}]
    conversion, entries = read(
        cogx(external_id="e", kind="episode", turns=turns) + cogx(external_id="2", content="b")
    )
    assert (conversion.left_out, len(entries)) == ({"a conversation": 1}, 1)


def test_cogx_leaves_out_records_without_text() -> None:
    conversion, entries = read(cogx(content="") + cogx(external_id="2", content="b"))
    assert [entry.content for entry in entries] == ["b"]
    assert conversion.found == 2


def test_graphiti_links_only_what_is_in_the_dump() -> None:
    edge = {"uuid": "f", "fact": "Likes tea.", "source_node_uuid": "n", "target_node_uuid": "gone"}
    node = {"uuid": "n", "name": "Ada", "summary": "", "name_embedding": [1, 2]}
    conversion, (entry,) = read({"nodes": [node], "edges": [{**edge, "episodes": ["gone"]}]})
    assert entry.related_to == []
    assert entry.metadata["episodes"] == ["gone"]
    assert conversion.left_out.total() == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ({"text": "text"}, "text"),
        ({"kind": "Memory", "content": {"content": "text"}}, "text"),
        ({"name": "Ada", "age": 5}, '{"name": "Ada", "age": 5}'),
    ],
    ids=["text", "object", "nested", "profile"],
)
def test_langmem_finds_the_text_in_a_value(value: object, expected: str) -> None:
    item = {"namespace": ["ada"], "key": "k", "value": value, "created_at": T}
    for source in ([item], {"items": [item]}, json.dumps(item) + "\n" + json.dumps(item)):
        _, (entry, *_rest) = read(source)
        assert (entry.content, entry.source_instance) == (expected, "langmem:ada")


def test_langmem_tells_equal_keys_of_two_namespaces_apart() -> None:
    items = [{"namespace": [n], "key": "profile", "value": n} for n in ("a", "b")]
    assert len(read(items)[1]) == 2


def test_ai_memory_reads_links_and_who_said_it() -> None:
    record = {"tier": "long", "namespace": "n", "title": "t", "content": "c", "created_at": T}
    links = [{"source_id": "a", "target_id": "b", "relation": "supersedes"}]
    memories = [{**record, "id": "a", "source": "user"}, {**record, "id": "b", "source": "hook"}]
    _, (first, second) = read({"memories": memories, "links": links})
    assert (first.related_to, first.source_type) == (["b"], MemorySource.USER_EXPLICIT)
    assert (second.related_to, second.source_type) == ([], MemorySource.UNKNOWN)
    assert first.metadata["links"] == [{"target_id": "b", "relation": "supersedes"}]


def test_memories_sh_leaves_out_what_is_deleted() -> None:
    record = {"content": "c", "type": "rule", "scope": "project", "project_id": "p"}
    conversion, (entry,) = read({"memories": [record, {**record, "id": "1", "deleted_at": T}]})
    assert entry.source_instance == "memories-sh:project/p"
    assert conversion.left_out == {"a deleted memory": 1}


ACTIVITY = {"header": "Gemini", "products": ["Gemini Apps"], "time": T, "title": "Prompted Hello"}


def test_gemini_leaves_out_other_products_and_activity_without_a_prompt() -> None:
    other = {**ACTIVITY, "header": "YouTube", "products": ["YouTube"]}
    conversion, entries = read([ACTIVITY, other, {**ACTIVITY, "title": ""}])
    assert [entry.content for entry in entries] == ["Hello"]
    assert conversion.left_out.total() == 2
    assert recognise(source_of(json.dumps([other]).encode())) is None


def test_gemini_removes_prompted_only_before_a_prompt() -> None:
    _, (entry,) = read([{**ACTIVITY, "title": "Why was I Prompted twice?"}])
    assert entry.content == "Why was I Prompted twice?"


def test_the_same_prompt_at_two_times_that_cannot_be_read_is_two_memories() -> None:
    times = "5 janv. 2026, 15:14:15 CET", "6 janv. 2026, 15:14:15 CET"
    _, entries = read("".join(html(f"Dit\xa0continue<br>{time}<br>") for time in times))
    assert [entry.metadata["time"] for entry in entries] == list(times)


def html(first: str) -> str:
    return (
        '<div class="outer-cell a"><div><div class="header-cell"><p>Gemini Apps</p></div>'
        f'<div class="content-cell b">{first}</div><div class="content-cell"></div></div></div>'
    )


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("Jan 5, 2026, 3:14:15\u202fPM UTC", "2026-01-05T15:14:15+00:00"),
        ("Jan 5, 2026, 12:14:15 AM PST", "2026-01-05T00:14:15-08:00"),
        ("Jan 5, 2026, 3:14:15 AM GMT+05:30", "2026-01-05T03:14:15+05:30"),
        ("Jan 5, 2026, 3:14:15 AM XYZ", None),
        ("05.01.2026, 15:14:15 MEZ", "2026-01-05T15:14:15+01:00"),
        ("31.02.2026, 15:14:15 MEZ", None),
        ("5 janv. 2026, 15:14:15 CET", None),
    ],
    ids=["UTC", "PST", "offset", "unknown zone", "German", "no such day", "French"],
)
def test_a_time_in_html_is_read_only_if_it_is_certain(time: str, expected: str | None) -> None:
    _, (entry,) = read(html(f"Prompted\xa0Hello<br>{time}<br><p>Hi.</p>"))
    assert (entry.content, entry.metadata["response"]) == ("Hello", "Hi.")
    if expected is None:
        assert entry.extra["created_at_unknown"] is True
        assert entry.metadata["time"] == time
    else:
        assert entry.created_at.isoformat() == expected


def test_nothing_in_html_is_run_or_fetched() -> None:
    text = "Prompted\xa0<script>alert(1)</script>Look <img src='http://x.example/a'>here<br>"
    _, (entry,) = read(html(text))
    assert entry.content == "alert(1)Look here"


def test_html_is_read_in_blocks_after_a_long_style_and_an_unclosed_tag_is_refused() -> None:
    style = f"<style>{'.a{margin:0}' * 50_000}</style>"
    _, entries = read(style + html("Prompted\xa0Hello<br>") * 3, "gemini-takeout")
    assert [entry.content for entry in entries] == ["Hello"]
    with pytest.raises(BundleError, match="not closed"):
        read(html("Prompted\xa0Hello<br>") + "<a " * 500_000, "gemini-takeout")
