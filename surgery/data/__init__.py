"""Readers, checks, splits, transforms and loaders: from a folder on disk to batches."""
