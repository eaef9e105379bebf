"""Measured comparisons: each module prints a table and writes a JSON into bench/out/."""
