"""The same memories on several machines: versions of a memory, and how they come together."""
