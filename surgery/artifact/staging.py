"""A version on its way into the store: it appears whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.artifact import disk
from surgery.artifact.errors import StoreError
from surgery.artifact.manifest import Manifest
from surgery.artifact.stored import MANIFEST_FILE, StoredVersion

if TYPE_CHECKING:
    from surgery.artifact.store import Store


@dataclass(frozen=True)
class Staging:
    """A version that is being written."""

    store: Store
    name: str
    path: Path
    """Folder to write the files into."""
    write_production: Callable[[int], None]
    """Makes a version production; the lock is held."""

    def commit(self, manifest: Manifest) -> StoredVersion:
        """Seal the folder with its manifest and make it the next version.

        The first version of a name becomes production by itself.

        Args:
            manifest: Everything but `version` and `files`, which are filled in here.

        Raises:
            StoreError: If the manifest does not describe the folder, or it cannot be written.
            DiskFullError: If the disk is full.
        """
        folder, where = self.path.parent, f"new version of {self.name}"
        if manifest.name != self.name:
            raise StoreError(f"{where}: the manifest's name is '{manifest.name}'")
        try:
            (self.path / MANIFEST_FILE).unlink(missing_ok=True)
            found = disk.list_files(self.path)
            files = {file: disk.sha256(self.path / file, sync=True) for file in found}
            with disk.locked(folder):
                version = self.store.next_version(self.name)
                sealed = replace(manifest, version=version, files=files)
                sealed = Manifest.from_dict(sealed.to_dict(), where)
                sealed.save(self.path / MANIFEST_FILE)
                disk.sha256(self.path / MANIFEST_FILE, sync=True)
                for inner, _, _ in os.walk(self.path):
                    disk.sync_folder(Path(inner))
                # Written before the rename: whatever fails up to there leaves nothing listed.
                if not self.store.list_versions(self.name):
                    self.write_production(version)
                self.path.rename(folder / str(version))
                disk.sync_folder(folder)
        except OSError as error:
            raise disk.cannot_write(folder, error) from error
        return StoredVersion(self.name, version, folder / str(version), sealed)
