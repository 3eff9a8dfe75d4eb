"""Where memories live: a Chroma folder, or the memory of this process."""
