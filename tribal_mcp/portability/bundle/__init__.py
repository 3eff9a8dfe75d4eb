"""The bundle file format: reading, verifying and writing it."""
