"""`--batch-size auto`, under a memory limit that the test makes up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_engine import make_loop, same, state

from surgery.artifact.errors import ConfigError, TrainingError
from surgery.config import FinetuneConfig, from_dict, merge, parse_batch
from surgery.recipes import training
from surgery.train import batch_size, cut
from surgery.train.batch_size import bound_batch, find_largest, measure_batch
from surgery.train.reporting import Reporter
from surgery.train.strategies import Phase


def limited(limit: int, error: Exception):
    tried = []

    def trial(count):
        tried.append(count)
        if count > limit:
            raise error

    return trial, tried


@pytest.mark.parametrize(
    ("limit", "most", "found", "tried"),
    [
        (20, 1000, 16, [1, 2, 4, 8, 16, 32]),
        (64, 64, 64, [1, 2, 4, 8, 16, 32, 64]),
        (1000, 100, 64, [1, 2, 4, 8, 16, 32, 64]),
        (0, 100, 0, [1]),
    ],
)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.")]
)
def test_the_largest_power_of_two_that_fits(limit, most, found, tried, error):
    trial, seen = limited(limit, error)
    assert find_largest(trial, most) == found
    assert seen == tried


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        find_largest(limited(4, RuntimeError("shapes"))[0], 64)


def test_an_epoch_keeps_its_steps():
    assert bound_batch(16_000, 1, 32) == 1000
    assert bound_batch(16_000, 4, 32) == 250
    assert bound_batch(100, 1, 32) == 32


@pytest.mark.parametrize(("data", "largest"), [("stripes", (32, 32)), ("boxes", (40, 48))])
def test_whole_steps_of_the_hardest_phase_are_tried_and_leave_no_trace(
    data, largest, tmp_path, monkeypatch, request
):
    loop = make_loop(request.getfixturevalue(data), tmp_path / "run", 6, 3, train_bn=True)
    loop.phases = (replace(loop.phases[0], scales=(0.5, 1.0)), loop.phases[1])
    before, random = state(loop.model), torch.get_rng_state()
    steps, forward = [], cut.Suffix.forward
    update = torch.optim.AdamW.step

    def note(self, inputs, size):
        steps.append((self.cut, len(next(iter(inputs.values()))), size))
        return forward(self, inputs, size)

    monkeypatch.setattr(cut.Suffix, "forward", note)
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *given: (steps.append("step"), update(self))[1]
    )
    limit = {8: 0.05}
    found = measure_batch(loop, 64, lambda: limit.get(steps[-2][1], 0.5))
    assert found == 4
    assert steps == [each for count in (1, 2, 4, 8) for each in ((3, count, largest), "step")]
    assert same(state(loop.model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in loop.model.parameters())


def test_the_run_is_as_if_nothing_had_been_tried(stripes, tmp_path):
    plain = make_loop(stripes, tmp_path / "a", 3)
    plain.run(resume=False)
    tried = make_loop(stripes, tmp_path / "b", 3)
    measure_batch(tried, 8, lambda: 1.0)
    tried.run(resume=False)
    assert same(state(tried.model), state(plain.model))


def test_words_and_recipes():
    assert parse_batch("16") == {"batch_size": 16, "batch_rule": "given"}
    for text in ("many", "-4", "2.5", ""):
        with pytest.raises(ConfigError, match="neither a number nor auto"):
            parse_batch(text)
    with pytest.raises(ConfigError, match="--batch-size 0"):
        from_dict({"data": "d", "name": "n"} | parse_batch("0"))
    found = {"data": "d", "name": "n", "batch_size": 64, "batch_rule": "auto"}
    assert from_dict(merge(found, {"seed": 1})).batch_size == 64  # a repeat measures nothing
    assert from_dict(merge(found, parse_batch("auto"))).batch_size is None
    assert from_dict(merge(found, parse_batch("8"))).batch_size == 8


class Said(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def find(monkeypatch, kind: str, fits: int = 0, processes: int = 1, images: int = 1000, **values):
    """Run the recipe's part on a device that is made up."""
    table = SimpleNamespace(task="classify", of=lambda split: [None] * images)
    accelerator = SimpleNamespace(device=torch.device(kind), num_processes=processes, process_index=0)
    accelerator.gather = lambda mine: torch.cat([mine, mine * 2])
    monkeypatch.setattr(training, "make_accelerator", lambda *given: accelerator)
    monkeypatch.setattr(training, "build_loop", lambda *given: None)
    monkeypatch.setattr(training, "plan_phases", lambda *given: (Phase("head", 5, 1, 1e-3, 0.0, None),))
    monkeypatch.setattr(training, "measure_batch", lambda loop, most: min(fits, most))
    config = FinetuneConfig("d", "n", batch_rule="auto", **values)
    said = Said()
    if kind == "cuda" and processes > 1:  # the tensor that the processes compare lies on the device
        accelerator.device = SimpleNamespace(type="cuda")
        make = torch.tensor
        monkeypatch.setattr(torch, "tensor", lambda *given, device=None: make(*given))
    found = training.find_batch(config, SimpleNamespace(table=table), (), 32, False, said)
    return found, said.lines


def test_without_a_gpu_it_is_the_default_and_said(monkeypatch):
    config, (line,) = find(monkeypatch, "cpu")
    assert (config.batch_size, config.batch_rule) == (32, "auto")
    assert line.startswith("--batch-size auto: 32, the default: there is no GPU")


def test_what_fits_is_recorded_and_said(monkeypatch):
    config, (line,) = find(monkeypatch, "cuda", 16)
    assert config.batch_size == 16
    assert line.startswith("--batch-size auto: 16, twice as many do not fit; the rate is not changed")
    config, (line,) = find(monkeypatch, "cuda", 4096)
    assert config.batch_size == 62
    assert "too few steps" in line
    config, _ = find(monkeypatch, "cuda", 8, processes=2)
    assert config.batch_size == 16
    with pytest.raises(TrainingError, match="not even one image"):
        find(monkeypatch, "cuda", 0)


def test_a_resumed_run_keeps_its_batch(monkeypatch):
    begun = {"batch_rule": "auto", "batch_size": 24}
    monkeypatch.setattr(training, "unfinished_config", lambda name: begun)
    config = FinetuneConfig("d", "n", batch_rule="auto")
    found = training.find_batch(config, SimpleNamespace(), (), 32, True, Said())
    assert found.batch_size == 24


@pytest.mark.gpu
def test_on_a_gpu_what_is_found_trains(stripes: Path, tmp_path: Path) -> None:
    loop = make_loop(stripes, tmp_path / "run", 0)
    loop.accelerator = training.make_accelerator("cuda", "auto")
    open_feed = loop.open_feed

    def on_gpu(first, scale=1.0):
        found = open_feed(first, scale)
        found.device = torch.device("cuda")
        return found

    loop.open_feed = on_gpu
    assert measure_batch(loop, 8) == 8
    assert 0 < batch_size._free_share() < 1
