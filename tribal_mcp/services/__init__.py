"""The use cases, independent of any interface."""
