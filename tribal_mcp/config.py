"""Settings and limits. The only reader of the environment.

Every setting has its own `TRIBAL_…` variable and a default that works; docs/settings.md lists them.
(Over 300 lines: all settings, their rules and their only reader are here.)
"""

import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from tribal_mcp.errors import UsageError, invalid_value
from tribal_mcp.portability.known_models import dimensions_of
from tribal_mcp.portability.limits import Limits

PENDING, TOMBSTONES = ".pending", ".forgotten"
"""A collection's siblings have its name and one of these."""
_COLLECTION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,472}[a-zA-Z0-9]")
"""Chroma allows 512 characters; the rest is for what a change of model appends."""
_TOKEN = re.compile(r"[!-~]+")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"https?://[^\s/,*@]+")
_HEADER_NAME = re.compile(r"[\w-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[ -~]*")
_SIMILAR = 0.85


def check_collection_name(name: str) -> str:
    """The name.

    Raises:
        ValueError: no collection for memories can have it.
    """
    if not _COLLECTION.fullmatch(name):
        raise ValueError(
            "it must be 3 to 474 characters long, use only letters, digits, '.', '_' and '-', and "
            "begin and end with a letter or digit"
        )
    if name.endswith((PENDING, TOMBSTONES)):
        raise ValueError(
            f"it must not end with {PENDING} or {TOMBSTONES}: such collections hold the memories "
            "without a vector, and the tombstones, of another one"
        )
    return name


