"""What a memory and a bundle are. Pure: no I/O, no store, no network."""
