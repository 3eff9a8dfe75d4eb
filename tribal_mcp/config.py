"""Settings and limits. The only reader of the environment.

Every setting has a `TRIBAL_…` variable of its own and a default that works; README.md has the
table.
"""

import difflib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import Limits

_COLLECTION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,498}[a-zA-Z0-9]")
_TOKEN = re.compile(r"[!-~]+")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"https?://[^\s/,*@]+")
_ALIKE = 0.85
_CLOUD = "https://api.trychroma.com"


@dataclass(frozen=True, slots=True)
class ChromaServer:
    """Where a Chroma server is.

    Attributes:
        url: http or https, without a slash at the end.
        tenant: whose database it is.
        database: the database.
        headers: sent with each request, and shown nowhere.
        cloud: it is Chroma Cloud.
    """

    url: str
    tenant: str = "default_tenant"
    database: str = "default_database"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cloud: bool = False


class LimitSettings(BaseSettings, Limits):
    """The limits of a bundle, from the environment."""

    model_config = SettingsConfigDict(
        env_prefix="TRIBAL_LIMIT_", env_ignore_empty=True, frozen=True
    )


class Settings(BaseSettings):
    """Where the store is and what embeds; each is `TRIBAL_<NAME>` in the environment."""

    # Empty is as good as unset: the configuration of a client may hold a line for each variable.
    model_config = SettingsConfigDict(env_prefix="TRIBAL_", env_ignore_empty=True, frozen=True)

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("tribal-mcp"),
        description="the Chroma folder; our own files lie in it too",
    )
    collection: str = Field("memories", description="the collection in it")
    embedding_provider: str = Field("", description="who makes the vectors, such as openai")
    embedding_model: str = Field("", description="the model that makes the vectors")
    embedding_dimensions: int = Field(0, ge=0, description="numbers in its vectors")
    embedding_url: str = Field("", description="where it is asked, if not where it usually is")
    bundle_dirs: str = Field("", description="folders for bundles, separated like PATH")
    instance: str = Field(
        "tribal-mcp", min_length=1, description="who remembers: the source_instance of new memories"
    )
    lock_timeout_s: float = Field(
        60.0, gt=0, description="seconds to wait while another process works on the folder"
    )
    restore_points: int = Field(
        20, ge=1, description="operations of which what was before is kept, for undoing"
    )
    chroma_url: str = Field("", description="a Chroma server, or `cloud`, instead of a folder")
    chroma_tenant: str = Field("default_tenant", description="the tenant on the server")
    chroma_database: str = Field("default_database", description="the tenant's database")
    chroma_token: SecretStr = Field(SecretStr(""), description="sent to it as a bearer token")
    chroma_headers: SecretStr = Field(
        SecretStr(""), description="headers for it or a proxy before it, as a JSON object"
    )

    copy_token: SecretStr = Field(
        SecretStr(""), description="as a bearer token to a server that is only copied to or from"
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    @field_validator("collection")
    @classmethod
    def _name_for_chroma(cls, value: str) -> str:
        if not _COLLECTION.fullmatch(value):
            raise ValueError(
                "A collection's name has 3 to 500 of the characters a-z, A-Z, 0-9, '.', '_' and "
                "'-', and begins and ends with a letter or digit"
            )
        return value

    @field_validator("chroma_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if "@" in value:  # anywhere: a '/' in a password ends what counts as the host
            raise ValueError("A password has its place in TRIBAL_CHROMA_HEADERS")
        whole = parts.scheme in ("http", "https") and parts.hostname and not parts.query
        if value not in ("", "cloud") and not whole:
            raise ValueError(
                "Give the address of a server, such as http://localhost:8000, or cloud"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _readable_headers(self) -> Self:
        _headers(self)
        return self

    @model_validator(mode="after")
    def _whole_model(self) -> Self:
        if bool(self.embedding_model) != bool(self.embedding_dimensions):
            raise ValueError(
                "TRIBAL_EMBEDDING_MODEL and TRIBAL_EMBEDDING_DIMENSIONS go together. Set both, or "
                "neither to take over the model of the first bundle"
            )
        return self

    @cached_property
    def bundle_dir(self) -> Path:
        """The folder that gets a bundle when no path is given."""
        return self._set_dirs[0] if self._set_dirs else self.data_dir / "bundles"

    @cached_property
    def allowed_dirs(self) -> tuple[Path, ...]:
        """The folders that bundles may be read from and written to."""
        if self._set_dirs:
            return self._set_dirs
        project = Path(os.environ.get("CLAUDE_PROJECT_DIR") or Path.cwd())
        # Some clients start their servers in the root of the disk: that allows nothing.
        return tuple(
            path
            for path in (self.bundle_dir, project, Path(tempfile.gettempdir()))
            if path != Path(path.anchor)
        )

    @property
    def place(self) -> str:
        """The folder or the server that holds the memories, for people."""
        return self.server.url if self.server else str(self.data_dir)

    @cached_property
    def server(self) -> ChromaServer | None:
        """The Chroma server that holds the memories; None where a folder does.

        Raises:
            UsageError: Chroma Cloud's own variables are not set.
        """
        if self.chroma_url != "cloud":
            tenant, database = self.chroma_tenant, self.chroma_database
            url = self.chroma_url
            return ChromaServer(url, tenant, database, _headers(self)) if url else None
        names = ("CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE")
        key, tenant, database = (os.environ.get(name, "") for name in names)
        if not (key and tenant and database):
            raise UsageError(
                f"For Chroma Cloud set {', '.join(names)}, as its dashboard shows them."
            )
        return ChromaServer(_CLOUD, tenant, database, {"x-chroma-token": key}, cloud=True)

    @cached_property
    def _set_dirs(self) -> tuple[Path, ...]:
        try:
            dirs = tuple(
                Path(p).expanduser() for p in self.bundle_dirs.split(os.pathsep) if p.strip()
            )
        except RuntimeError as error:
            raise UsageError(f"TRIBAL_BUNDLE_DIRS: {error}") from None
        for path in dirs:
            if not path.is_absolute():
                raise UsageError(
                    f"TRIBAL_BUNDLE_DIRS holds {str(path)!r}, which is not an absolute path. "
                    "Write each folder from the root, or with ~."
                )
        return dirs


class HttpSettings(BaseSettings):
    """Who may call `tribal-mcp serve`; each is `TRIBAL_HTTP_<NAME>` in the environment."""

    # An empty token is not an unset one: it would open the door to everybody.
    model_config = SettingsConfigDict(env_prefix="TRIBAL_HTTP_", frozen=True)

    token: SecretStr | None = Field(None, description="the token of a caller who may do all")
    read_token: SecretStr | None = Field(
        None, description="the token of a caller who may only read: export, count, try"
    )
    hosts: str = Field("", description="further names that callers know the server by")
    origins: str = Field("", description="web pages that may call it, such as https://a.example")

    @field_validator("token", "read_token")
    @classmethod
    def _not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("A token is not empty and has no spaces, only printable ASCII")
        return value

    @model_validator(mode="after")
    def _two_tokens(self) -> Self:
        if self.read_token and (not self.token or self.token == self.read_token):
            raise ValueError(
                "TRIBAL_HTTP_READ_TOKEN goes with a TRIBAL_HTTP_TOKEN that is another. Set both"
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
                f"{name} holds {part!r:.60}; write it as {example}, with commas between"
            )
    return found


def _headers(settings: Settings) -> dict[str, str]:
    """The headers for a Chroma server; nothing of them stands in an error."""
    found: object = {}
    try:
        if text := settings.chroma_headers.get_secret_value():
            found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(type(value) is str for value in found.values()):
        raise ValueError(
            'TRIBAL_CHROMA_HEADERS is not a JSON object of texts, such as {"X-Key": "…"}'
        )
    if token := settings.chroma_token.get_secret_value():
        found = {"Authorization": f"Bearer {token}"} | found
    for name, value in found.items():
        if not re.fullmatch(r"[\w-]+", name, re.ASCII) or not re.fullmatch(r"[ -~]*", value):
            raise ValueError(
                "TRIBAL_CHROMA_HEADERS or TRIBAL_CHROMA_TOKEN holds a character that no header may"
            )
    return found


def elsewhere(settings: Settings, place: str) -> Settings:
    """The same settings with another place; what opens one server is not sent to another.

    Args:
        settings: those of this environment.
        place: a folder, the address of a server or `cloud`, and `#` with a collection's name.

    Raises:
        UsageError: it is none of these.
    """
    where, marked, collection = place.partition("#")
    shown = f"{re.sub('//.*@', '//…@', place)!r:.200}"
    if marked and not collection:
        raise UsageError(f"{shown} ends in '#'. Write the collection's name behind it.")
    changes: dict[str, object] = {"collection": collection or settings.collection}
    if where == "cloud" or "://" in where:
        changes["chroma_url"] = where
        if _origin(where) != _origin(settings.chroma_url):
            changes |= {"chroma_token": settings.copy_token, "chroma_headers": SecretStr("")}
    elif where:
        changes |= {"chroma_url": "", "data_dir": where}
    try:
        return Settings(**(dict(settings) | changes))
    except ValidationError as error:
        reasons = ". ".join(p["msg"].removeprefix("Value error, ") for p in error.errors())
        raise UsageError(f"{shown} is no place for memories: {reasons}.") from None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    with suppress(ValueError):  # no host or no port; the settings will say so
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    return url, None, None


def load_http() -> HttpSettings:
    """The settings of `tribal-mcp serve`.

    Raises:
        UsageError: a variable has a value that can't be; the message names it.
    """
    try:
        return HttpSettings()
    except ValidationError as error:
        raise _refusal(error, "TRIBAL_HTTP_") from None


def secret(name: str) -> str:
    """The key that stands in another program's variable; empty if it is not set."""
    return os.environ.get(name, "").strip()


def load() -> tuple[Settings, Limits]:
    """The settings and limits of this environment.

    Raises:
        UsageError: a variable has a value that can't be, or looks misspelt; the message names it.
    """
    _refuse_misspelt()
    try:
        return Settings(), LimitSettings()
    except ValidationError as error:
        prefix = "TRIBAL_LIMIT_" if error.title == LimitSettings.__name__ else "TRIBAL_"
        raise _refusal(error, prefix) from None


def _refusal(error: ValidationError, prefix: str) -> UsageError:
    problems: list[str] = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            name = f"{prefix}{problem['loc'][0]}".upper()
            is_secret = name.endswith("TOKEN") or "@" in str(problem["input"])
            message = (
                f"{name}: {message}"
                if is_secret
                else f"{name} is {problem['input']!r:.60}: {message}"
            )
        problems.append(message)
    return UsageError(f"{'. '.join(problems)}. Correct it, or unset it for its default.")


def _refuse_misspelt() -> None:
    """A setting that is nearly named as one of ours would be ignored: the wrong store, silently."""
    known = [f"TRIBAL_{name}".upper() for name in Settings.model_fields]
    known += [f"TRIBAL_LIMIT_{name}".upper() for name in Limits.model_fields]
    known += [f"TRIBAL_HTTP_{name}".upper() for name in HttpSettings.model_fields]
    for name in sorted(set(map(str.upper, os.environ)) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if near and name.startswith("TRIBAL_"):
            raise UsageError(f"{name} is no setting; {near[0]} is. Rename it, or unset it.")
