"""Weights, backbones and their stages, heads, and the model assembled from them."""
