"""A store in a local Chroma folder that several processes may share."""
