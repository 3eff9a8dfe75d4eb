"""Importing a bundle: plan it, then carry out the plan."""
