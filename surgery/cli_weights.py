"""The commands of `surgery backbones` and `surgery weights`; they import what they need when they run."""

from __future__ import annotations

from cyclopts import App

from surgery.cli_options import Json

backbones_app = App(name="backbones", help="Backbones: stages, strides, channels, parameters, weights.")
weights_app = App(name="weights", help="Pretrained weights and their cache.")


@backbones_app.default
@backbones_app.command(name="list")
def backbones_list(filter: str = "", *, as_json: Json = False) -> None:
    """List backbones whose name contains FILTER."""
    from surgery.recipes.backbones import list_backbones

    list_backbones(filter, as_json)


@backbones_app.command(name="show")
def backbones_show(name: str, *, as_json: Json = False) -> None:
    """Show a backbone's stages and where its weights would come from now."""
    from surgery.recipes.backbones import show

    show(name, as_json)


@weights_app.default
@weights_app.command(name="list")
def weights_list(*, as_json: Json = False) -> None:
    """List pinned sources and what the cache holds."""
    from surgery.recipes.weights import list_weights

    list_weights(as_json)


@weights_app.command(name="pull")
def weights_pull(backbone: str) -> None:
    """Fetch a backbone's weights into the cache ahead of time."""
    from surgery.recipes.weights import pull

    pull(backbone)
