"""Batch norms take the statistics of what passes them, and the model answers as it did."""

from __future__ import annotations

import pytest
import torch
from tiny_domains import make_domains, state
from torch import nn

from surgery.adapt.norms import settle_norms
from surgery.config import AdaptConfig
from surgery.recipes.adapting import settle, try_method
from surgery.recipes.domains import plan
from surgery.train.device import make_accelerator
from surgery.train.reporting import Reporter


def strange(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Give batch norms statistics that are of no images of these, as frozen ones are of ImageNet."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    torch.manual_seed(0)
    for norm in norms:
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.3, 3)
        nn.init.uniform_(norm.weight, 0.5, 2)
    return norms


def test_a_settled_network_answers_as_before_and_its_statistics_are_those_of_its_images():
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)
    )
    first, second = strange(net)
    images = [torch.randn(6, 3, 9, 9) * 2 + 1 for _ in range(3)]
    net.eval()
    before = [net(each) for each in images]
    inside = net[:4](torch.cat(images))
    settle_norms(net, net, images)
    for each, wanted in zip(images, before, strict=True):
        assert torch.allclose(net(each), wanted, atol=1e-5)
    values = net[0](torch.cat(images))
    assert torch.allclose(first.running_mean, values.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(first.running_var, values.var((0, 2, 3), unbiased=False), atol=1e-4)
    assert torch.allclose(second.running_mean, inside.mean((0, 2, 3)), atol=1e-5)


def test_a_channel_that_is_always_the_same_stays_finite():
    norm = nn.BatchNorm2d(2).eval()
    images = torch.zeros(4, 2, 3, 3)
    before = norm(images)
    settle_norms(norm, norm, [images])
    assert torch.allclose(norm(images), before, atol=1e-6)
    assert torch.isfinite(norm.weight).all()


@pytest.mark.parametrize("settled", [True, False])
def test_a_target_that_is_the_source_changes_next_to_nothing(tmp_path, monkeypatch, settled):
    domains = make_domains(tmp_path, "classify")
    object.__setattr__(domains, "target", domains.source)
    strange(domains.model)
    config = AdaptConfig("tiny@1", ("t",), "tiny", batch_size=8, device="cpu", trackers=())
    images = torch.randint(0, 255, (8, 32, 32, 3), dtype=torch.uint8)
    domains.model.eval()
    begun, before = state(domains.model), domains.model(images)[0]
    if not settled:
        monkeypatch.setattr("surgery.recipes.adapting.settle", lambda *given: None)
    tried = try_method(
        config, domains, plan(config, domains, "adabn"), tmp_path / "run", False, Reporter(quiet=True)
    )
    domains.model.load_state_dict({**begun, **tried.weights})
    moved = (domains.model.eval()(images)[0] - before).abs().max() / before.abs().max()
    assert (moved < 0.2) == settled


def test_settling_runs_over_the_source(tmp_path):
    domains = make_domains(tmp_path, "classify")
    (norm, *_) = strange(domains.model)
    config = AdaptConfig("tiny@1", ("t",), "tiny", batch_size=8, device="cpu", trackers=())
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    chosen = plan(config, domains, "adabn")
    settle(config, domains, chosen, make_accelerator("cpu", "fp32"), Reporter(quiet=True))
    handle.remove()
    assert sum(seen) == len(domains.source.of("train"))
