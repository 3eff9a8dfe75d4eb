"""The bundle format: reading, verifying and writing bundle files."""
