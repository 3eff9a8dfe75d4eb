"""Which store the settings name: a Chroma folder, a Chroma server, or Chroma Cloud."""

import hashlib
import re
from collections.abc import Callable

from tribal_mcp.config import Settings
from tribal_mcp.errors import UsageError
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

Store = ChromaStore | ChromaServerStore
OnWait = Callable[[str], None]


def store_of(settings: Settings, on_wait: OnWait = lambda _why: None) -> Store:
    """The store of those settings, not opened yet.

    What this program keeps beside a server's memories lies in the data folder, a folder for each
    collection of each database, so that nothing of one is taken for another's.

    Args:
        settings: where it is.
        on_wait: told why it waits, again and again; what it raises ends the waiting.

    Raises:
        UsageError: settings of Chroma Cloud are missing.
    """
    server = settings.server
    if server is None:
        return folder_of(settings, on_wait)
    place = f"{server.url}/{server.tenant}/{server.database}/{settings.collection}"
    readable = re.sub(r"[^a-z0-9.]+", "-", server.url.partition("://")[2].lower())[:60]
    own = f"{readable}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    return ChromaServerStore(
        server,
        settings.collection,
        own_folder=settings.data_dir / OWN_FOLDER / "servers" / own,
        patience_s=settings.lock_timeout_s,
        on_wait=on_wait,
    )


def folder_of(settings: Settings, on_wait: OnWait = lambda _why: None) -> ChromaStore:
    """The Chroma folder of those settings, for what only a folder needs.

    Raises:
        UsageError: they name a server.
    """
    if settings.chroma_url:
        raise UsageError(
            f"The memories are on a Chroma server ({settings.chroma_url}): check, repair and "
            "rescue are for the files of a folder. Look after the server where it runs; unset "
            "TRIBAL_CHROMA_URL to check a folder."
        )
    return ChromaStore(
        settings.data_dir,
        settings.collection,
        lock_timeout_s=settings.lock_timeout_s,
        on_wait=on_wait,
    )
