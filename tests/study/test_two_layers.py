"""The built network of 2n + d weights fits any labels."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.artifact.errors import DataError
from surgery.study.two_layers import build_two_layers


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (50, 5), (1000, 48)])
def test_it_fits_any_labels(n, d):
    rng = np.random.default_rng(n)
    points = rng.standard_normal((n, d))
    network = build_two_layers(points, labels := rng.standard_normal(n))
    assert network.size == 2 * n + d
    assert network(points) == pytest.approx(labels, abs=1e-8)


def test_class_labels_come_back_exactly_from_images():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 256, (800, 3 * 8 * 8)) / 255
    labels = rng.integers(10, size=800)
    assert np.array_equal(np.rint(build_two_layers(points, labels)(points)), labels)


def test_it_is_two_layers_of_relu():
    rng = np.random.default_rng(1)
    points, labels = rng.standard_normal((20, 4)), rng.standard_normal(20)
    network = build_two_layers(points, labels)
    point = rng.standard_normal(4)
    by_hand = sum(
        w * max(float((network.direction * point).sum()) - b, 0.0)
        for w, b in zip(network.weights, network.biases, strict=True)
    )
    assert network(point[None])[0] == pytest.approx(by_hand)
    assert (np.diff(network.biases) > 0).all()


def test_points_that_are_the_same_are_refused():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]])
    with pytest.raises(DataError, match="are the same"):
        build_two_layers(points, np.array([0.0, 1.0, 2.0]))
