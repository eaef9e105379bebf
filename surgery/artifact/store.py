"""The model store: whole versions under models/<name>/<version>, and the aliases that name them."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from surgery.artifact import disk, passports, rollout
from surgery.artifact.disk import no_room
from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.manifest import Manifest
from surgery.artifact.names import NAME, VERSION, Ref, check_name, check_version, parse_ref
from surgery.artifact.rollout import RolloutPlan
from surgery.artifact.staging import Staging
from surgery.artifact.stored import MANIFEST_FILE, StoredVersion
from surgery.artifact.unknown import unknown_alias, unknown_name, unknown_version

__all__ = ["Ref", "RolloutPlan", "Staging", "Store", "StoredVersion", "check_name", "no_room", "parse_ref"]

PRODUCTION = "production"
PREVIOUS = "previous"

_ALIASES = "aliases.json"
_STAGING = ".staging-"
_REMOVED = re.compile(r"\.removed-([1-9][0-9]{0,8})")


class Store:
    """A folder of models.

    Reading takes no lock and writes nothing, so that a service may read a store it cannot
    write to. Writers hold an flock on the model's folder while they choose a number or
    change aliases; a version appears by one rename.

    Args:
        root: The folder; else `$SURGERY_MODELS`, else `./models`. It need not exist.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("SURGERY_MODELS") or "models")

    def list_names(self) -> list[str]:
        """Return the names that have at least one whole version, sorted."""
        names = [entry for entry in disk.list_entries(self.root) if NAME.fullmatch(entry)]
        return sorted(name for name in names if self.list_versions(name))

    def list_versions(self, name: str) -> list[int]:
        """Return the numbers of the whole versions of a name, rising; [] for an unknown name.

        Raises:
            StoreError: If `name` cannot be a name.
        """
        return [number for number in self._numbers(name) if not self._load(name, number)[1]]

    def list_damaged(self) -> dict[str, str]:
        """Return `name@version` → what is wrong, of numbered folders that are no whole version."""
        damaged = {}
        for name in sorted(filter(NAME.fullmatch, disk.list_entries(self.root))):
            for number in self._numbers(name):
                reason = self._load(name, number)[1]
                if reason:
                    damaged[f"{name}@{number}"] = reason
        return damaged

    def aliases(self, name: str) -> dict[str, int]:
        """Return alias → version.

        Raises:
            StoreError: If aliases.json is broken, or `name` cannot be a name.
        """
        path = self._folder(name) / _ALIASES
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _broken_aliases(path, name, f"cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise _broken_aliases(path, name, f"not JSON ({error})") from error
        if not isinstance(values, dict):
            raise _broken_aliases(path, name, "not a JSON object")
        for alias, version in values.items():
            if not NAME.fullmatch(alias) or type(version) is not int or version < 1:
                raise _broken_aliases(path, name, f"{alias!r}: {version!r} is not alias: version")
        return values

    def resolve(self, ref: str) -> StoredVersion:
        """Return the version that `name`, `name@version` or `name@alias` stands for.

        Raises:
            StoreError: If the reference is misspelled, or the version is there but damaged.
            ModelNotFoundError: If it is not there; says what is.
        """
        wanted = parse_ref(ref)
        if not self._numbers(wanted.name):
            raise unknown_name(self, wanted.name)
        if isinstance(wanted.selector, int):
            return self._stored(wanted.name, wanted.selector)
        alias = wanted.selector or PRODUCTION
        version = self.aliases(wanted.name).get(alias)
        if version is None:
            raise unknown_alias(self, wanted.name, alias)
        return self._stored(wanted.name, version)

    def next_version(self, name: str) -> int:
        """Return the number that the next version gets; the number of a removed one stays taken."""
        taken = [0]
        for entry in disk.list_entries(self._folder(name), links=True):
            removed = _REMOVED.fullmatch(entry)
            if removed or VERSION.fullmatch(entry):
                taken.append(int(removed[1] if removed else entry))
        return max(taken) + 1

    @contextmanager
    def stage(self, name: str) -> Iterator[Staging]:
        """Give a folder to write a new version into; left without `commit()`, it is removed.

        Raises:
            StoreError: If `name` cannot be a name or the store cannot be written to.
            DiskFullError: If the disk is full, here or in the body of the `with`.
        """
        folder = self._folder(name)
        path = folder / f"{_STAGING}{os.getpid()}-{secrets.token_hex(4)}"
        with disk.locked(folder, create=True):
            disk.remove_unlocked(folder, _STAGING)
            try:
                path.mkdir()
                # Held until this process is done or dead; tells others not to clean up.
                held = disk.lock(path)
            except OSError as error:
                raise disk.cannot_write(path, error) from error
        try:
            yield Staging(self, name, path, lambda n: self._write_aliases(name, {PRODUCTION: n}))
        except SurgeryError:
            raise
        except BaseException as error:
            if no_room(error):
                raise disk.disk_full(folder) from error
            raise
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)

    def promote(self, name: str, version: int) -> StoredVersion:
        """Make a version production, after checking every file of it; the old one is `previous`.

        A rollout of this version is over.

        Raises:
            ModelNotFoundError: If there is no such version.
            StoreError: If a file of it is damaged, or aliases.json is broken.
        """
        stored = self.verify(name, version)
        with disk.locked(self._folder(name)):
            self._stored(name, version)  # somebody may have removed it meanwhile
            aliases = self.aliases(name)
            old = aliases.get(PRODUCTION, version)
            if old != version:
                aliases[PREVIOUS] = old
            self._change_production(name, {**aliases, PRODUCTION: version})
        return stored

    def rollback(self, name: str) -> StoredVersion:
        """Swap `production` and `previous`; return the version that is production now.

        Raises:
            ModelNotFoundError: If the name is unknown, or the previous version is gone.
            StoreError: If no version was production before, or its files are damaged.
        """
        if not self._numbers(name):
            raise unknown_name(self, name)
        with disk.locked(self._folder(name)):
            aliases = self.aliases(name)
            if PRODUCTION not in aliases or PREVIOUS not in aliases:
                raise StoreError(
                    f"{name}: no version was production before the present one",
                    f"choose one with `surgery models promote {name} VERSION`.",
                )
            stored = self.verify(name, aliases[PREVIOUS])
            swapped = {PRODUCTION: aliases[PREVIOUS], PREVIOUS: aliases[PRODUCTION]}
            self._change_production(name, {**aliases, **swapped})
        return stored

    def remove(self, name: str, version: int) -> None:
        """Delete a version, whole or damaged. Its number is not given again.

        Raises:
            ModelNotFoundError: If there is no such version.
            StoreError: If production or another alias but `previous` points at it, or it is a candidate.
        """
        folder, version = self._folder(name), check_version(version)
        if version not in self._numbers(name):
            raise unknown_version(self, name, version)
        with disk.locked(folder):
            aliases, plan = self.aliases(name), self.rollout(name)
            if plan is not None and plan.version == version:
                raise StoreError(
                    f"{name}@{version} is the candidate of a {plan.kind} and is not removed",
                    f"end that first: `surgery models {plan.kind} {name} --off`.",
                )
            for alias, number in aliases.items():
                if number == version and alias != PREVIOUS:
                    raise StoreError(
                        f"{name}@{version} is '{alias}' and is not removed",
                        f"promote another version first: `surgery models promote {name} VERSION`.",
                    )
            try:
                # Gone from every list before its first file is; the empty folder keeps the
                # number taken. Nothing is written first: the disk may be full.
                grave = (folder / str(version)).rename(folder / f".removed-{version}")
                for entry in list(grave.iterdir()):
                    shutil.rmtree(entry) if _is_folder(entry) else entry.unlink()
            except OSError as error:
                raise disk.cannot_write(folder, error) from error
            shutil.rmtree(folder / passports.FOLDER / str(version), ignore_errors=True)
            if aliases.pop(PREVIOUS, None) == version:
                self._write_aliases(name, aliases)

    def rollout(self, name: str) -> RolloutPlan | None:
        """Return the candidate that runs beside production, and how; None if there is none.

        Raises:
            StoreError: If rollout.json is broken, or `name` cannot be a name.
        """
        return rollout.read_plan(self._folder(name) / rollout.FILE, name)

    def start_rollout(self, name: str, version: int, kind: str, share: float) -> RolloutPlan:
        """Let a candidate run beside production, after checking every file of it.

        It takes the place of the rollout that there may have been.

        Args:
            name: The model.
            version: The candidate.
            kind: `shadow` or `canary`.
            share: Share of the requests for production, in (0, 1].

        Raises:
            ModelNotFoundError: If there is no such version, or nothing is production.
            StoreError: If a file of it is damaged, it is production or does another task, or the share
                is out of range.
        """
        chosen, share = rollout.check_plan(kind, share)
        candidate = self.verify(name, version)
        folder = self._folder(name)
        with disk.locked(folder):  # nobody promotes or removes a version between the checks and the write
            self._stored(name, version)
            production = self.resolve(name)
            if production.version == version:
                raise StoreError(
                    f"{name}@{version} is production itself",
                    f"name another version; `surgery models show {name}` shows this one.",
                )
            task, wanted = candidate.manifest.task, production.manifest.task
            if task != wanted:
                raise StoreError(
                    f"{candidate.ref} does '{task}', production '{wanted}'",
                    "only answers of one task can be compared.",
                )
            plan = RolloutPlan(chosen, version, share, datetime.now(UTC).isoformat(timespec="microseconds"))
            self._write(folder / rollout.FILE, plan.to_json())
        return plan

    def end_rollout(self, name: str) -> RolloutPlan | None:
        """End what runs beside production, a damaged rollout too; return it if it could be read.

        Raises:
            ModelNotFoundError: If the name is unknown.
            StoreError: If the file cannot be removed.
        """
        if not self._numbers(name):
            raise unknown_name(self, name)
        with disk.locked(self._folder(name)):
            try:
                plan = self.rollout(name)
            except StoreError:
                plan = None
            self._delete_rollout(name)
        return plan

    def verify(self, name: str, version: int) -> StoredVersion:
        """Read every file of a version and compare its sha256 with the manifest.

        Raises:
            ModelNotFoundError: If there is no such version.
            StoreError: If files are missing or altered; names them all.
        """
        stored = self._stored(name, check_version(version))
        altered = []
        for file, digest in stored.manifest.files.items():
            path = stored.path / file
            try:
                if disk.sha256(path) != digest:
                    altered.append(f"{path}: altered, its sha256 is not the manifest's")
            except OSError as error:
                altered.append(f"{path}: cannot be read ({error.strerror})")
        if altered:
            raise StoreError("\n".join(altered), _restore(name, version))
        return stored

    def _folder(self, name: str) -> Path:
        """Return the folder of a name, which cannot lead out of the root."""
        folder = self.root / check_name(name)
        if folder.is_symlink():
            raise StoreError(
                f"{folder} is a symbolic link; links are not followed out of the store",
                "move the folder into the store, or set $SURGERY_MODELS to the other store.",
            )
        return folder

    def _numbers(self, name: str) -> list[int]:
        """Return the numbers of all versions, whole or not, rising."""
        folder = self._folder(name)
        found = [entry for entry in disk.list_entries(folder) if VERSION.fullmatch(entry)]
        return sorted(int(entry) for entry in found if (folder / entry).is_dir())

    def _load(self, name: str, version: int) -> tuple[Manifest | None, str]:
        """Return the manifest of a numbered folder, or why it is no whole version."""
        path = self._folder(name) / str(version)
        try:
            manifest = Manifest.load(path / MANIFEST_FILE)
        except StoreError as error:
            return None, error.message
        if (manifest.name, manifest.version) != (name, version):
            return None, f"{path / MANIFEST_FILE}: written for {manifest.name}@{manifest.version}"
        real = path.resolve()
        files = [path / file for file in manifest.files]
        bad = [str(file) for file in files if not (file.resolve().is_relative_to(real) and file.is_file())]
        return manifest, f"missing: {', '.join(bad)}" if bad else ""

    def _stored(self, name: str, version: int) -> StoredVersion:
        if version not in self._numbers(name):
            raise unknown_version(self, name, version)
        manifest, reason = self._load(name, version)
        if manifest is None or reason:
            raise StoreError(f"{name}@{version} is not whole: {reason}", _restore(name, version))
        return StoredVersion(name, version, self._folder(name) / str(version), manifest)

    def _write_aliases(self, name: str, aliases: dict[str, int]) -> None:
        """Replace aliases.json; the caller holds the lock."""
        text = json.dumps(aliases, indent=2, sort_keys=True) + "\n"
        self._write(self._folder(name) / _ALIASES, text)

    def _change_production(self, name: str, aliases: dict[str, int]) -> None:
        """Replace aliases.json, and end the rollout of what is production now; the caller holds the lock."""
        try:
            plan = self.rollout(name)
        except StoreError:  # a damaged rollout is no reason to keep a version from production
            plan = None
        before = self.aliases(name).get(PRODUCTION)
        self._write_aliases(name, aliases)
        # That of what was production is over too: a process died here before it could delete it.
        if plan is not None and plan.version in (before, aliases[PRODUCTION]):
            self._delete_rollout(name)

    def _delete_rollout(self, name: str) -> None:
        path = self._folder(name) / rollout.FILE
        try:
            path.unlink(missing_ok=True)
            disk.sync_folder(path.parent)
        except OSError as error:
            raise disk.cannot_write(path, error) from error

    def _write(self, path: Path, text: str) -> None:
        try:
            disk.write_whole(path, text)
        except OSError as error:
            raise disk.cannot_write(path, error) from error


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _restore(name: str, version: int) -> str:
    return f"restore it from a copy, or remove it with `surgery models remove {name} {version}`."


def _broken_aliases(path: Path, name: str, reason: str) -> StoreError:
    return StoreError(
        f"{path}: {reason}",
        f'write it again as {{"production": VERSION}}, or delete it and run '
        f"`surgery models promote {name} VERSION`.",
    )
