"""Where memories are stored, behind one interface."""
