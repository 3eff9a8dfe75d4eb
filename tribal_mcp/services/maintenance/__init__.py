"""The store as a whole: stats, check, copy, undo, reembed, change of model."""
