"""Which store the settings name: a Chroma folder, a Chroma server, or Chroma Cloud."""

import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from tribal_mcp.config import Settings, foreign_variable, reasons
from tribal_mcp.errors import UsageError

if TYPE_CHECKING:
    from tribal_mcp.stores.base import OnWait
    from tribal_mcp.stores.chroma.store import ChromaStore
    from tribal_mcp.stores.chroma_server.http import ChromaServer
    from tribal_mcp.stores.chroma_server.store import ChromaServerStore

    Store = ChromaStore | ChromaServerStore
else:
    Store = Any  # a folder needs no HTTP client

_CLOUD_URL = "https://api.trychroma.com"
_CLOUD_VARIABLES = ("CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE")
_NAMES = {"chroma_url": "the URL", "data_dir": "the folder", "collection": "the collection name"}


def store_of(
    settings: Settings, on_wait: "OnWait" = lambda _why: None, *, keep_open: bool = False
) -> Store:
    """The store that the settings name, not opened yet.

    This program's own files about a server's memories are in the data folder, in a folder for each
    collection of each database.

    Args:
        settings: where the store is.
        on_wait: called with the reason, repeatedly, while the store waits; an exception from it
            ends the waiting.
        keep_open: see `ChromaStore`.

    Raises:
        UsageError: settings of Chroma Cloud are missing.
    """
    server = server_of(settings)
    if server is None:
        return folder_of(settings, on_wait, keep_open=keep_open)
    from tribal_mcp.stores.chroma.lock import OWN_FOLDER  # noqa: PLC0415 - `where` opens none
    from tribal_mcp.stores.chroma_server.store import ChromaServerStore

    location = f"{server.url}/{server.tenant}/{server.database}/{settings.collection}"
    readable = re.sub(r"[^a-z0-9.]+", "-", server.url.partition("://")[2].lower())[:60]
    own = f"{readable}-{hashlib.sha256(location.encode()).hexdigest()[:12]}"
    return ChromaServerStore(
        server,
        settings.collection,
        own_folder=settings.data_dir / OWN_FOLDER / "servers" / own,
        patience_s=settings.lock_timeout_s,
        on_wait=on_wait,
        keep_open=keep_open,
    )


def folder_of(
    settings: Settings, on_wait: "OnWait" = lambda _why: None, *, keep_open: bool = False
) -> "ChromaStore":
    """The Chroma folder that the settings name, for what only a folder supports.

    Raises:
        UsageError: the settings name a server.
    """
    if settings.chroma_url:
        raise UsageError(
            f"The memories are on a Chroma server ({settings.chroma_url}), and only the files of a "
            "folder can be checked, repaired or rescued. Do that where the server runs, or unset "
            "TRIBAL_CHROMA_URL to use a folder."
        )
    from tribal_mcp.stores.chroma.store import ChromaStore  # noqa: PLC0415 - as above

    return ChromaStore(
        settings.data_dir,
        settings.collection,
        lock_timeout_s=settings.lock_timeout_s,
        on_wait=on_wait,
        durable=settings.durability == "full",
        may_convert=settings.migrate_folder,
        keep_open=keep_open,
    )


def server_of(settings: Settings) -> "ChromaServer | None":
    """The Chroma server that the settings name; None if they name a folder.

    Raises:
        UsageError: variables of Chroma Cloud are not set.
    """
    if not settings.chroma_url:
        return None
    from tribal_mcp.stores.chroma_server.http import ChromaServer

    if settings.chroma_url != "cloud":
        return ChromaServer(
            settings.chroma_url,
            settings.chroma_tenant,
            settings.chroma_database,
            settings.server_headers(),
        )
    key, tenant, database = map(foreign_variable, _CLOUD_VARIABLES)
    if not (key and tenant and database):
        raise UsageError(
            f"Chroma Cloud needs {', '.join(_CLOUD_VARIABLES)}. Set them to the values in its "
            "dashboard."
        )
    return ChromaServer(_CLOUD_URL, tenant, database, {"x-chroma-token": key}, cloud=True)


def location_of(settings: Settings) -> str:
    """The folder or the server that holds the memories, for people."""
    server = server_of(settings)
    return server.url if server else str(settings.data_dir)


def settings_at(settings: Settings, location: str) -> Settings:
    """The same settings for another location; credentials are sent only to their own server.

    Args:
        settings: those of this environment.
        location: a folder, the URL of a server or `cloud`; then optionally `#` and a collection.

    Raises:
        UsageError: the location is not valid.
    """
    where, hash_sign, collection = location.partition("#")
    shown = f"{re.sub('//.*@', '//…@', location)!r:.200}"
    if hash_sign and not collection:
        raise UsageError(f"{shown} ends with '#'. Add the name of the collection after it.")
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
        text = reasons(error, lambda field: _NAMES.get(field, field))
        raise UsageError(f"{shown} is not a valid store: {text}.") from None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    with suppress(ValueError):  # an invalid host or port: `Settings` refuses the URL
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    return url, None, None
