"""Settings come from the environment, and a wrong one is named instead of guessed around."""

import os
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr

from tribal_mcp.config import load
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import DEFAULT_LIMITS


def test_without_any_variable_there_are_defaults_that_work(tmp_path: Path) -> None:
    settings, limits = load()
    assert settings.data_dir.is_relative_to(tmp_path / "home")
    assert settings.collection == "memories"
    assert settings.bundle_dir == settings.data_dir / "bundles"
    assert limits.model_dump() == DEFAULT_LIMITS.model_dump()


def test_each_variable_sets_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "TRIBAL_DATA_DIR": "~/memories",
        "TRIBAL_COLLECTION": "work-1",
        "TRIBAL_EMBEDDING_MODEL": "all-MiniLM-L6-v2",
        "TRIBAL_EMBEDDING_DIMENSIONS": "384",
        "TRIBAL_EMBEDDING_PROVIDER": "onnx",
        "TRIBAL_EMBEDDING_URL": "http://localhost:1",
        "TRIBAL_BUNDLE_DIRS": os.pathsep.join(["~/one", "/srv/two"]),
        "TRIBAL_INSTANCE": "desk",
        "TRIBAL_LOCK_TIMEOUT_S": "2.5",
        "TRIBAL_RESTORE_POINTS": "3",
        "TRIBAL_CHROMA_URL": "https://chroma.example/base/",
        "TRIBAL_CHROMA_TENANT": "mine",
        "TRIBAL_CHROMA_DATABASE": "notes",
        "TRIBAL_CHROMA_TOKEN": "t0ken",
        "TRIBAL_CHROMA_HEADERS": '{"X-Key": "k3y"}',
        "TRIBAL_COPY_TOKEN": "oth3r",
        "TRIBAL_LIMIT_ENTRIES": "10",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings, limits = load()
    home = Path.home()
    assert settings.model_dump() == {
        "data_dir": home / "memories",
        "collection": "work-1",
        "embedding_model": "all-MiniLM-L6-v2",
        "embedding_dimensions": 384,
        "embedding_provider": "onnx",
        "embedding_url": "http://localhost:1",
        "bundle_dirs": variables["TRIBAL_BUNDLE_DIRS"],
        "instance": "desk",
        "lock_timeout_s": 2.5,
        "restore_points": 3,
        "chroma_url": "https://chroma.example/base",
        "chroma_tenant": "mine",
        "chroma_database": "notes",
        "chroma_token": SecretStr("t0ken"),
        "copy_token": SecretStr("oth3r"),
        "chroma_headers": SecretStr('{"X-Key": "k3y"}'),
    }
    server = settings.server
    assert server is not None
    assert (server.url, server.tenant, server.database) == (settings.chroma_url, "mine", "notes")
    assert server.headers == {"Authorization": "Bearer t0ken", "X-Key": "k3y"}
    for shown in (repr(settings), repr(server), str(settings.model_dump())):
        assert "t0ken" not in shown
        assert "k3y" not in shown
    assert settings.allowed_dirs == (home / "one", Path("/srv/two"))
    assert settings.bundle_dir == home / "one"
    assert limits.entries == 10


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load()
    for name in ("TRIBAL_DATA_DIR", "TRIBAL_EMBEDDING_DIMENSIONS", "TRIBAL_LIMIT_ENTRIES"):
        monkeypatch.setenv(name, "")
    assert load() == expected


WRONG = {
    "a number that is none": ({"TRIBAL_LOCK_TIMEOUT_S": "soon"}, "TRIBAL_LOCK_TIMEOUT_S is 'soon'"),
    "a limit of nothing": ({"TRIBAL_LIMIT_ENTRIES": "0"}, "TRIBAL_LIMIT_ENTRIES is '0'"),
    "a name that Chroma refuses": ({"TRIBAL_COLLECTION": "a b"}, "TRIBAL_COLLECTION is 'a b'"),
    "a name that is too short": ({"TRIBAL_COLLECTION": "ab"}, "3 to 500"),
    "nobody's home": ({"TRIBAL_DATA_DIR": "~no-such-user/x"}, "TRIBAL_DATA_DIR is '~no-such-user"),
    "a model of no size": ({"TRIBAL_EMBEDDING_MODEL": "m"}, "TRIBAL_EMBEDDING_DIMENSIONS go toget"),
    "a size of no model": ({"TRIBAL_EMBEDDING_DIMENSIONS": "3"}, "TRIBAL_EMBEDDING_MODEL and"),
    "a server of no address": ({"TRIBAL_CHROMA_URL": "localhost:8000"}, "http://localhost:8000"),
    "a password in an address": ({"TRIBAL_CHROMA_URL": "http://me:s3cret@x"}, "CHROMA_HEADERS"),
    "headers that are none": ({"TRIBAL_CHROMA_HEADERS": "X-Key: s3cret"}, "is not a JSON object"),
    "headers that are lists": ({"TRIBAL_CHROMA_HEADERS": '{"a": ["s3cret"]}'}, "JSON object"),
    "a token of two lines": ({"TRIBAL_CHROMA_TOKEN": "s3cret\nX: y"}, "a character that no"),
    "a slip of the keys": ({"TRIBAL_DATADIR": "/x"}, "TRIBAL_DATADIR is no setting; TRIBAL_DATA_D"),
    "a slip in a limit": ({"TRIBAL_LIMIT_ENTRY": "1"}, "TRIBAL_LIMIT_ENTRIES is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    variables, message = WRONG[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        load()
    assert message in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "soon")
    monkeypatch.setenv("TRIBAL_EMBEDDING_DIMENSIONS", "-1")
    with pytest.raises(UsageError, match=r"DIMENSIONS is '-1'.*LOCK_TIMEOUT_S is 'soon'"):
        load()


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_MEMORY_INSTANCE_ID", "laptop")
    monkeypatch.setenv("MY_TRIBAL_DATA_DIR", "/x")
    load()


def test_a_bundle_folder_must_be_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_BUNDLE_DIRS", "bundles")
    settings, _ = load()
    with pytest.raises(UsageError, match="TRIBAL_BUNDLE_DIRS holds 'bundles'"):
        _ = settings.allowed_dirs


def test_bundles_may_lie_in_the_bundle_project_and_temporary_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, _ = load()
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path / "project"))
    temporary = Path(tempfile.gettempdir())
    assert settings.allowed_dirs == (settings.bundle_dir, tmp_path / "project", temporary)


def test_a_server_that_was_started_in_the_root_of_the_disk_may_not_use_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    settings, _ = load()
    assert Path("/") not in settings.allowed_dirs


def test_the_cloud_has_variables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_CHROMA_URL", "cloud")
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "for another server")
    settings, _ = load()
    with pytest.raises(UsageError, match="CHROMA_API_KEY, CHROMA_TENANT, CHROMA_DATABASE"):
        _ = settings.server
    for name in ("CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE"):
        monkeypatch.setenv(name, name.lower())
    server = load()[0].server
    assert server is not None
    assert (server.tenant, server.database) == ("chroma_tenant", "chroma_database")
    assert server.headers == {"x-chroma-token": "chroma_api_key"}
    assert server.url.startswith("https://")
    assert "chroma_api_key" not in repr(server)
