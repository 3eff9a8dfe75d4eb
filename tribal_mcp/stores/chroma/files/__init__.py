"""Chroma's own files, read without Chroma."""
