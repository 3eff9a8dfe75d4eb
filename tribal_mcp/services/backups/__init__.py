"""Managed backups: a folder of full and incremental bundles of one store."""
