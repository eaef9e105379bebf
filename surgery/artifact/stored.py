"""A whole version of the store, as others are handed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surgery.artifact.manifest import Manifest

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class StoredVersion:
    """A whole version of the store."""

    name: str
    version: int
    path: Path
    manifest: Manifest

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def graph(self, device: str = "cpu") -> Path:
        """Return the ONNX file that is served on a kind of device (`cpu`, `cuda`)."""
        return self.path / self.manifest.graph_file(device)

    def sha256(self, device: str = "cpu") -> str:
        """Return the digest of the ONNX file that is served on a kind of device."""
        return self.manifest.files[self.manifest.graph_file(device)]