class _FromEnvironment(BaseModel):
    """A field that is not given has the value of its variable.

    The package pydantic-settings does this, too, but takes long to import.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)
    prefix: ClassVar[str]
    # An empty variable counts as unset: a client's configuration may list every variable.
    empty_is_unset: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        variables = {name.upper(): value for name, value in os.environ.items()}
        found = {name: variables.get(f"{cls.prefix}{name}".upper()) for name in cls.model_fields}
        return {
            name: value
            for name, value in found.items()
            if value or (value is not None and not cls.empty_is_unset)
        } | given


class LimitSettings(_FromEnvironment, Limits):
    """The limits of a bundle; each is `TRIBAL_LIMIT_<NAME>` in the environment."""

    prefix = "TRIBAL_LIMIT_"


class Settings(_FromEnvironment):
    """The store and the embedding model; each is `TRIBAL_<NAME>` in the environment."""

    prefix = "TRIBAL_"

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("tribal-mcp"),
        validate_default=True,
        description="the Chroma folder, which also holds this program's own files",
    )
    collection: str = Field("memories", description="the collection that holds the memories")
    embedding_provider: str = Field("", description="the embedding provider, such as openai")
    embedding_model: str = Field("", description="the embedding model")
    embedding_dimensions: int = Field(
        0, ge=0, description="the dimensions of its vectors, if the model is not a known one"
    )
    embedding_url: str = Field(
        "", description="the embedding server's URL, if not the provider's default"
    )
    embedding_files: Path | None = Field(
        None, description="a folder with model.onnx and tokenizer.json, for the provider `default`"
    )
    bundle_dirs: str = Field("", description="folders for bundles, separated like PATH")
    instance: str = Field(
        "tribal-mcp", min_length=1, description="the source_instance of new memories"
    )
    lock_timeout_s: float = Field(
        60.0, gt=0, description="seconds to wait for another process or for a server"
    )
    durability: Literal["full", "process"] = Field(
        "full",
        description="what acknowledged changes survive: a power cut (full), or a killed process",
    )
    restore_points: int = Field(20, ge=1, description="how many past operations can be undone")
    discover: bool = Field(
        False, description="whether an MCP resource lists the memories of other systems here"
    )
    sync_dir: Path | None = Field(None, description="the folder to sync with")
    migrate_folder: bool = Field(
        False, description="whether a write may convert the folder of an older Chroma"
    )
    chroma_url: str = Field(
        "", description="a Chroma server's URL, or `cloud`, instead of a folder"
    )
    chroma_tenant: str = Field("default_tenant", description="the tenant on the server")
    chroma_database: str = Field("default_database", description="the tenant's database")
    chroma_token: SecretStr = Field(SecretStr(""), description="the server's bearer token")
    chroma_headers: SecretStr = Field(
        SecretStr(""), description="headers for the server or its proxy, as a JSON object"
    )
    age_recipients: str = Field(
        "", description="what .age files are encrypted to: keys or files of keys, with commas"
    )
    age_identity: Path | None = Field(
        None, description="a file with the age or SSH key that decrypts .age files"
    )
    age_passphrase_file: Path | None = Field(
        None, description="a file with the passphrase of .age files"
    )
    copy_token: SecretStr = Field(
        SecretStr(""), description="the bearer token of another server, to copy from or to it"
    )

    @field_validator("embedding_files", "age_identity", "age_passphrase_file", "sync_dir")
    @classmethod
    def _from_home(cls, value: Path | None) -> Path | None:
        try:
            return value and value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("that user has no home folder") from None

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            path = value.expanduser().absolute()
            str(path).encode()
        except RuntimeError:
            raise ValueError("that user has no home folder") from None
        except UnicodeEncodeError:
            raise ValueError(
                "its path is not UTF-8, so Chroma can't open it. Rename the folder, or use another"
            ) from None
        return path

    @field_validator("instance")
    @classmethod
    def _utf8(cls, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it must be UTF-8") from None
        return value

    @field_validator("collection")
    @classmethod
    def _valid_collection_name(cls, value: str) -> str:
        return check_collection_name(value)

    @field_validator("chroma_url")
    @classmethod
    def _valid_url(cls, value: str) -> str:
        if "@" in value:  # anywhere: a '/' in a password ends what counts as the host
            raise ValueError("it must not contain a password. Use TRIBAL_CHROMA_HEADERS")
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        is_url = parts.scheme in ("http", "https") and parts.hostname and not parts.query
        if value not in ("", "cloud") and not is_url:
            raise ValueError("it must be a server's URL, such as http://localhost:8000, or cloud")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _valid_headers(self) -> Self:
        self.server_headers()
        return self

    @model_validator(mode="after")
    def _complete_model(self) -> Self:
        if self.embedding_dimensions and not self.embedding_model:
            raise ValueError(
                "TRIBAL_EMBEDDING_DIMENSIONS is set without TRIBAL_EMBEDDING_MODEL. Set the model, "
                "too, or neither to use the default of the provider"
            )
        if self.embedding_model and not self.dimensions:
            raise ValueError(
                f"The dimensions of TRIBAL_EMBEDDING_MODEL, {self.embedding_model!r:.80}, are not "
                "known. Set TRIBAL_EMBEDDING_DIMENSIONS to the length of its vectors"
            )
        return self

    @property
    def dimensions(self) -> int:
        """The dimensions of the configured model; 0 if there is none."""
        return self.embedding_dimensions or dimensions_of(self.embedding_model)

    @cached_property
    def bundle_dir(self) -> Path:
        """The folder for a bundle when no path is given."""
        return self._set_dirs[0] if self._set_dirs else self.data_dir / "bundles"

    @cached_property
    def allowed_dirs(self) -> tuple[Path, ...]:
        """The folders that bundles may be read from and written to."""
        if self._set_dirs:
            return self._set_dirs
        project = Path(os.environ.get("CLAUDE_PROJECT_DIR") or Path.cwd())
        # Some clients start their servers in the root of the disk, which must not be allowed.
        return tuple(
            path
            for path in (self.bundle_dir, project, Path(tempfile.gettempdir()))
            if path != Path(path.anchor)
        )

    @cached_property
    def _set_dirs(self) -> tuple[Path, ...]:
        dirs: list[Path] = []
        for text in filter(str.strip, self.bundle_dirs.split(os.pathsep)):
            try:
                path = Path(text).expanduser()
            except RuntimeError:
                raise UsageError(
                    f"TRIBAL_BUNDLE_DIRS contains {text!r}, but that user has no home folder."
                ) from None
            if not path.is_absolute():
                raise UsageError(
                    f"TRIBAL_BUNDLE_DIRS contains {text!r}, which is not an absolute path. "
                    "Begin each path with / or ~."
                )
            dirs.append(path)
        return tuple(dirs)

    def server_headers(self) -> dict[str, str]:
        """The headers that `chroma_token` and `chroma_headers` set.

        Raises:
            ValueError: they are not valid; the message shows nothing of them.
        """
        headers: Any = None
        with suppress(ValueError):
            headers = json.loads(self.chroma_headers.get_secret_value() or "{}")
        if not isinstance(headers, dict) or not all(type(v) is str for v in headers.values()):
            raise ValueError(
                'TRIBAL_CHROMA_HEADERS must be a JSON object of strings, such as {"X-Key": "…"}'
            )
        if token := self.chroma_token.get_secret_value():
            headers = {"Authorization": f"Bearer {token}"} | headers
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(
                    "TRIBAL_CHROMA_HEADERS or TRIBAL_CHROMA_TOKEN contains a character that is not "
                    "allowed in a header"
                )
        return dict(headers)


class HttpSettings(_FromEnvironment):
    """Who may call the HTTP server; each is `TRIBAL_HTTP_<NAME>` in the environment."""

    prefix = "TRIBAL_HTTP_"
    empty_is_unset = False  # an empty token would let everybody in

    token: SecretStr | None = Field(None, description="the token for full access")
    read_token: SecretStr | None = Field(
        None, description="the token for read-only access: exports, counts and dry runs"
    )
    hosts: str = Field("", description="other host names of the server, separated by commas")
    origins: str = Field(
        "", description="web pages that may call it, such as https://a.example, separated by commas"
    )

    @field_validator("token", "read_token")
    @classmethod
    def _valid_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("it must be printable ASCII without spaces, and not empty")
        return value

    @model_validator(mode="after")
    def _valid_combination(self) -> Self:
        if self.read_token and (not self.token or self.token == self.read_token):
            raise ValueError(
                "TRIBAL_HTTP_READ_TOKEN needs a TRIBAL_HTTP_TOKEN that differs from it. Set both"
            )
        _ = self.host_names, self.allowed_origins
        return self

    @cached_property
    def host_names(self) -> frozenset[str]:
        """The names in `hosts`, in lower case and without a port."""
        return _listed("TRIBAL_HTTP_HOSTS", self.hosts.lower(), _HOST_NAME, "memories.example")

    @cached_property
    def allowed_origins(self) -> frozenset[str]:
        """The origins in `origins`."""
        return _listed("TRIBAL_HTTP_ORIGINS", self.origins, _ORIGIN, "https://app.example")


def _listed(name: str, text: str, form: re.Pattern[str], example: str) -> frozenset[str]:
    found = frozenset(part.strip() for part in text.split(",") if part.strip())
    for part in sorted(found):
        if not form.fullmatch(part):
            raise ValueError(
                f"{name} contains {part!r:.60}. Write it like {example}, and separate several "
                "with commas"
            )
    return found


def load(given: Mapping[str, str] | None = None) -> tuple[Settings, Limits]:
    """The settings and limits of this environment.

    Args:
        given: settings that take the place of those of the environment; a data folder also takes
            that of a server.

    Raises:
        UsageError: a variable has an invalid value or looks misspelled; the message names it.
    """
    _refuse_misspelled()
    # Looking for pydantic's plugins in all installed packages takes long, and there are none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        return Settings(**_replacing(given or {})), LimitSettings()
    except ValidationError as error:
        prefix = "TRIBAL_LIMIT_" if error.title == LimitSettings.__name__ else "TRIBAL_"
        raise _refusal(error, prefix) from None


def load_http() -> HttpSettings:
    """The settings of the HTTP server; raises what `load` does."""
    try:
        return HttpSettings()
    except ValidationError as error:
        raise _refusal(error, "TRIBAL_HTTP_") from None


def _replacing(given: Mapping[str, str]) -> dict[str, str]:
    return {**given, "chroma_url": ""} if "data_dir" in given else dict(given)


@dataclass(frozen=True, slots=True)
class SettingInEffect:
    """A setting, its value as text (a secret is masked), and where the value is from."""

    variable: str
    value: str
    source: str


def in_effect(given: Mapping[str, str]) -> list[SettingInEffect]:
    """Every setting of the store, and the limits and HTTP settings that the environment sets.

    Args:
        given: as for `load`.

    Raises:
        UsageError: as `load`.
    """
    settings, limits = load(given)
    names = {name.upper() for name, value in os.environ.items() if value}
    replaced = _replacing(given)
    found: list[SettingInEffect] = []
    groups: list[tuple[str, BaseModel]] = [
        ("TRIBAL_", settings),
        ("TRIBAL_LIMIT_", limits),
        ("TRIBAL_HTTP_", load_http()),
    ]
    for prefix, group in groups:
        for field, value in group:
            variable = f"{prefix}{field}".upper()
            is_option = prefix == "TRIBAL_" and field in replaced
            if prefix != "TRIBAL_" and variable not in names:
                continue
            source = "environment" if variable in names else "default"
            shown = "(set)" if isinstance(value, SecretStr) and str(value) else str(value or "")
            if isinstance(value, bool):
                shown = str(value).lower()
            found.append(SettingInEffect(variable, shown, "option" if is_option else source))
    return found


def set_for_processes(given: Mapping[str, str]) -> None:
    """Apply options of the command line to this process and to those that it starts.

    Args:
        given: as for `load`.
    """
    for name, value in given.items():
        os.environ[f"TRIBAL_{name}".upper()] = value
        if name == "data_dir":
            os.environ["TRIBAL_CHROMA_URL"] = ""


def prepare_for_one_call() -> None:
    """Set up a process that ends after one call: numpy's threads take time to start."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def cache_dir() -> Path:
    """This program's folder for files that can be made again at any time."""
    return user_cache_path("tribal-mcp")


