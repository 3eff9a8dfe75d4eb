"""Exports without secrets, and what their bundles do at home and elsewhere."""

import gzip
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import memories, memory
from tests.support.secrets import PLACES, MadeUp, made_up, texts_of
from tribal_mcp import export_memories, import_memories, open_store
from tribal_mcp.config import Settings
from tribal_mcp.errors import SecretsFound, UsageError
from tribal_mcp.portability.choices import ConflictResolution, Secrets
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

SECRETS = made_up()
GITHUB = next(one.secret for one in SECRETS if one.kind == "GitHub token")
PASSWORD = next(one.secret for one in SECRETS if one.kind == "password in prose")
SECRET = memory(1, content=f"CI clones with {GITHUB}", tags=["ci"], metadata={"password": PASSWORD})
REDACTED = "CI clones with [redacted:github-pat:1]"


async def job(folder: Path, name: str, **arguments: Any) -> Any:  # noqa: ANN401
    context = Context(Settings(data_dir=folder), Limits(), trusted=True)
    return await run(context, name, arguments)


async def export(folder: Path, name: str = "bundle.json", **arguments: Any) -> Any:  # noqa: ANN401
    return await job(folder, "export", output_path=str(folder.parent / name), **arguments)


async def filled(folder: Path, *entries: MemoryEntry) -> Path:
    async with open_store(folder) as store:
        await store.upsert(list(entries))
    return folder


