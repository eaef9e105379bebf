"""Domain adaptation: a model for images that nobody has labelled."""
