"""The folder of a run: a resumed run is refused other data, and told what is otherwise."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from png_files import write_png

from surgery.artifact.errors import ConfigError, DataError, WeightsError
from surgery.artifact.image import read_image
from surgery.config import FinetuneConfig
from surgery.data.readers import read_table
from surgery.data.record import describe_change, record_data
from surgery.train import run
from surgery.train.run import DATA_FILE, RUN_FILE, open_run


@pytest.fixture
def begun(stripes: Path, rooms: Path) -> FinetuneConfig:
    config = FinetuneConfig(str(stripes), "lines")
    assert not open_run(config, read_table(stripes), None, False).resumed
    return config


def go_on(config: FinetuneConfig, **table):
    return open_run(config, replace(read_table(Path(config.data)), **table), None, True)


def refusal(config: FinetuneConfig) -> list[str]:
    with pytest.raises(DataError) as caught:
        go_on(config)
    first, *rest = caught.value.message.splitlines()
    assert "the data has changed since" in first
    assert "leave --resume out" in caught.value.hint
    return rest


def test_the_same_data_goes_on_elsewhere_too(begun, stripes, tmp_path):
    assert go_on(begun).resumed
    shutil.copytree(stripes, tmp_path / "copy")
    assert open_run(begun, read_table(tmp_path / "copy"), None, True).resumed


def add(root: Path) -> None:
    for k in range(7):
        write_png(root / "train" / "lying" / f"new{k}.png", read_image(root / "val/lying/0.png") // (k + 2))


def change(root: Path) -> None:
    write_png(root / "train" / "lying" / "3.png", 255 - read_image(root / "train/lying/3.png"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (add, ["7 images added: " + ", ".join(f"train/lying/new{k}.png" for k in range(5)) + " and 2 more"]),
        (lambda root: (root / "val/lying/0.png").unlink(), ["1 image removed: val/lying/0.png"]),
        (change, ["1 image changed: train/lying/3.png"]),
        (
            lambda root: (root / "train/lying/3.png").rename(root / "train/standing/x.png"),
            ["1 image with other labels or masks: train/standing/x.png"],
        ),
        (
            lambda root: (root / "train/lying/3.png").rename(root / "val/lying/x.png"),
            ["1 image on another side of the split: val/lying/x.png (train → val)"],
        ),
        (
            lambda root: (root / "train/lying/3.png").rename(root / "train/lying/x.png"),
            ["1 image renamed: train/lying/3.png → train/lying/x.png"],
        ),
        (
            lambda root: [folder.rename(folder.parent / "upright") for folder in root.glob("*/standing")],
            [
                "36 images with other labels or masks: train/upright/0.png, train/upright/1.png",
                "classes: upright is new, standing is gone",
            ],
        ),
    ],
)
def test_what_has_changed_is_said(begun, stripes, spoil, said):
    spoil(stripes)
    found = refusal(begun)
    assert len(found) == len(said)
    for line, wanted in zip(found, said, strict=True):
        assert line.startswith(wanted.replace("36", "18"))


def test_masks_and_values(boxes, rooms):
    before = record_data(read_table(boxes))
    mask = boxes / "train/masks/3.png"
    write_png(mask, read_image(mask)[..., 0] * 0)
    assert describe_change(before, record_data(read_table(boxes))) == [
        "1 image with other labels or masks: train/images/3.png"
    ]
    table = replace(read_table(boxes), ignored_values=(255,))
    assert describe_change(before, record_data(table))[-1] == "mask values left out: [] then, [255] now"
    (boxes / "classes.txt").write_text("ground\nvoid\nbox\n")
    assert describe_change(before, record_data(read_table(boxes)))[-1] == "classes: the same in another order"


def test_images_that_are_alike_are_not_taken_for_each_other(stripes):
    before = record_data(read_table(stripes))
    for name in ("a", "b"):
        shutil.copy(stripes / "train/lying/3.png", stripes / f"train/lying/{name}.png")
    (stripes / "train/lying/3.png").unlink()
    assert describe_change(before, record_data(read_table(stripes))) == [
        "2 images added: train/lying/a.png, train/lying/b.png",
        "1 image removed: train/lying/3.png",
    ]


def test_several_labels_are_compared_by_name(stripes):
    table = read_table(stripes)
    several = replace(table, items=tuple(replace(i, label=None, labels=(i.label,)) for i in table.items))
    assert describe_change(record_data(several), record_data(table)) == []
    fewer = replace(several, items=(replace(several.items[0], labels=()), *several.items[1:]))
    assert len(describe_change(record_data(several), record_data(fewer))) == 1


def test_a_run_of_an_older_version_says_that_much(begun, stripes, rooms):
    for path in (rooms / "runs").glob(f"*/{DATA_FILE}"):
        path.unlink()
    assert go_on(begun).resumed
    change(stripes)
    assert refusal(begun) == []


def test_options_and_weights_are_compared_too(begun, stripes):
    with pytest.raises(ConfigError, match="seed: the run has 0, the command 1"):
        go_on(replace(begun, seed=1))
    with pytest.raises(WeightsError):
        open_run(begun, read_table(stripes), "0" * 64, True)
    assert go_on(replace(begun, workers=1)).resumed


HOLD = """
import sys
from pathlib import Path
from surgery.config import FinetuneConfig
from surgery.data.readers import read_table
from surgery.train.run import open_run
try:
    run = open_run(FinetuneConfig(sys.argv[1], "lines"), read_table(Path(sys.argv[1])), None, True)
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print(run.resumed, flush=True)
    sys.stdin.read()
"""


def elsewhere(config: FinetuneConfig) -> tuple[str, subprocess.Popen[str]]:
    """Resume in another process; returns what it says, and the process, which stays in the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, config.data], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    return process.stdout.readline().strip(), process


def test_a_run_at_work_is_joined_by_no_other_process(begun, stripes):
    said, process = elsewhere(begun)
    process.communicate()
    assert said == "ConfigError"
    with pytest.raises(ConfigError, match="seed: the run has"):
        go_on(replace(begun, seed=1))  # lets go of it
    said, process = elsewhere(begun)
    assert said == "True"
    with pytest.raises(ConfigError, match="is at work in another process"):
        go_on(begun)
    assert not open_run(begun, read_table(stripes), None, False).resumed
    process.kill()
    process.communicate()


def test_a_killed_process_leaves_no_lock_and_a_finished_run_none_either(begun, rooms):
    go_on(begun).finish()
    (folder,) = (rooms / "runs").iterdir()
    values = json.loads((folder / RUN_FILE).read_text())
    (folder / RUN_FILE).write_text(json.dumps(values | {"state": "unfinished"}))
    said, process = elsewhere(begun)
    assert said == "True"
    process.kill()
    process.communicate()
    assert go_on(begun).resumed
    assert go_on(begun).resumed


@pytest.mark.parametrize("file", [DATA_FILE, RUN_FILE])
def test_on_a_full_disk_no_run_is_begun(stripes, rooms, monkeypatch, file):
    config, write = FinetuneConfig(str(stripes), "lines"), run._write

    def full(path, *given, **named):
        if path.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, *given, **named)

    monkeypatch.setattr(run, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        open_run(config, read_table(stripes), None, False)
    assert list((rooms / "runs").iterdir()) == []


def test_the_record_is_small_and_plain(begun, rooms):
    (path,) = (rooms / "runs").glob(f"*/{DATA_FILE}")
    values = json.loads(path.read_text())
    assert len(values["images"]) == 36
    assert path.stat().st_size < 36 * 100
