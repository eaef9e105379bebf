"""Linear CKA: known answers, what it does not see, and the formula as it stands in the paper."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.artifact.errors import ConfigError
from surgery.study.cka import LinearCKA, hsic_triple, linear_cka


def features(seed: int, n: int, p: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, p)).astype(np.float32)


def naive_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Eq. 5 of Song et al. 2012, matrix by matrix."""
    n = len(x)
    K, L = (each.astype(np.float64) @ each.T.astype(np.float64) for each in (x, y))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones((n, 1))
    trace = np.trace(K @ L)
    middle = (one.T @ K @ one).item() * (one.T @ L @ one).item() / ((n - 1) * (n - 2))
    last = 2 / (n - 2) * (one.T @ K @ L @ one).item()
    return (trace + middle - last) / (n * (n - 3))


@pytest.mark.parametrize(("n", "p"), [(4, 3), (5, 40), (30, 3), (30, 200)])
def test_features_are_like_themselves_exactly(n: int, p: int) -> None:
    x = features(0, n, p)
    assert linear_cka(x, x) == 1.0


@pytest.mark.parametrize("p", [5, 100])
def test_rotation_scale_and_shift_change_nothing(p: int) -> None:
    x, y = features(1, 24, p), features(2, 24, 7)
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((p, p)))
    assert linear_cka(x, 3 * x @ turn + 100) == pytest.approx(1, abs=1e-4)
    assert linear_cka(x @ turn, y) == pytest.approx(linear_cka(x, y), abs=1e-5)


def test_another_linear_map_does_change_it() -> None:
    x = features(1, 40, 6)
    assert linear_cka(x, x * np.array([10, 1, 1, 1, 1, 1])) < 0.9


def test_unrelated_features_are_at_zero_on_average_however_many_there_are() -> None:
    """The biased estimator would say about 0.8 of 8 images with 200 features each."""
    values = [linear_cka(features(2 * k, 8, 200), features(2 * k + 1, 8, 200)) for k in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


@pytest.mark.parametrize(("p", "q"), [(3, 4), (100, 4), (300, 200)])
def test_both_ways_of_reckoning_are_the_formula(p: int, q: int) -> None:
    x, y = features(4, 20, p) + 5, features(5, 20, q) - 2
    wanted = naive_hsic(x, y), naive_hsic(x, x), naive_hsic(y, y)
    np.testing.assert_allclose(hsic_triple(x, y), wanted, rtol=1e-8, atol=1e-8)


def test_minibatches_add_up_to_the_quotient_of_the_means() -> None:
    pairs = [(features(k, 8, 12), features(k + 50, 8, 9)) for k in range(3)]
    whole = LinearCKA()
    for x, y in pairs:
        whole.add(x, y)
    means = np.mean([[naive_hsic(x, y), naive_hsic(x, x), naive_hsic(y, y)] for x, y in pairs], axis=0)
    assert whole.value == pytest.approx(means[0] / np.sqrt(means[1] * means[2]))
    assert whole.images == 24


def test_one_minibatch_of_all_is_all_at_once() -> None:
    x, y = features(6, 16, 10), features(7, 16, 10)
    whole = LinearCKA()
    whole.add(x, y)
    assert whole.value == linear_cka(x, y)


def test_small_batches_stay_finite_and_within_bounds() -> None:
    for k in range(50):
        value = linear_cka(features(k, 4, 3), features(k + 100, 4, 3))
        assert -1 <= value <= 1


def test_features_that_never_vary_are_like_nothing_but_their_kind() -> None:
    still, x = np.ones((6, 3)), features(8, 6, 3)
    assert (linear_cka(still, x), linear_cka(still, 2 * still)) == (0.0, 1.0)


def test_too_few_images_and_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs 4"):
        linear_cka(features(0, 3, 2), features(1, 3, 2))
    with pytest.raises(ConfigError, match="same images"):
        linear_cka(features(0, 5, 2), features(1, 6, 2))
    with pytest.raises(ConfigError, match="there is none"):
        _ = LinearCKA().value
