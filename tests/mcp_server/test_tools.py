"""Results, progress and resources, and failures that are not the user's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import Client, MCPError
from mcp.types import BlobResourceContents, ResourceLink, TextResourceContents

from tests.support.examples import SAMPLES, memory
from tests.support.mcp_client import ERAS, call, read_back, settings, text_of, write_many
from tribal_mcp.mcp_server.server import build_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only one for the store and for bundles."""
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_results_match_their_schemas_and_have_a_next_step(folder: Path) -> None:
    write_many(folder / "some.json", 4)
    async with Client(build_server()) as client:
        schemas = {t.name: t.output_schema for t in (await client.list_tools()).tools}
        for tool, arguments in (
            ("tribal_stats", {}),
            ("tribal_import", {"input_path": "some.json", "dry_run": True}),
            ("tribal_import", {"input_path": "some.json"}),
            ("tribal_export", {"tags": ["none"]}),
            ("tribal_undo", {"dry_run": True}),
            ("tribal_stats", {}),
            ("tribal_export", {"output_path": "work.json", "tags": ["work"]}),
            ("tribal_export", {}),
        ):
            result = await client.call_tool(tool, arguments)
            structured = result.structured_content
            assert structured is not None
            jsonschema.validate(structured, schemas[tool])
            assert json.loads(text_of(result)) == structured
            assert structured["next_step"].endswith(".")
            told = structured if arguments.get("dry_run") else {**structured, "changes": []}
            assert ("Memory number" in json.dumps(structured)) == bool(told.get("changes"))


@ERAS
async def test_import_takes_a_bundle_as_text_or_as_an_object(folder: Path, era: str) -> None:
    write_many(folder / "some.json", 4)
    text = (folder / "some.json").read_text()
    sample = json.loads((SAMPLES / "hand5.inmemory.json").read_text())
    async with Client(build_server(), mode=era) as client:
        as_text = await call(client, "tribal_import", bundle_json=text)
        assert (as_text["imported"], as_text["notes"]) == (4, [])
        # Its checksum is right as an object too.
        as_object = await call(client, "tribal_import", bundle_json=json.loads(text))
        assert (as_object["identical"], as_object["notes"]) == (4, [])
        result = await call(client, "tribal_import", bundle_json=sample)
        assert result["imported"] == 5
    assert len(read_back(folder)) == 9


async def test_import_takes_the_answer_of_the_http_server_of_tribalmemory(folder: Path) -> None:
    answer = (SAMPLES / "http-answer.json").read_text()
    failed = json.dumps({"success": False, "memory_count": 0, "bundle": None, "error": "no disk"})
    (folder / "answer.json").write_text(answer)
    (folder / "failed.json").write_text(failed)
    async with Client(build_server()) as client:
        for arguments in ({"input_path": "failed.json"}, {"bundle_json": failed}):
            refused = await client.call_tool("tribal_import", arguments)
            assert refused.is_error
            assert "failed" in text_of(refused)
        from_file = await call(client, "tribal_import", input_path="answer.json")
        assert (from_file["total"], from_file["imported"]) == (3, 3)
        for inline in (answer, json.loads(answer)):
            result = await call(client, "tribal_import", bundle_json=inline)
            assert (result["total"], result["identical"]) == (3, 3)


async def test_import_takes_a_bundle_of_eight_mebibytes_as_text(folder: Path) -> None:
    sample = json.loads((SAMPLES / "hand5.inmemory.json").read_text())
    for entry in sample["entries"]:
        entry["content"] = "ü" * 800_000
    text = json.dumps(sample, ensure_ascii=False)
    assert 7_900_000 < len(text.encode()) < 8 * 2**20
    async with Client(build_server()) as client:
        assert (await call(client, "tribal_import", bundle_json=text))["imported"] == 5
    assert {len(e["content"]) for e in read_back(folder).values()} == {800_000}


async def test_import_names_invalid_entries_and_imports_the_others(folder: Path) -> None:
    write_many(folder / "some.json", 4)
    bundle: dict[str, Any] = json.loads((folder / "some.json").read_text())
    del bundle["integrity"]
    bundle["entries"][1]["confidence"] = 9.5
    del bundle["entries"][2]["content"]
    async with Client(build_server()) as client:
        result = await call(client, "tribal_import", bundle_json=bundle)
        assert (result["total"], result["imported"], result["errors"]) == (4, 2, 2)
        assert "memory-1" in result["error_details"][0]
        assert "confidence" in result["error_details"][0]
        assert "content" in result["error_details"][1]
        assert "The other entries are imported" in result["next_step"]
    assert read_back(folder).keys() == {"memory-0", "memory-3"}


