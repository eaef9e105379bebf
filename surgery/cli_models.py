"""The commands of `surgery models`; like the others they import what they need when they run."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from surgery.cli_options import Json

models_app = App(name="models", help="The model store.")


@models_app.default
@models_app.command(name="list")
def models_list(*, as_json: Json = False) -> None:
    """List every model and version."""
    from surgery.recipes.models import list_models

    list_models(as_json)


@models_app.command(name="show")
def models_show(model: str, *, as_json: Json = False) -> None:
    """Show what a version is and where it came from."""
    from surgery.recipes.models import show

    show(model, as_json)


@models_app.command(name="promote")
def models_promote(
    name: str,
    version: int,
    *,
    anyway: Annotated[
        bool, Parameter(negative="", help="Even if its precision lost more than its tolerance.")
    ] = False,
    canary: Annotated[float | None, Parameter(help="Only on this share: as `models canary --share`.")] = None,
    as_json: Json = False,
) -> None:
    """Make a version production."""
    if canary is not None:
        return models_canary(name, version, share=canary, as_json=as_json)
    from surgery.recipes.models import promote

    promote(name, version, anyway=anyway, as_json=as_json)


@models_app.command(name="rollback")
def models_rollback(name: str, *, as_json: Json = False) -> None:
    """Swap production and previous."""
    from surgery.recipes.models import rollback

    rollback(name, as_json=as_json)


@models_app.command(name="remove")
def models_remove(name: str, version: int, *, as_json: Json = False) -> None:
    """Delete a version that is not production."""
    from surgery.recipes.models import remove

    remove(name, version, as_json=as_json)


Share = Annotated[float, Parameter(help="Share of the requests for NAME, above 0 and up to 1.")]
Off = Annotated[bool, Parameter(negative=(), help="End it.")]


@models_app.command(name="shadow")
def models_shadow(
    name: str, version: int | None = None, *, share: Share = 0.2, off: Off = False, as_json: Json = False
) -> None:
    """Let a version see a share of the images that production answers, and compare; it answers nobody."""
    from surgery.recipes.rollout import roll_out

    roll_out("shadow", name, version, share, off, as_json)


@models_app.command(name="canary")
def models_canary(
    name: str, version: int | None = None, *, share: Share = 0.1, off: Off = False, as_json: Json = False
) -> None:
    """Let a version answer a share of the requests, always the same ones; production answers the others."""
    from surgery.recipes.rollout import roll_out

    roll_out("canary", name, version, share, off, as_json)


@models_app.command(name="compare")
def models_compare(
    name: str,
    *,
    url: Annotated[str, Parameter(help="Address of the service.")] = "http://127.0.0.1:3000",
    token: Annotated[str | None, Parameter(help="What the service asks for; else $SURGERY_TOKEN.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a running service how the candidate beside production of NAME does."""
    from surgery.recipes.compare import compare

    compare(name, url, token, as_json)
