"""Text to vectors: which model is to be used, and asking it."""
