"""A pipeline of one's own through the whole line: the version repeats it when the file is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from running import TINY, Surgery
from safetensors.numpy import load_file

from surgery.artifact.store import Store

OPTIONS = (*TINY, "--strategy", "random", "--image-size", "32", "--epochs", "1", "--batch-size", "20")
MINE = "- RandomResizedCrop: {scale: [0.6, 1.0]}\n- OneOf:\n    transforms: [Blur, {GaussNoise: {}}]\n    p: 0.9\n"


def test_a_version_holds_the_pipeline_itself(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE)
    first = surgery("finetune", zeros_and_ones, "--name", "own", *OPTIONS, "--augment", mine)
    assert first.code == 0, first.err
    assert "augmentation of your own (RandomResizedCrop, OneOf(Blur, GaussNoise))" in first.err
    recipe = Store().resolve("own@1").path / "recipe.yaml"
    kept = yaml.safe_load(recipe.read_text("utf-8"))
    assert kept["augment"] == "custom"
    assert str(mine) not in recipe.read_text("utf-8")
    mine.unlink()
    again = surgery("finetune", "--recipe", recipe)
    assert again.code == 0, again.err
    one, other = (load_file(Store().resolve(f"own@{n}").path / "weights.safetensors") for n in (1, 2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_mistakes_end_a_run_before_anything_is_read(rooms: Path, surgery: Surgery, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("- HorizontalFlop: {}\n- Blur: {blur: 3}\n")
    ran = surgery("finetune", tmp_path / "no-data", "--name", "own", *OPTIONS, "--augment", mine, "--json")
    assert ran.code == 2
    for part in (
        "step 1, HorizontalFlop",
        "nearest: HorizontalFlip",
        "step 2, Blur",
        "it takes blur_limit, p",
    ):
        assert part in ran.err
    assert not (rooms / "runs").exists()


def test_a_run_is_not_resumed_with_other_steps(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery, tmp_path: Path, monkeypatch
) -> None:
    from surgery.train import engine

    mine = tmp_path / "mine.yaml"
    mine.write_text("- HorizontalFlip: {p: 0.5}\n")
    command = ("finetune", zeros_and_ones, "--name", "own", *OPTIONS, "--augment", mine)

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine.Loop, "run", stop)
        assert surgery(*command).code == 1
    mine.write_text("- HorizontalFlip: {p: 0.4}\n")
    refused = surgery(*command, "--resume")
    assert refused.code == 2
    assert "pipeline: the run has" in refused.err
    mine.write_text("[{HorizontalFlip: {p: 0.5}}]\n")  # the same, written otherwise
    assert surgery(*command, "--resume").code == 0
