"""Exporting memories to a bundle, whole or only what changed."""
