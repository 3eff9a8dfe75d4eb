"""Embedding models: they turn text into vectors."""
