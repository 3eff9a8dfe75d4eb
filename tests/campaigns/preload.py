"""Imported once, before the processes of a campaign fork."""

import chromadb
import chromadb.api.rust  # noqa: F401

import tribal_mcp.services.jobs
import tribal_mcp.stores.chroma.store  # noqa: F401
