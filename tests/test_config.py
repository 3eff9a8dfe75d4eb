"""Settings come from the environment; an invalid one is refused by name."""

import os
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr

from tribal_mcp.config import load, load_http
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.stores.factory import server_of


def test_the_defaults_work_without_any_variable(tmp_path: Path) -> None:
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
        "TRIBAL_EMBEDDING_FILES": "~/model",
        "TRIBAL_BUNDLE_DIRS": os.pathsep.join(["~/one", "/srv/two"]),
        "TRIBAL_INSTANCE": "desk",
        "TRIBAL_LOCK_TIMEOUT_S": "2.5",
        "TRIBAL_DURABILITY": "process",
        "TRIBAL_RESTORE_POINTS": "3",
        "TRIBAL_DISCOVER": "true",
        "TRIBAL_SYNC_DIR": "~/shared",
        "TRIBAL_AGE_RECIPIENTS": "age1one",
        "TRIBAL_AGE_IDENTITY": "~/key",
        "TRIBAL_AGE_PASSPHRASE_FILE": "~/phrase",
        "TRIBAL_MIGRATE_FOLDER": "true",
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
        "embedding_files": home / "model",
        "bundle_dirs": variables["TRIBAL_BUNDLE_DIRS"],
        "instance": "desk",
        "lock_timeout_s": 2.5,
        "durability": "process",
        "restore_points": 3,
        "discover": True,
        "sync_dir": home / "shared",
        "age_recipients": "age1one",
        "age_identity": home / "key",
        "age_passphrase_file": home / "phrase",
        "migrate_folder": True,
        "chroma_url": "https://chroma.example/base",
        "chroma_tenant": "mine",
        "chroma_database": "notes",
        "chroma_token": SecretStr("t0ken"),
        "copy_token": SecretStr("oth3r"),
        "chroma_headers": SecretStr('{"X-Key": "k3y"}'),
    }
    server = server_of(settings)
    assert server is not None
    assert (server.url, server.tenant, server.database) == (settings.chroma_url, "mine", "notes")
    assert server.headers == {"Authorization": "Bearer t0ken", "X-Key": "k3y"}
    for shown in (repr(settings), repr(server), str(settings.model_dump())):
        assert "t0ken" not in shown
        assert "k3y" not in shown
    assert settings.allowed_dirs == (home / "one", Path("/srv/two"))
    assert settings.bundle_dir == home / "one"
    assert limits.entries == 10


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load()
    for name in ("TRIBAL_DATA_DIR", "TRIBAL_EMBEDDING_DIMENSIONS", "TRIBAL_LIMIT_ENTRIES"):
        monkeypatch.setenv(name, "")
    assert load() == expected


