"""Kill, crowd and disk campaigns: short by default, at full length with TRIBAL_CAMPAIGN=full."""
