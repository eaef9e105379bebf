"""The activation cache: whole records or none, within its bound."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from surgery.artifact.errors import DiskFullError
from surgery.train import cache as cache_module
from surgery.train.cache import ActivationCache, digest_modules, pack, unpack


def record(value=1.0):
    return {"2": torch.full((3, 4, 5), value, dtype=torch.float16), "target": torch.ones(6, 8).byte()}


def test_pack_and_unpack_keep_half_precision_and_order():
    x = torch.randn(2, 5, 3, 4)
    back = unpack([pack(x[0]), pack(x[1])], torch.device("cpu"))
    assert torch.equal(back, x.half().float())
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_activations_beyond_half_floats_are_clipped_not_infinite():
    assert pack(torch.full((1, 1, 1), 1e9)).item() == 65504


def test_a_record_comes_back_as_it_was(tmp_path):
    cache = ActivationCache({"a": 1}, 1.0, tmp_path)
    cache.put("x", record())
    again = ActivationCache({"a": 1}, 1.0, tmp_path)
    found = again.get("x")
    assert found is not None
    assert torch.equal(found["2"], record()["2"])
    assert torch.equal(found["target"], record()["target"])
    assert ActivationCache({"a": 2}, 1.0, tmp_path).get("x") is None


def test_a_damaged_record_is_missing_not_wrong(tmp_path):
    cache = ActivationCache({}, 1.0, tmp_path)
    cache.put("x", record())
    path = cache.folder / "x.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert cache.get("x") is None
    assert not cache.holds("x")


def test_the_plan_stops_at_the_bound(tmp_path):
    cache = ActivationCache({}, 10 / 1024, tmp_path)
    plan = cache.plan([str(i) for i in range(20)], [1 << 20] * 20)
    assert plan.held == 10
    assert "10 of 20 records fit" in plan.describe()


def test_the_plan_stops_at_the_free_disk(tmp_path, monkeypatch):
    usage = cache_module.shutil.disk_usage(tmp_path)._replace(free=5 << 20)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
    plan = ActivationCache({}, 1.0, tmp_path).plan([str(i) for i in range(20)], [1 << 20] * 20)
    assert plan.held == 4


def test_the_oldest_cache_that_nobody_uses_makes_room(tmp_path):
    used, old, new = (ActivationCache({"n": i}, 1.0, tmp_path) for i in range(3))
    for age, each in ((30, used), (20, old), (10, new)):
        each.put("x", {"t": torch.zeros(1 << 18)})  # 1 MiB
        os.utime(each.folder, (1e9 - age, 1e9 - age))
    old.close()
    new.close()
    ActivationCache({"n": 9}, 3 / 1024, tmp_path).plan(["a"], [1 << 20])
    assert used.folder.exists()
    assert not old.folder.exists()


def test_folders_that_are_no_caches_are_neither_counted_nor_removed(tmp_path):
    for name in ("photos", "0123456789abcdef0123", "more/0123456789abcdef0123"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jpg").write_bytes(b"x" * (1 << 20))
    (tmp_path / "more" / "key.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    cache = ActivationCache({}, 2 / 1024, tmp_path)
    assert cache.plan(["a", "b"], [1 << 20] * 2).held == 2
    cache.close()
    assert sorted(path for path in tmp_path.rglob("*") if cache.folder not in (path, path.parent)) == before


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, monkeypatch, failure):
    cache = ActivationCache({}, 1.0, tmp_path)
    cache.put("before", record())

    def fail(tensors, path):
        path.write_bytes(b"half")
        raise failure or cache_module.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(cache_module, "save_file", fail)
    with pytest.raises(DiskFullError, match="disk is full"):
        cache.put("x", record())
    assert not cache.holds("x")
    assert cache.get("before") is not None
    assert not list(cache.folder.glob("*.part"))


def test_other_weights_or_statistics_get_another_digest():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    first = digest_modules([net])
    assert digest_modules([net]) == first
    net[1].running_mean[0] += 1e-6
    assert digest_modules([net]) != first
