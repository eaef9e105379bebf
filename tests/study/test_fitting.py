"""One training of a study: it goes through the engine, ends as it should, and goes on after a kill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from surgery.artifact.errors import ConfigError
from surgery.data.readers import read_table
from surgery.study import memory
from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.memory import MemoryFeed
from surgery.study.noise import corrupt_labels
from surgery.study.pictures import Pictures, load_pictures, read_pictures, save_pictures
from surgery.train import rule
from surgery.train.cut import encode_prefix

CPU = torch.device("cpu")


def network(seed=0):
    return make_network("yosinski_small", 4, 0.0, None, seed)


def test_colours_are_learnt_and_the_last_epoch_is_kept(pictures, tmp_path):
    model = network()
    fitted = fit(model, pictures, Recipe(4, 8), 0, 0, tmp_path, watches=True)
    assert len(fitted.accuracy) == len(fitted.train_accuracy) == 5
    assert fitted.accuracy[-1] > 0.9
    feed = MemoryFeed(model, 0, pictures, "none", 0, CPU)
    ((batch, truths),) = feed.look("judged", 100)
    right = model.eval()(batch.inputs["images"])[0].argmax(1).numpy() == truths
    assert right.mean() == fitted.accuracy[-1]


def test_only_the_last_epoch_is_judged_where_nobody_watches(pictures, tmp_path):
    fitted = fit(network(), pictures, Recipe(3, 8), 0, 0, tmp_path)
    assert len(fitted.accuracy) == 1
    assert len(fitted.loss) == 3


def test_training_ends_once_enough_is_learnt(pictures, tmp_path):
    fitted = fit(network(), pictures, Recipe(30, 8), 0, 0, tmp_path, watches=True, enough=0.9)
    assert len(fitted.train_accuracy) < 20
    reached = next(k for k, share in enumerate(fitted.train_accuracy) if share >= 0.9)
    assert len(fitted.train_accuracy) == reached + 2  # one epoch more, in which nothing is better


def test_a_killed_training_ends_as_one_that_was_not(pictures, tmp_path, monkeypatch):
    recipe = Recipe(3, 8, augment="light")
    whole, broken = network(), network()
    fitted = fit(whole, pictures, recipe, 2, 0, tmp_path / "a", watches=True)
    steps = iter(range(1000))
    monkeypatch.setattr(rule, "stop_requested", lambda: next(steps) == 8)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, pictures, recipe, 2, 0, tmp_path / "b", watches=True)
    monkeypatch.undo()
    again = network()
    assert fit(again, pictures, recipe, 2, 0, tmp_path / "b", watches=True) == fitted
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize("enough", [None, 0.9])
def test_a_training_that_was_stopped_at_its_last_step_is_judged(pictures, tmp_path, monkeypatch, enough):
    recipe, watches = Recipe(2, 8), enough is not None
    fitted = fit(network(), pictures, recipe, 0, 0, tmp_path / "a", watches=watches, enough=enough)
    steps = iter(range(1000))
    monkeypatch.setattr(rule, "stop_requested", lambda: next(steps) == 2 * 6 - 1)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), pictures, recipe, 0, 0, tmp_path / "b", watches=watches, enough=enough)
    monkeypatch.undo()
    again = network()
    assert fit(again, pictures, recipe, 0, 0, tmp_path / "b", watches=watches, enough=enough) == fitted
    assert len(fitted.accuracy) == (3 if watches else 1)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_what_is_frozen_is_what_the_network_computes(pictures, cut):
    model = network().eval()
    feed = MemoryFeed(model, cut, pictures, "none", 0, CPU)
    ((batch, _),) = feed.look("judged", 100)
    with torch.no_grad():
        expected = encode_prefix(model, torch.from_numpy(pictures.judged.images), cut)
    for key, value in batch.inputs.items():
        wanted = expected[key] if cut < 7 else expected[key].mean(dim=(2, 3), keepdim=True)
        assert torch.allclose(value, wanted, rtol=2e-3, atol=2e-3)


def test_activations_are_computed_once_for_trainings_that_share_them(pictures, monkeypatch):
    model = network().eval()
    calls = []

    def count(*given):
        calls.append(len(given[1]))
        return encode_prefix(*given)

    monkeypatch.setattr(memory, "encode_prefix", count)
    plain = MemoryFeed(model, 3, pictures, "none", 0, CPU)
    cached = [MemoryFeed(model, 3, pictures, "none", 0, CPU, cache_gib=1.0) for _ in range(2)]
    found = [next(iter(feed.epoch(0, 100))).inputs for feed in (plain, *cached)]
    assert sum(calls) == 2 * len(pictures.train)
    for inputs in found[1:]:
        assert all(torch.equal(inputs[key], found[0][key]) for key in found[0])
    fewer = Pictures(pictures.classes, pictures.train.take(np.arange(5)), pictures.judged)
    list(MemoryFeed(model, 3, fewer, "none", 0, CPU, cache_gib=1.0).epoch(0, 100))
    assert sum(calls) == 2 * len(pictures.train)
    other = MemoryFeed(network(1).eval(), 3, pictures, "none", 0, CPU, cache_gib=1.0)
    list(other.epoch(0, 100))
    assert sum(calls) == 3 * len(pictures.train)


def test_every_epoch_shows_each_image_once_in_a_new_order(pictures):
    feed = MemoryFeed(network(), 0, pictures, "none", 0, CPU)
    orders = [[row for batch in feed.order(epoch, 5) for row in batch] for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(48))
    assert orders[0] != orders[1]
    first = next(iter(feed.epoch(0, 5)))
    assert np.array_equal(first.inputs["images"].numpy(), pictures.train.images[orders[0][:5]])
    assert first.targets.tolist() == pictures.train.labels[orders[0][:5]].tolist()


def test_a_mirrored_view_is_the_image_or_its_mirror_image(pictures):
    feed = MemoryFeed(network(), 0, pictures, "flip", 0, CPU)
    rows = [row for batch in feed.order(0, 48) for row in batch]
    images = next(iter(feed.epoch(0, 48))).inputs["images"].numpy()
    kept = [
        np.array_equal(image, pictures.train.images[row]) for image, row in zip(images, rows, strict=True)
    ]
    turned = [
        np.array_equal(image[:, ::-1], pictures.train.images[row])
        for image, row in zip(images, rows, strict=True)
    ]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert 0 < sum(kept) < 48


def test_pictures_come_back_from_the_folder_as_they_were(pictures, tmp_path):
    digest = save_pictures(pictures, tmp_path)
    again = load_pictures(tmp_path, digest)
    assert again.digest() == digest
    assert again.train.names == pictures.train.names
    corrupt = Pictures(pictures.classes, corrupt_labels(pictures.train, 1.0, 4, 0), pictures.judged)
    assert corrupt.digest() != digest


def test_classes_are_renumbered_in_the_order_asked_for(pictures):
    part = pictures.of(("yellow", "blue"))
    assert part.classes == ("yellow", "blue")
    assert np.bincount(part.train.labels).tolist() == [12, 12]
    assert np.array_equal(part.train.images[part.train.labels == 0], pictures.train.images[36:])


def test_a_folder_is_read_whole_and_bounded_alike(colours, pictures):
    table = read_table(colours)
    found = read_pictures(table, 32, None)
    assert found.classes == pictures.classes
    assert sorted(map(bytes, found.train.images)) == sorted(map(bytes, pictures.train.images))
    few = read_pictures(table, 16, 3)
    assert few.train.images.shape == (12, 16, 16, 3)
    assert np.bincount(few.train.labels).tolist() == [3] * 4
    assert set(few.train.names) <= set(read_pictures(table, 16, None).train.names)


def test_the_same_pixels_in_other_files_have_the_same_digest_and_names(colours, tmp_path):
    other = tmp_path / "other"
    for path in colours.rglob("*.png"):
        copy = (other / path.relative_to(colours)).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy)
    first, second = (read_pictures(read_table(root), 32, None) for root in (colours, other))
    assert sorted(first.train.names) == sorted(second.train.names)
    named = [
        dict(zip(each.train.names, map(bytes, each.train.images), strict=True)) for each in (first, second)
    ]
    assert named[0] == named[1]


def test_a_val_drawn_from_train_is_trained_on_only_where_it_may_be(colours):
    (colours / "val").rename(colours / "test")
    table = read_table(colours)
    assert table.split_rule != "given"
    drawn = {table.content_hash(item) for item in table.items if item.split == "val"}
    joined, apart = read_pictures(table, 32, None), read_pictures(table, 32, None, join_val=False)
    assert len(joined.train) == 48
    assert len(apart.train) == 48 - len(drawn) < 48
    assert len(joined.judged) == len(apart.judged) == 24


def test_more_than_memory_should_hold_is_refused_with_what_fits(colours, monkeypatch):
    from surgery.study import pictures as module

    monkeypatch.setattr(module, "LARGEST_GIB", 72 * 32 * 32 * 3 / 2**30 / 2)
    with pytest.raises(ConfigError, match="--per-class 6 fits"):
        read_pictures(read_table(colours), 32, None)
