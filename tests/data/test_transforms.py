"""Views: the plain one is the service's, augmented ones follow their seed and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from surgery.artifact.errors import ConfigError
from surgery.artifact.image import prepare_image
from surgery.artifact.manifest import InputSpec
from surgery.data.transforms import make_view, plain_view, prepare_mask

SPECS = [
    InputSpec("native"),
    InputSpec("native", max_pixels=900),
    InputSpec("resize", 40, 24),
    InputSpec("crop", 32, 32),
]


def picture(width=60, height=44):
    """Return smooth noise, so that resampling keeps what is where."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    channels = [np.sin(x / 9 + i) * np.cos(y / 7 - i) for i in range(3)]
    return ((np.stack(channels, axis=2) + 1) * 127).astype(np.uint8)


def digest(view):
    image, mask = view
    return hashlib.sha256(image.tobytes() + (b"" if mask is None else mask.tobytes())).hexdigest()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("augment", ["none", "flip", "light"])
def test_the_plain_view_is_what_the_service_prepares(spec, augment):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8)
    seen, target = make_view(spec, augment)(image, mask, 5, plain=True)
    assert np.array_equal(seen, prepare_image(image, spec))
    assert target.shape == seen.shape[:2]


@pytest.mark.parametrize("spec", SPECS)
def test_a_mask_is_cut_and_scaled_as_its_image_is(spec):
    # A mask that is its image's own threshold must still be so after both were prepared.
    y, x = np.mgrid[:88, :120]
    mask = ((x - 70) ** 2 + (y - 30) ** 2 < 500).astype(np.uint8)
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    prepared = prepare_image(image, spec)[:, :, 0]
    target = prepare_mask(mask, spec)
    assert ((prepared > 127) != target).mean() < 0.012


@pytest.mark.parametrize("spec", SPECS)
def test_flip_is_the_plain_view_mirrored(spec):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8)
    plain, flipped = plain_view(image, mask, spec), make_view(spec, "flip")(image, mask, 1)
    assert np.array_equal(flipped[0], plain[0][:, ::-1])
    assert np.array_equal(flipped[1], plain[1][:, ::-1])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("with_mask", [True, False])
def test_light_keeps_the_size_and_follows_the_seed(spec, with_mask):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8) if with_mask else None
    view = make_view(spec, "light")
    first = [digest(view(image, mask, seed)) for seed in range(12)]
    again = [digest(make_view(spec, "light")(image, mask, seed)) for seed in reversed(range(12))]
    assert first == again[::-1]
    assert len(set(first)) == 12
    seen, _ = view(image, mask, 3)
    assert seen.shape == prepare_image(image, spec).shape


def test_light_moves_a_mask_with_its_image():
    y, x = np.mgrid[:88, :120]
    mask = ((x - 70) ** 2 + (y - 40) ** 2 < 700).astype(np.uint8)
    image = np.repeat(mask[..., None] * 200 + 20, 3, axis=2).astype(np.uint8)
    view = make_view(InputSpec("native"), "light")
    moved = 0
    for seed in range(20):
        seen, target = view(image, mask, seed)
        assert ((seen[:, :, 1] > 115) != target).mean() < 0.02
        moved += int((target != mask).any())
    assert moved > 10


def test_threads_do_not_disturb_each_other():
    image, view = picture(), make_view(InputSpec("crop", 32, 32), "light")
    alone = [digest(view(image, None, seed)) for seed in range(60)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda seed: digest(view(image, None, seed)), range(60)))
    assert together == alone


def test_another_process_makes_the_same_bytes_and_asks_no_index():
    code = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}; import hashlib, numpy as np\n"
        "from surgery.artifact.manifest import InputSpec\n"
        "from surgery.data.transforms import make_view\n"
        "image = (np.arange(30 * 40 * 3) % 251).astype(np.uint8).reshape(30, 40, 3)\n"
        "view = make_view(InputSpec('crop', 32, 32), 'light')(image, None, 9)\n"
        "import os; assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n"
        "print(hashlib.sha256(view[0].tobytes()).hexdigest())"
    )
    env = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    image = (np.arange(30 * 40 * 3) % 251).astype(np.uint8).reshape(30, 40, 3)
    assert told.stdout.strip() == digest(make_view(InputSpec("crop", 32, 32), "light")(image, None, 9))


def test_flips_and_light_are_drawn_independently():
    # Mirrored and not, an image must be brightened and darkened alike.
    image = np.full((40, 40, 3), 100, np.uint8)
    image[:, :20] = 160
    view, seen = make_view(InputSpec("resize", 40, 40), "light"), set()
    for seed in range(200):
        out, _ = view(image, None, seed)
        left, right = out[:, :4].mean(), out[:, -4:].mean()
        if abs(left - right) > 20:
            seen.add((left > right, out.mean() > 132))
    assert len(seen) == 4


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000)])
@pytest.mark.parametrize("with_mask", [True, False])
def test_the_oddest_sizes_pass(size, with_mask):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    mask = np.zeros(size[::-1], np.uint8) if with_mask else None
    seen, _ = make_view(InputSpec("crop", 32, 32), "light")(image, mask, 0)
    assert seen.shape == (32, 32, 3)


def test_an_unknown_augmentation_names_all():
    with pytest.raises(ConfigError, match="none, flip, light, medium, heavy, domain"):
        make_view(InputSpec("native"), "much")
