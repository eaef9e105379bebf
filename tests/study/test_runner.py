"""The runner of a study: nothing is run twice, nothing that has ended is lost, and who runs it changes nothing."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from surgery.artifact.errors import ConfigError
from surgery.study import runner
from surgery.study.fitting import Recipe
from surgery.study.pictures import save_pictures
from surgery.study.runner import answer_one, check_backend, find_answer, key_of, run_all
from surgery.study.transfer import list_bases, list_trainings, run_transfer
from surgery.train.reporting import Reporter

PLAIN = Recipe(1)


@dataclass(frozen=True)
class Square:
    """A training that is none."""

    number: int
    recipe: Recipe = PLAIN


def square(training: Square, folder: Path) -> dict[str, int]:
    """Answer, and leave a mark each time."""
    with (folder.parent / "ran.txt").open("a") as file:
        file.write(f"{training.number}\n")
    return {"square": training.number**2}


def stumble(training: Square, folder: Path) -> dict[str, int]:
    """Be stopped at the third."""
    if training.number == 3:
        raise KeyboardInterrupt
    return square(training, folder)


def ran(folder: Path) -> list[int]:
    return sorted(map(int, (folder / "ran.txt").read_text().split()))


SQUARES = [Square(k) for k in (1, 2, 3, 4)]


def test_answers_come_in_the_order_of_the_list_and_once(tmp_path):
    found = run_all([*SQUARES, Square(2)], square, tmp_path, Reporter())
    assert list(found.items()) == [(Square(k), {"square": k * k}) for k in (1, 2, 3, 4)]
    assert run_all(SQUARES[::-1], square, tmp_path, Reporter()) == found
    assert ran(tmp_path) == [1, 2, 3, 4]


def test_a_stopped_study_keeps_what_had_ended_and_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_all(SQUARES, stumble, tmp_path, Reporter())
    assert [find_answer(each, tmp_path) is not None for each in SQUARES] == [True, True, False, False]
    run_all(SQUARES, square, tmp_path, Reporter())
    assert ran(tmp_path) == [1, 2, 3, 4]


def test_a_request_to_stop_ends_the_study_after_a_training(tmp_path, monkeypatch):
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "raise_if_requested", stop)
    with pytest.raises(KeyboardInterrupt):
        run_all(SQUARES, square, tmp_path, Reporter())
    assert ran(tmp_path) == [1]


def test_a_widened_study_runs_only_what_is_new(tmp_path):
    run_all(SQUARES[:2], square, tmp_path, Reporter())
    wide = [*SQUARES, Square(1, Recipe(2))]
    assert len(run_all(wide, square, tmp_path, Reporter())) == 5
    assert ran(tmp_path) == [1, 1, 2, 3, 4]


def test_an_answer_is_one_file_beside_what_it_was_asked(tmp_path):
    answer_one(SQUARES[0], square, tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - {"room"}
    assert left == {f"{key_of(SQUARES[0])}.json", "ran.txt"}
    held = json.loads((tmp_path / f"{key_of(SQUARES[0])}.json").read_text())
    assert held["training"]["number"] == 1
    assert held["answer"] == {"square": 1}


def test_a_training_that_another_study_has_ended_meanwhile_is_not_run_again(tmp_path):
    names = {answer_one(SQUARES[0], square, tmp_path) for _ in range(2)}
    assert names == {key_of(SQUARES[0])}
    assert ran(tmp_path) == [1]


def test_two_studies_at_the_same_training_run_it_once_and_leave_the_answer_alone(tmp_path):
    begun, go_on, study = threading.Event(), threading.Event(), tmp_path / "study"

    def wait(training: Square, folder: Path) -> dict[str, int]:
        begun.set()
        assert go_on.wait(20)
        assert folder.is_dir()
        return square(training, folder)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(answer_one, SQUARES[0], wait, study)
        assert begun.wait(20)
        others = [pool.submit(answer_one, SQUARES[0], square, study) for _ in range(2)]
        go_on.set()
        assert {each.result(20) for each in (first, *others)} == {key_of(SQUARES[0])}
    assert ran(study) == [1]
    assert {path.name for path in study.iterdir()} == {f"{key_of(SQUARES[0])}.json", "ran.txt"}


def test_a_stopped_training_keeps_its_checkpoints_and_a_room_beside_an_answer_goes(tmp_path):
    def stop(training: Square, folder: Path) -> dict[str, int]:
        (folder / "checkpoint").touch()
        raise KeyboardInterrupt

    room = tmp_path / f"{key_of(SQUARES[0])}.run"
    with pytest.raises(KeyboardInterrupt):
        answer_one(SQUARES[0], stop, tmp_path)
    assert (room / "checkpoint").exists()
    answer_one(SQUARES[0], square, tmp_path)
    assert not room.exists()
    room.mkdir()  # as a kill between the answer and the removal leaves it
    answer_one(SQUARES[0], stop, tmp_path)
    assert not room.exists()


def test_every_input_counts_for_the_key(monkeypatch):
    recipe = Recipe(3)
    others = [
        replace(recipe, **{name: value})
        for name, value in (
            ("epochs", 4), ("batch_size", 9), ("lr", 0.5), ("kept_share", 0.5), ("weight_decay", 0.5),
            ("dropout", 0.5), ("augment", "light"), ("device", "cpu"),
        )
    ]  # fmt: skip
    keys = {key_of(Square(1, each)) for each in (recipe, *others)} | {key_of(Square(2, recipe))}
    assert len(keys) == 10
    monkeypatch.setattr(runner, "SCHEMA", runner.SCHEMA + 1)
    assert key_of(Square(1, recipe)) not in keys


def test_two_jobs_answer_as_one_does(tmp_path, pictures):
    answers = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        digest = save_pictures(pictures, folder)
        bases = list_bases(digest, "yosinski_small", [(("blue", "red"), ("green", "yellow"))], Recipe(1, 8))
        found = run_all(bases, run_transfer, folder, Reporter(), jobs)
        some = list_trainings(bases, (3,))[::2]
        answers.append(found | run_all(some, run_transfer, folder, Reporter(), jobs))
    assert answers[0] == answers[1]


def test_a_cluster_answers_as_this_machine_does(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        found = run_all(SQUARES, square, tmp_path, Reporter(), 2, "dask")
    assert found == {each: {"square": each.number**2} for each in SQUARES}
    assert ran(tmp_path) == [1, 2, 3, 4]


def test_workers_that_would_share_a_random_state_are_refused(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster),
        pytest.raises(ConfigError, match="--nthreads 1"),
    ):
        run_all(SQUARES, square, tmp_path, Reporter(), 1, "dask")


def test_an_error_of_a_training_is_told(tmp_path):
    def fail(training: Square, folder: Path) -> dict[str, int]:
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing"):
        run_all(SQUARES, fail, tmp_path, Reporter())


def test_a_backend_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="there is loky, dask, ray"):
        check_backend("slurm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"ray is not installed\npip install 'ray\[default\]'"):
        check_backend("ray")


def test_dask_without_a_cluster_says_how_to_name_one(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="set DASK_SCHEDULER_ADDRESS"):
        run_all(SQUARES, square, tmp_path, Reporter(), 1, "dask")
