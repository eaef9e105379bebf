"""What the options of several commands share: their groups and kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Group, Parameter

MODEL = Group("Model", sort_key=1)
DATA = Group("Data", sort_key=2)
TRAINING = Group("Training", sort_key=3)
MACHINE = Group("Machine", sort_key=4)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object on stdout.")]
Names = Annotated[list[str] | None, Parameter(group=DATA, consume_multiple=True, negative=())]
Device = Literal["auto", "cpu", "cuda"]


def option(group: Group, help: str) -> Parameter:
    """Return a parameter of a group; flags have no negative form."""
    return Parameter(group=group, help=help, negative=())