async def test_an_import_that_rejects_every_entry_is_an_error(folder: Path) -> None:
    write_many(folder / "some.json", 3)
    bundle: dict[str, Any] = json.loads((folder / "some.json").read_text())
    del bundle["integrity"]
    for entry in bundle["entries"]:
        entry["confidence"] = 9.5
    async with Client(build_server()) as client:
        result = await client.call_tool("tribal_import", {"bundle_json": bundle})
        assert result.is_error
        assert "Every entry was rejected" in text_of(result)
        assert result.structured_content is not None
        assert (result.structured_content["errors"], result.structured_content["total"]) == (3, 3)


class Heard(list[tuple[float, float | None, str | None]]):
    """The progress of a call."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.append((progress, total, message))


@ERAS
async def test_progress_increases_and_has_messages(folder: Path, era: str) -> None:
    write_many(folder / "many.json", 1500)
    async with Client(build_server(), mode=era) as client:
        for tool, arguments, last in (
            ("tribal_import", {"input_path": "many.json"}, "Imported 1,500 of 1,500 entries"),
            ("tribal_export", {}, "Exported 1,500 of 1,500 memories"),
        ):
            heard = Heard()
            result = await client.call_tool(tool, arguments, progress_callback=heard)
            assert not result.is_error
            percents = [progress for progress, _, _ in heard]
            assert percents == sorted(set(percents))
            assert {total for _, total, _ in heard} == {100}
            assert all(message and len(message) < 200 for _, _, message in heard)
            assert heard[-1] == (100, 100, last)


@ERAS
async def test_an_export_without_a_path_returns_a_link_to_a_readable_resource(
    folder: Path, era: str
) -> None:
    write_many(folder / "some.json", 4)
    async with Client(build_server(), mode=era) as client:
        await call(client, "tribal_import", input_path="some.json")
        result = await client.call_tool("tribal_export", {})
        assert result.structured_content is not None
        (path,) = folder.glob("memories-*.json")  # noqa: ASYNC240 - a small folder
        assert result.structured_content["output_path"] == str(path)
        link = result.content[1]
        assert isinstance(link, ResourceLink)
        assert link.size == len(path.read_bytes())
        (contents,) = (await client.read_resource(link.uri)).contents
        assert isinstance(contents, TextResourceContents)
        assert contents.text == path.read_text()
        assert contents.mime_type == link.mime_type == "application/json"

        named = await client.call_tool("tribal_export", {"output_path": "c.json.zst"})
        assert [content.type for content in named.content] == ["text"]
        (packed,) = (await client.read_resource("tribal://bundles/c.json.zst")).contents
        assert isinstance(packed, BlobResourceContents)


async def read_json(client: Client, uri: str) -> dict[str, Any]:
    """Read a resource that lists something."""
    (contents,) = (await client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    assert contents.mime_type == "application/json"
    value: dict[str, Any] = json.loads(contents.text)
    return value


@ERAS
async def test_bundles_and_restore_points_are_listed_so_that_they_can_be_named(
    folder: Path, era: str
) -> None:
    write_many(folder / "some.json", 4)
    (folder / "package.json").write_text('{"name": "x"}')
    (folder / "notes.txt").write_text("secret")
    (folder / "link.json").symlink_to(folder / "some.json")
    (folder / ".hidden.json").write_bytes((folder / "some.json").read_bytes())
    async with Client(build_server(), mode=era) as client:
        resources = {str(r.uri) for r in (await client.list_resources()).resources}
        assert resources == {"tribal://bundles", "tribal://history"}
        nothing = await read_json(client, "tribal://history")
        assert (nothing["operations"], bool(nothing["next_step"])) == ([], True)
        listed = await read_json(client, "tribal://bundles")
        ((path, count),) = ((b["path"], b["memory_count"]) for b in listed["bundles"])
        assert (path, count, listed["other_files"]) == (str(folder / "some.json"), 4, 1)
        assert "tribal_import" in listed["next_step"]
        assert (await call(client, "tribal_import", input_path=path))["imported"] == 4
        await call(client, "tribal_export", output_path="all.jsonl.zst", tags=["work"])
        newest, _ = (await read_json(client, "tribal://bundles"))["bundles"]
        assert (newest["path"], newest["memory_count"]) == (str(folder / "all.jsonl.zst"), 2)
        assert newest["bytes"] == (folder / "all.jsonl.zst").stat().st_size
        (operation,) = (await read_json(client, "tribal://history"))["operations"]
        assert operation["can_undo"] is True
        undone = await call(client, "tribal_undo", point=operation["point"])
        assert undone["removed"] == 4


@ERAS
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("none.json", ["'none.json' does not exist", "Check the path"]),
        ("large.json", ["large.json", "bytes", "Use its path instead"]),
        ("notes.txt", ["notes.txt", ".json"]),
        ("..%2Foutside.json", []),
        ("%2Fetc%2Fpasswd", []),
        ("..%5Coutside.json", []),
        ("sub%2Fa.json", ["is a path", "name of a bundle"]),
        (".hidden.json", ["hidden"]),
        ("link.json", ["link"]),
    ],
)
async def test_an_unreadable_resource_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, era: str, name: str, parts: list[str]
) -> None:
    monkeypatch.setenv("TRIBAL_LIMIT_INLINE_BYTES", "1000")
    write_many(folder / "large.json", 20)
    for inside in ("notes.txt", ".hidden.json", "sub/a.json"):
        (folder / inside).parent.mkdir(exist_ok=True)
        (folder / inside).write_text("secret")
    outside = folder.parent / "outside.json"
    outside.write_text("secret")
    (folder / "link.json").symlink_to(outside)
    async with Client(build_server(), mode=era) as client:
        with pytest.raises(MCPError) as raised:
            await client.read_resource(f"tribal://bundles/{name}")
    message = str(raised.value)
    assert [part for part in parts if part not in message] == []
    assert "secret" not in message
    assert str(folder) not in message


def test_the_server_starts_without_heavy_imports() -> None:
    heavy = {
        "chromadb",
        "numpy",
        "orjson",
        "ijson",
        "tribal_mcp.stores",
        "tribal_mcp.services.jobs",
    }
    code = "import sys, tribal_mcp.mcp_server.server; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(out.stdout.split())


@pytest.mark.usefixtures("folder")
async def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "soon")
    async with Client(build_server()) as client:
        result = await client.call_tool("tribal_stats", {})
        assert result.is_error
        assert "TRIBAL_LOCK_TIMEOUT_S" in text_of(result)
        with pytest.raises(MCPError, match="TRIBAL_LOCK_TIMEOUT_S"):
            await client.read_resource("tribal://bundles/some.json")


@pytest.mark.usefixtures("folder")
async def test_a_bug_is_reported_without_details_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> dict[str, Any]:
        return {"secret": memory(1).content}

    monkeypatch.setattr("tribal_mcp.mcp_server.server.StoreProcesses.call", broken)
    async with Client(build_server()) as client:
        result = await client.call_tool("tribal_stats", {})
    assert result.is_error
    assert "a bug in tribal-mcp" in text_of(result)
    assert "Memory number" not in text_of(result)
    assert "Traceback" in caplog.text


async def test_a_setting_that_names_a_folder_offers_to_sync_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(build_server()) as client:
        assert "tribal_sync" not in {tool.name for tool in (await client.list_tools()).tools}
    (folder / "shared").mkdir()
    monkeypatch.setenv("TRIBAL_SYNC_DIR", str(folder / "shared"))
    write_many(folder / "some.json", 3)
    async with Client(build_server()) as client:
        await call(client, "tribal_import", input_path="some.json")
        plan = await call(client, "tribal_sync", dry_run=True)
        assert plan["published"] == 3
        assert plan["next_step"] == "Nothing was changed. To sync, run tribal_sync()."
        assert (await call(client, "tribal_sync"))["published"] == 3
        assert (await call(client, "tribal_sync", conflicts=True))["conflict_details"] == []
        listed = await call(client, "tribal_sync", operations=True)
        [made] = listed["operations"]
        withdrawing = f'tribal_sync(withdraw="{made["operation"]}", dry_run=true)'
        assert withdrawing in listed["next_step"]
        done = await call(client, "tribal_sync", withdraw=made["operation"])
        assert (done["withdrawn"]["deleted"], done["published"]) == (3, 3)