def foreign_variable(name: str) -> str:
    """The value of another program's variable; empty if it is not set."""
    return os.environ.get(name, "").strip()


def reasons(error: ValidationError, name_of: Callable[[str], str]) -> str:
    """What is wrong with settings, as sentences without a final period; secrets are not shown.

    Args:
        error: from constructing a class of this module.
        name_of: gives the name to show for a field.
    """
    sentences: list[str] = []
    for problem in error.errors():
        reason = invalid_value(problem)
        if problem["loc"]:
            field = str(problem["loc"][0])
            is_secret = field.endswith("token") or "@" in str(problem["input"])
            value = "not valid:" if is_secret else f"{problem['input']!r:.60}, but"
            reason = f"{name_of(field)} is {value} {reason}"
        sentences.append(reason)
    return ". ".join(sentences)


def _refusal(error: ValidationError, prefix: str) -> UsageError:
    text = reasons(error, lambda field: f"{prefix}{field}".upper())
    return UsageError(f"{text}. Correct it, or unset it to use the default.")


def _refuse_misspelled() -> None:
    """An unknown name is refused if it is similar to a setting: it would be silently ignored."""
    known = [f"TRIBAL_{name}".upper() for name in Settings.model_fields]
    known += [f"TRIBAL_LIMIT_{name}".upper() for name in Limits.model_fields]
    known += [f"TRIBAL_HTTP_{name}".upper() for name in HttpSettings.model_fields]
    ours = {name for name in map(str.upper, os.environ) if name.startswith("TRIBAL_")}
    for name in sorted(ours.difference(known)):
        similar = difflib.get_close_matches(name, known, n=1, cutoff=_SIMILAR)
        if similar:
            raise UsageError(
                f"{name} is not a setting. Did you mean {similar[0]}? Rename it, or unset it."
            )
