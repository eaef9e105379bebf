"""A pipeline of one's own: every form is read, every mistake is told at once, nothing is ever executed."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import yaml
from PIL import Image

from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import InputSpec
from surgery.config import CUSTOM
from surgery.data.augment import load_albumentations
from surgery.data.pipeline import check_pipeline, read_pipeline
from surgery.data.readers import read_table
from surgery.data.targets import IGNORE, resolve_target
from surgery.data.transforms import make_view, plain_view
from surgery.data.trial import try_pipeline

NATIVE = InputSpec("native")
CROP = InputSpec("crop", 32, 32)


def written(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def picture(width=60, height=44):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Images of two classes, 60×44, and one of 20×50."""
    for label, size in (("a", (60, 44)), ("b", (60, 44)), ("b", (20, 50))):
        for split in ("train", "val"):
            folder = tmp_path / "labels" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(list(folder.iterdir()))).integers(
                0, 256, (size[1], size[0], 3)
            )
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{size[0]}.png")
    return tmp_path / "labels"


@pytest.fixture
def scenes(tmp_path):
    """Images with masks of two classes, 60×44."""
    root = tmp_path / "scenes"
    root.mkdir()
    (root / "classes.txt").write_text("ground\nbox\n")
    for split in ("train", "val"):
        for folder, pixels in (("images", picture()), ("masks", picture()[:, :, 0] % 2)):
            (root / split / folder).mkdir(parents=True)
            Image.fromarray(pixels).save(root / split / folder / "0.png")
    return root


def attempt(steps, root, spec):
    table = read_table(root)
    try_pipeline(check_pipeline(steps, "mine"), spec, table, resolve_target(table))


def test_the_short_form(tmp_path):
    text = """
    - HorizontalFlip
    - VerticalFlip:
    - OneOf:
        p: 0.3
        transforms:
          - Blur: {blur_limit: [3, 5]}
          - GaussNoise: {p: 1}
    """
    assert read_pipeline(written(tmp_path, text)) == [
        {"HorizontalFlip": {}},
        {"VerticalFlip": {}},
        {"OneOf": {"p": 0.3, "transforms": [{"Blur": {"blur_limit": [3, 5]}}, {"GaussNoise": {"p": 1}}]}},
    ]


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate")
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_albumentations_writes_gives_what_albumentations_gives(tmp_path, form):
    steps = [
        A.RandomResizedCrop((32, 32), scale=(0.5, 1.0)),
        A.SafeRotate(limit=20, p=0.6),
        A.PadIfNeeded(40, 40),
        A.CenterCrop(32, 32),
        A.OneOf([A.Blur(p=0.4), A.RGBShift(p=0.6)], p=0.7),
        A.SomeOf([A.ToGray(p=1.0), A.InvertImg(p=1.0), A.CLAHE(p=1.0)], n=2, p=0.5),
        A.ShiftScaleRotate(p=0.5),  # which advertises another one
    ]
    path = tmp_path / f"mine.{form}"
    A.save(A.Compose(steps), path, data_format=form)
    view = make_view(CROP, CUSTOM, read_pipeline(path))
    theirs = A.Compose(steps)
    for seed in range(25):
        theirs.set_random_state(np.random.default_rng(seed), random.Random(seed))
        assert np.array_equal(view(picture(), None, seed)[0], theirs(image=picture())["image"])


def test_both_forms_of_one_pipeline_are_one(tmp_path):
    short = check_pipeline(
        [{"HorizontalFlip": {"p": 0.5}}, {"OneOf": {"transforms": [{"NoOp": {"p": 1.0}}], "p": 0.5}}], ""
    )
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.OneOf([A.NoOp(p=1.0)], p=0.5)])
    assert check_pipeline(A.to_dict(pipeline), "") == short
    assert check_pipeline(A.to_dict(pipeline)["transform"], "") == short
    assert check_pipeline(A.to_dict(A.HorizontalFlip(p=0.5)), "") == short[:1]
    kept = check_pipeline(A.to_dict(A.Compose([A.NoOp(p=1.0)], p=0.5)), "")
    assert kept == [{"Compose": {"p": 0.5, "transforms": [{"NoOp": {"p": 1.0}}]}}]


