"""One file per command, readable top to bottom."""
