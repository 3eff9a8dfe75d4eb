"""Single memories: remember, recall and forget."""