def test_all_mistakes_are_told_at_once(tmp_path):
    text = """
    - HorizontalFlop: {p: 0.5}
    - ImageCompression: {quality_lower: 30}
    - GaussNoise: {std_range: [0.1, 7]}
    - OneOf:
        p: 3
        transforms:
          - Blur: {blur_limit: 4}
          - Affine: {rotate: round}
    - {Blur: {}, ToGray: {}}
    - OneOf: {p: 0.5}
    - Normalize: {}
    - 7
    """
    with pytest.raises(ConfigError) as caught:
        read_pipeline(written(tmp_path, text))
    lines = caught.value.message.splitlines()
    expected = [
        "step 1, HorizontalFlop: is no transform of albumentations .* (nearest: HorizontalFlip)",
        "step 2, ImageCompression: there is no argument 'quality_lower' (nearest: quality_range); it takes compression_type",
        "step 3, GaussNoise: std_range",
        "step 4.1, Blur: blur_limit: Non-zero kernel sizes must be odd",
        "step 4.2, Affine: rotate",
        "step 4, OneOf: p is 3",
        "step 5: {'Blur': {}, 'ToGray': {}} is not",
        "step 6, OneOf: needs a list",
        "step 7, Normalize: cannot be used: the network",
        "step 8: 7 is not",
    ]
    for part in expected:
        head, _, tail = part.partition(" .* ")
        assert any(head in line and tail in line for line in lines), part
    assert all(line.startswith(f"{tmp_path / 'mine.yaml'}: step ") for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "- !!python/object/apply:os.system [touch owned]",
        "!!python/object:os.system {}",
        "- !!python/name:os.system {}",
        "- HorizontalFlip: {p: !!python/object/apply:os.getcwd []}",
        "- __class_fullname__: os.system\n  command: touch owned",
        "- __class_fullname__: albumentations.core.serialization.os.system",
        "- __class_fullname__: albumentations.load\n  filepath_or_buffer: x",
        "{transform: {__class_fullname__: subprocess.Popen, args: [touch, owned]}}",
        "- os.system: {command: touch owned}",
        "- Lambda: {image: os.system}",
        "- load: {filepath_or_buffer: x}",
        "- BasicTransform: {}",
        "- Serializable: {}",
        "- __builtins__: {}",
        "- TextImage: {font_path: /etc/passwd}",
        "- FDA: {reference_images: [/etc/passwd], read_fn: open}",
    ],
)
def test_nothing_but_a_transform_is_ever_made(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        read_pipeline(written(tmp_path, text))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "- a: [", "not plain yaml"),
        ("a.json", "{", "not plain json"),
        ("a.yaml", "\x00", "not plain yaml"),
        ("a.yaml", "", "not a list of transforms"),
        ("a.yaml", "[]", "not a list of transforms"),
        ("a.yaml", "HorizontalFlip: {p: 0.5}", "not a list of transforms"),
        ("a.yaml", "- Blur: {p: 2020-01-01}", "more than names, numbers and lists"),
        ("a.yaml", "- Blur: {p: .nan}", "more than names, numbers and lists"),
        ("a.yaml", "&a [*a]", "more than names, numbers and lists"),
    ],
)
def test_a_file_that_is_no_pipeline(tmp_path, name, text, said):
    with pytest.raises(ConfigError, match=said):
        read_pipeline(written(tmp_path, text, name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_pipeline(tmp_path / "mine.yaml")


def test_labels_start_from_the_whole_image_where_a_step_scales():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :2] = 255  # an edge that the plain view cuts off
    turned = make_view(CROP, CUSTOM, check_pipeline([{"Transpose": {"p": 1}}], ""))(image, None, 0)[0]
    assert np.array_equal(turned, plain_view(image, None, CROP)[0].transpose(1, 0, 2))
    whole = make_view(CROP, CUSTOM, check_pipeline([{"Resize": {"p": 1}}], ""))(image, None, 0)[0]
    assert whole.shape == (32, 32, 3)
    assert turned.max() == 0
    assert whole.max() == 255


@pytest.mark.parametrize("spec", [NATIVE, InputSpec("resize", 40, 24), InputSpec("crop", 32, 48)])
@pytest.mark.parametrize(
    "step", ["RandomResizedCrop", "Resize", {"RandomSizedCrop": {"min_max_height": [20, 30]}}, "RandomCrop"]
)
def test_a_size_left_out_is_the_inputs(spec, step):
    image = picture(80, 60)
    view = make_view(spec, CUSTOM, check_pipeline([step], ""))
    assert view(image, None, 0)[0].shape == plain_view(image, None, spec)[0].shape


def test_what_a_mask_shows_of_the_outside_is_ignored_unless_said():
    image, mask = picture(), np.ones((44, 60), np.uint8)
    shift = {"translate_percent": [0.3, 0.3], "p": 1}
    for more, value in (({}, IGNORE), ({"fill_mask": 0}, 0)):
        view = make_view(NATIVE, CUSTOM, check_pipeline([{"Affine": shift | more}], ""))
        assert set(np.unique(view(image, mask, 0)[1])) == {1, value}


@pytest.mark.parametrize(
    "steps",
    [
        ["RandomResizedCrop", "HorizontalFlip"],
        [{"SmallestMaxSize": {"max_size": 40, "p": 1}}, "RandomCrop"],
        ["HorizontalFlip", {"OneOf": {"transforms": ["Blur", "GaussNoise"], "p": 0.5}}],
    ],
)
def test_a_trial_lets_good_pipelines_pass(folders, steps):
    attempt(steps, folders, CROP)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"RandomResizedCrop": {"size": [48, 40]}}], "one of 40×48; the network's input is 32×32"),
        ([{"RandomCrop": {"height": 16, "width": 16, "p": 0.001}}], "one of 16×16"),
        (
            [{"Resize": {"height": 64, "width": 64}}, {"RandomCrop": {"height": 99, "width": 99}}],
            "fails on an image",
        ),
        ([{"RandomSizedCrop": {"min_max_height": [40, 44]}}, "Transpose"], ""),
        ([{"SmallestMaxSize": {"max_size": 30}}, {"CenterCrop": {"height": 32, "width": 32}}], "20×50"),
        (["RandomCropNearBBox"], "cropping_bbox"),
    ],
)
def test_a_trial_finds_what_does_not_fit(folders, steps, said):
    if not said:
        attempt(steps, folders, CROP)
        return
    with pytest.raises(ConfigError, match=said):
        attempt(steps, folders, CROP)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"Affine": {"rotate": [5, 30], "mask_interpolation": 1}}], "values that stand for no class"),
        (
            [{"Affine": {"translate_percent": 0.3, "fill_mask": 2}}],
            "values that stand for no class, such as 2",
        ),
        ([{"Transpose": {"p": 0.01}}], "one of 44×60"),
        ([{"Affine": {"rotate": [5, 30]}}, {"Perspective": {"fill_mask": 1}}], ""),
        ([{"Affine": {"rotate": [5, 30], "mask_interpolation": 1, "p": 0}}], ""),
    ],
)
def test_a_trial_knows_masks(scenes, steps, said):
    if not said:
        attempt(steps, scenes, NATIVE)
        return
    with pytest.raises(ConfigError, match=said):
        attempt(steps, scenes, NATIVE)


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate")
def test_a_transform_that_advertises_another_is_quiet_in_training():
    view = make_view(CROP, CUSTOM, check_pipeline([{"ShiftScaleRotate": {"p": 1}}], ""))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_albumentations.cache_clear()  # as in a fresh process, outside of pytest's own filters
        view(picture(), None, 0)
    assert not caught


def test_the_example_of_the_guide_runs(tmp_path, folders):
    guide = Path(__file__).resolve().parents[2] / "docs" / "finetune.md"
    blocks = guide.read_text("utf-8").split("```yaml\n")[1:]
    assert len(blocks) == 1
    text = blocks[0].split("```")[0]
    steps = read_pipeline(written(tmp_path, text))
    assert len(steps) >= 3
    attempt(steps, folders, CROP)
    assert yaml.safe_load(text) == steps == json.loads(json.dumps(steps))
