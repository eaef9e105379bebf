"""How models, versions and aliases are spelled. Nothing else is ever joined to a path."""

from __future__ import annotations

import re
from dataclasses import dataclass

from surgery.artifact.errors import StoreError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Ref:
    """What a user names: a model, and a version, an alias or neither."""

    name: str
    selector: int | str | None
    """Version number, alias, or None for production."""


def check_name(name: str) -> str:
    """Return a model name or alias if it may be one.

    Raises:
        StoreError: Unless it is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise StoreError(
            f"{name!r:.100} is not a name: 1 to 64 of the characters A-Z a-z 0-9 . _ - are "
            "allowed, the first a letter or a digit",
            "use a name like 'cars' or 'cars-night.2'.",
        )
    return name


def check_version(version: int | str) -> int:
    """Return a version number if it may be one.

    Raises:
        StoreError: Unless it is a whole number from 1 on.
    """
    if not VERSION.fullmatch(str(version)):
        raise StoreError(f"{version!r:.100} is not a version", "versions are numbers: 1, 2, 3 …")
    return int(version)


def parse_ref(ref: str) -> Ref:
    """Split `cars`, `cars@3` or `cars@production`.

    Raises:
        StoreError: If the name, version or alias is not spelled like one.
    """
    name, at, selector = ref.partition("@")
    check_name(name)
    if not at:
        return Ref(name, None)
    if selector.isascii() and selector.isdigit():
        return Ref(name, check_version(selector))
    return Ref(name, check_name(selector))
