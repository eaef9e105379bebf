"""Strategies, activation cache, engine, checkpoints and evaluation."""
