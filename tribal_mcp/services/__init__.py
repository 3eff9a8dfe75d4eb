"""The use cases: export, import, statistics; and the process that carries them out for a server."""