def read(path: Path) -> str:
    """The bytes of a bundle as text, and again without the escapes of JSON."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if path.suffix == ".zst":
        data = zstd.decompress(data)
    lines = [line.rstrip(",") for line in data.decode().splitlines()]
    parsed = [json.loads(line) for line in lines if line.startswith('{"id"')]
    return "\n".join([*lines, texts_of(parsed)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every made-up secret in every place; a memory of its own for each."""
    import anyio  # noqa: PLC0415

    entries = [
        memory(number, **fields_of(one))
        for number, (one, fields_of) in enumerate(
            (one, fields_of) for fields_of in PLACES.values() for one in SECRETS
        )
    ]
    folder = tmp_path_factory.mktemp("secrets") / "store"
    anyio.run(partial(filled, folder, *entries, memory(9_999)))
    return folder


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.zst"])
async def test_no_encoding_of_a_redacted_bundle_has_a_secret(
    home: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    result = await job(home, "export", output_path=str(path), secrets="redact")
    text = read(path)
    assert [one.kind for one in SECRETS if one.secret in text] == []
    assert [one.kind for one in SECRETS if one.secret in result.model_dump_json()] == []
    assert result.secrets.memories == result.memory_count - 1 == result.without_vector
    assert text.count('"redacted_kinds"') == result.secrets.memories


@given(st.lists(st.tuples(st.sampled_from(SECRETS), st.sampled_from(list(PLACES))), max_size=6))
async def test_no_mixture_of_secrets_is_left(chosen: list[tuple[MadeUp, str]]) -> None:
    fields: dict[str, Any] = {"content": "x"}
    for one, place in chosen:
        for name, value in PLACES[place](one).items():
            before = fields.get(name)
            if isinstance(before, str):
                fields[name] = f"{before}\n\n{value}"
            elif isinstance(before, list):
                fields[name] = before + value
            else:
                fields[name] = {**(before or {}), f"part {len(fields)}": value} if before else value
    store = InMemoryStore()
    await store.upsert([memory(1, **fields)])
    bundle = await export_memories(store, secrets=Secrets.REDACT)
    [entry] = bundle.entries
    text = texts_of(entry_to_dict(entry))
    assert [one.kind for one, _ in chosen if one.secret in text] == []


async def test_a_report_names_the_memory_and_the_kind_and_changes_nothing(tmp_path: Path) -> None:
    folder = await filled(tmp_path / "store", SECRET, memory(2))
    plain = await export(folder, "plain.json")
    result = await export(folder, secrets="report")
    assert result.sha256 == plain.sha256
    assert result.secrets.model_dump() == {
        "memories": 1,
        "kinds": {"github-pat": 1, "password": 1},
        "first": [
            {
                "id": "memory-1",
                "kinds": ["github-pat", "password"],
                "fields": ["content", "metadata"],
            }
        ],
    }
    assert GITHUB not in result.model_dump_json()
    assert plain.secrets is None


async def test_refusing_exports_nothing_and_says_which_memories(tmp_path: Path) -> None:
    many = [memory(n, content=f"use {GITHUB}") for n in range(30)]
    folder = await filled(tmp_path / "store", memory(99), *many)
    with pytest.raises(SecretsFound) as refused:
        await export(folder, secrets="refuse")
    message = str(refused.value)
    assert message.startswith("30 memories contain secrets: 'memory-0' (github-pat in content);")
    assert message.endswith("; …. Nothing was exported.")
    assert message.count("memory-") == 20
    assert GITHUB not in message
    assert os.listdir(tmp_path) == ["store"]  # noqa: PTH208 - a path would block
    assert (await export(folder, secrets="refuse", date_from="2026-01-04")).memory_count == 1


@pytest.mark.parametrize("reproducible", [True, False])
async def test_redacting_twice_gives_the_same_entries(tmp_path: Path, reproducible: bool) -> None:
    folder = await filled(tmp_path / "store", SECRET, memory(2))
    one, two = [
        await export(folder, name, secrets="redact", reproducible=reproducible)
        for name in ("one.json", "two.json")
    ]
    assert one.sha256 == two.sha256
    same = (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert same == reproducible


async def test_a_secret_in_an_id_refuses_the_redacted_export_without_showing_it(
    tmp_path: Path,
) -> None:
    for number, entry in enumerate(
        [memory(1, id=GITHUB), memory(1, supersedes=GITHUB), memory(1, related_to=["x", GITHUB])]
    ):
        folder = await filled(tmp_path / f"store{number}", entry)
        with pytest.raises(SecretsFound, match="in an id or a link") as refused:
            await export(folder, secrets="redact")
        assert GITHUB not in str(refused.value)
        result = await export(folder, f"report{number}.json", secrets="report")
        assert GITHUB not in result.model_dump_json()


async def test_the_id_of_a_deleted_memory_is_searched_too(tmp_path: Path) -> None:
    folder = await filled(tmp_path / "store", memory(1, id=GITHUB), memory(2))
    await job(folder, "forget", ids=[GITHUB])
    for handling in ("redact", "refuse"):
        with pytest.raises(SecretsFound, match="1 memory contains"):
            await export(folder, secrets=handling)


async def test_a_secret_in_the_filter_reaches_neither_the_bundle_nor_the_result(
    tmp_path: Path,
) -> None:
    folder = await filled(tmp_path / "store", memory(1, tags=[GITHUB]))
    result = await export(folder, secrets="redact", tags=[GITHUB])
    assert result.memory_count == 1
    stats = await job(folder, "stats")
    for text in (read(tmp_path / "bundle.json"), str(result), str(stats.last_export)):
        assert GITHUB not in text


@pytest.mark.parametrize("strategy", ConflictResolution)
async def test_at_home_a_redacted_bundle_never_replaces_or_joins_the_original(
    tmp_path: Path, strategy: ConflictResolution
) -> None:
    folder = await filled(tmp_path / "store", SECRET, memory(2))
    await export(folder, secrets="redact")
    path = str(tmp_path / "bundle.json")
    result = await job(
        folder, "import", input_path=path, conflict_resolution=strategy, write_plan=True
    )
    assert (result.redacted, result.imported, result.deleted) == (1, 0, 0)
    async with open_store(folder) as store:
        assert await store.count() == 2
        kept = await store.get("memory-1")
    assert kept == SECRET
    plan = read(Path(result.plan_path))
    assert "redacted version of the existing memory" in plan
    assert GITHUB not in plan
    assert PASSWORD not in plan


async def test_elsewhere_it_is_imported_and_exported_again_with_its_mark(tmp_path: Path) -> None:
    home = await filled(tmp_path / "home", SECRET)
    await export(home, secrets="redact")
    away = tmp_path / "away"
    result = await job(away, "import", input_path=str(tmp_path / "bundle.json"))
    assert (result.imported, result.without_vector) == (1, 1)
    await export(away, "back.json")
    [entry] = json.loads((tmp_path / "back.json").read_bytes())["entries"]
    assert entry["content"] == REDACTED
    assert entry["redacted_kinds"] == ["github-pat", "password"]
    result = await job(
        home, "import", input_path=str(tmp_path / "back.json"), conflict_resolution="overwrite"
    )
    assert result.redacted == 1


async def test_a_change_made_elsewhere_is_reported_at_home(tmp_path: Path) -> None:
    home = await filled(tmp_path / "home", SECRET)
    bundle = None
    async with open_store(home) as store:
        bundle = await export_memories(store, secrets=Secrets.REDACT)
        bundle.entries[0].content += " (changed)"
        bundle.entries[0].updated_at = memory(5).updated_at
        summary = await import_memories(bundle, store, None, ConflictResolution.MERGE)
        kept = await store.get("memory-1")
    assert kept == SECRET
    assert any("1 redacted entry was changed later" in note for note in summary.notes)


async def test_the_original_completes_a_redacted_memory(tmp_path: Path) -> None:
    home = await filled(tmp_path / "home", SECRET)
    await export(home, secrets="redact")
    await export(home, "whole.json")
    away = tmp_path / "away"
    for name in ("bundle.json", "whole.json"):
        result = await job(
            away, "import", input_path=str(tmp_path / name), conflict_resolution="merge"
        )
    assert result.overwritten == 1
    async with open_store(away) as store:
        assert await store.get("memory-1") == SECRET


@pytest.mark.parametrize("handling", ["redact", "report"])
async def test_an_export_since_a_bundle_has_only_what_changed(
    tmp_path: Path, handling: str
) -> None:
    folder = await filled(tmp_path / "store", SECRET, *memories(5)[2:])
    await export(folder, secrets=handling)
    await filled(folder, memory(3, content="changed"))
    since = str(tmp_path / "bundle.json")
    result = await export(folder, "later.json", secrets=handling, since=since)
    assert result.memory_count == 1


async def test_an_import_says_which_memories_bring_secrets_and_quotes_none(tmp_path: Path) -> None:
    home = await filled(tmp_path / "home", SECRET, memory(2), memory(3, id=GITHUB))
    await export(home)
    arguments = {"input_path": str(tmp_path / "bundle.json"), "secrets": "report"}
    away = tmp_path / "away"
    for dry_run in (True, False):
        result = await job(away, "import", dry_run=dry_run, write_plan=True, **arguments)
        assert result.secrets.memories == 2
        assert result.secrets.first[0].id == "memory-1"
        text = result.model_dump_json() + read(Path(result.plan_path))
        assert "CI clones with [redacted:github-pat:1]" in text
        assert GITHUB not in text
    async with open_store(away) as store:
        assert await store.get("memory-1") == SECRET
    result = await job(away, "import", **arguments)
    assert result.secrets.memories == 0, "nothing was imported"


async def test_python_gets_the_redacted_entries_and_a_note() -> None:
    store = InMemoryStore()
    await store.upsert([SECRET, memory(2)])
    bundle = await export_memories(store, secrets=Secrets.REDACT)
    assert bundle.entries[0].content == REDACTED
    assert any(note.startswith("Secrets were redacted in 1 memory") for note in bundle.notes)
    with pytest.raises(SecretsFound):
        await export_memories(store, secrets=Secrets.REFUSE)
    bundle = await export_memories(store)
    summary = await import_memories(bundle, InMemoryStore(), report_secrets=True)
    assert summary.secrets is not None
    assert summary.secrets.kinds == {"github-pat": 1, "password": 1}


async def test_personal_data_alone_is_refused(tmp_path: Path) -> None:
    folder = await filled(tmp_path / "store", memory(1))
    with pytest.raises(UsageError, match="personal_data only adds to"):
        await export(folder, personal_data=True)


@pytest.mark.parametrize("format_name", ["csv", "mem0", "mcp-memory-service", "okf", "pam"])
async def test_a_redacted_copy_in_another_format_never_replaces_the_original(
    tmp_path: Path, format_name: str
) -> None:
    home = await filled(tmp_path / "home", SECRET, memory(2))
    name = {"okf": "notes", "csv": "out.csv"}.get(format_name, "out.json")
    result = await export(home, name, secrets="redact", format=format_name)
    assert result.secrets.memories == 1
    written = [p for p in (tmp_path / name, *(tmp_path / name).rglob("*")) if p.is_file()]
    assert GITHUB not in " ".join(map(read, written))
    result = await job(
        home,
        "import",
        input_path=str(tmp_path / name),
        format=format_name,
        conflict_resolution="overwrite",
    )
    async with open_store(home) as store:
        assert await store.get("memory-1") == SECRET


async def test_the_name_of_a_model_is_redacted_in_the_manifest_too(tmp_path: Path) -> None:
    extra = {"embedding_model": f"model-{GITHUB}"}
    folder = await filled(tmp_path / "store", memory(1, extra=extra), memory(2))
    result = await export(folder, secrets="redact")
    assert GITHUB not in read(tmp_path / "bundle.json") + result.model_dump_json()
