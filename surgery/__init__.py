"""Cut a pretrained vision backbone open, graft a head on it, fine-tune it, prove it, serve it."""

__version__ = "0.1.0"
