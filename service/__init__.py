"""The HTTP service. Imports surgery.artifact and nothing else of surgery."""
