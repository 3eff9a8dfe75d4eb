"""Keeping the memories of several machines the same, through a folder that they share."""