WRONG = {
    "not a number": (
        {"TRIBAL_LOCK_TIMEOUT_S": "soon"},
        "TRIBAL_LOCK_TIMEOUT_S is 'soon', but it must be a number.",
    ),
    "not a whole number": (
        {"TRIBAL_RESTORE_POINTS": "2.5"},
        "TRIBAL_RESTORE_POINTS is '2.5', but it must be a whole number.",
    ),
    "zero seconds": (
        {"TRIBAL_LOCK_TIMEOUT_S": "0"},
        "TRIBAL_LOCK_TIMEOUT_S is '0', but it must be greater than 0.",
    ),
    "a number below the minimum": (
        {"TRIBAL_RESTORE_POINTS": "0"},
        "TRIBAL_RESTORE_POINTS is '0', but it must be at least 1.",
    ),
    "a limit of zero": (
        {"TRIBAL_LIMIT_ENTRIES": "0"},
        "TRIBAL_LIMIT_ENTRIES is '0', but it must be greater than 0.",
    ),
    "a name that Chroma refuses": ({"TRIBAL_COLLECTION": "a b"}, "TRIBAL_COLLECTION is 'a b', but"),
    "a name that is too short": ({"TRIBAL_COLLECTION": "ab"}, "3 to 474"),
    "a name that is too long": ({"TRIBAL_COLLECTION": "a" * 475}, "3 to 474"),
    "the name of a sibling": ({"TRIBAL_COLLECTION": "x.pending"}, "must not end with .pending"),
    "the name for tombstones": ({"TRIBAL_COLLECTION": "x.forgotten"}, "must not end with"),
    "an unknown user's home folder": (
        {"TRIBAL_DATA_DIR": "~no-such-user/x"},
        "TRIBAL_DATA_DIR is '~no-such-user/x', but that user has no home folder.",
    ),
    "a model without dimensions": (
        {"TRIBAL_EMBEDDING_MODEL": "m"},
        "The dimensions of TRIBAL_EMBEDDING_MODEL, 'm', are not known. Set",
    ),
    "dimensions without a model": (
        {"TRIBAL_EMBEDDING_DIMENSIONS": "3"},
        "TRIBAL_EMBEDDING_DIMENSIONS is set without TRIBAL_EMBEDDING_MODEL. Set the model",
    ),
    "a server without a scheme": (
        {"TRIBAL_CHROMA_URL": "localhost:8000"},
        "it must be a server's URL, such as http://localhost:8000, or cloud",
    ),
    "a server with an invalid host": ({"TRIBAL_CHROMA_URL": "http://[::1"}, "a server's URL"),
    "a password in a URL": ({"TRIBAL_CHROMA_URL": "http://me:s3cret@x"}, "CHROMA_HEADERS"),
    "headers that are not JSON": (
        {"TRIBAL_CHROMA_HEADERS": "X-Key: s3cret"},
        "TRIBAL_CHROMA_HEADERS must be a JSON object of strings",
    ),
    "headers that are lists": ({"TRIBAL_CHROMA_HEADERS": '{"a": ["s3cret"]}'}, "JSON object"),
    "a token with a line break": (
        {"TRIBAL_CHROMA_TOKEN": "s3cret\nX: y"},
        "contains a character that is not allowed in a header",
    ),
    "a misspelled setting": (
        {"TRIBAL_DATADIR": "/x"},
        "TRIBAL_DATADIR is not a setting. Did you mean TRIBAL_DATA_DIR?",
    ),
    "a misspelled limit": ({"TRIBAL_LIMIT_ENTRY": "1"}, "Did you mean TRIBAL_LIMIT_ENTRIES?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    variables, message = WRONG[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        load()
    assert message in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_all_invalid_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "soon")
    monkeypatch.setenv("TRIBAL_EMBEDDING_DIMENSIONS", "-1")
    with pytest.raises(UsageError, match=r"DIMENSIONS is '-1'.*LOCK_TIMEOUT_S is 'soon'"):
        load()


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_MEMORY_INSTANCE_ID", "laptop")
    monkeypatch.setenv("MY_TRIBAL_DATA_DIR", "/x")
    load()


def test_a_bundle_folder_must_be_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_BUNDLE_DIRS", "bundles")
    settings, _ = load()
    with pytest.raises(UsageError, match="TRIBAL_BUNDLE_DIRS contains 'bundles'"):
        _ = settings.allowed_dirs


def test_bundles_are_allowed_in_the_bundle_project_and_temporary_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, _ = load()
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path / "project"))
    temporary = Path(tempfile.gettempdir())
    assert settings.allowed_dirs == (settings.bundle_dir, tmp_path / "project", temporary)


def test_the_root_of_the_disk_is_never_an_allowed_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    settings, _ = load()
    assert Path("/") not in settings.allowed_dirs


def test_chroma_cloud_is_configured_by_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_CHROMA_URL", "cloud")
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "for another server")
    settings, _ = load()
    with pytest.raises(UsageError, match="CHROMA_API_KEY, CHROMA_TENANT, CHROMA_DATABASE"):
        server_of(settings)
    for name in ("CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE"):
        monkeypatch.setenv(name, name.lower())
    server = server_of(load()[0])
    assert server is not None
    assert (server.tenant, server.database) == ("chroma_tenant", "chroma_database")
    assert server.headers == {"x-chroma-token": "chroma_api_key"}
    assert server.url.startswith("https://")
    assert "chroma_api_key" not in repr(server)


INVALID_TOKENS = {
    "empty": {"TRIBAL_HTTP_TOKEN": ""},
    "with a space": {"TRIBAL_HTTP_TOKEN": "s3cret s3cret"},
    "a read token alone": {"TRIBAL_HTTP_READ_TOKEN": "s3cret"},
    "two equal tokens": {"TRIBAL_HTTP_TOKEN": "s3cret", "TRIBAL_HTTP_READ_TOKEN": "s3cret"},
}


@pytest.mark.parametrize("case", INVALID_TOKENS)
def test_an_invalid_http_token_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    for name, value in INVALID_TOKENS[case].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"TRIBAL_HTTP_(READ_)?TOKEN") as raised:
        load_http()
    assert "s3cret" not in str(raised.value)
