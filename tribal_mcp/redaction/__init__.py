"""Finds secrets in memories, and redacts them."""
