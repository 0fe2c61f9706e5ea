"""The sweep that makes a table: a limit for each run, every seed at given rates, further seeds near the best."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from rightbatch.bundled.quadratic import quadratic
from rightbatch.cli import main
from rightbatch.errors import InputError
from rightbatch.pipeline.sweep import sweep
from rightbatch.records import Point, Run, StepTime, StopReason
from rightbatch.store import Study

SIZES, RATES = (16, 64), (0.3162, 10.0)
STEP_SECONDS = {16: 0.5, 64: 1.0}
"""Not measured, so that no test hangs on the clock: at rate 10 a run diverges."""


@pytest.fixture
def step_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(study: Study, runner: Any, batch_sizes: Any) -> None:
        for size in batch_sizes:
            study.add_step_time(StepTime(size, (STEP_SECONDS[size],), (0.0,)), runner.environment)

    monkeypatch.setattr("rightbatch.pipeline.sweep.measure_step_times", known)


def table(path: Path, **changes: Any) -> tuple[tuple[Run, ...], str]:
    """The runs of a sweep into a study, and the protocol of its answer."""
    usual: dict[str, Any] = {"rates": RATES, "seeds": 2, "planned_examples": 8000, "run_seconds": 40.0, "target": 0.3}
    answer = sweep(quadratic(), SIZES, study=path, **{**usual, **changes})
    with Study.open(path) as study:
        return study.runs(), answer.protocol


@pytest.mark.usefixtures("step_times")
def test_each_run_is_stopped_at_its_first_rung_at_or_beyond_the_limit_or_diverges(tmp_path: Path) -> None:
    runs, protocol = table(tmp_path / "a.study.db")
    assert protocol == (
        "every batch size with 2 seeds, rates at given rates; runs went to: horizon, or 40 training seconds"
    )
    cells = [(run.trial.batch_size, run.trial.learning_rate, run.trial.seed) for run in runs]
    assert len(cells) == len(set(cells)) == len(SIZES) * len(RATES) * 2
    for run in runs:
        assert run.stop is not None
        if run.trial.learning_rate == 10.0:
            assert run.stop.reason is StopReason.DIVERGED
            continue
        assert run.stop.reason is StopReason.STOPPED_BY_RULE
        assert run.stop.message == "trained for the 40 s that a run was given"
        *before, last = (point.step * STEP_SECONDS[run.trial.batch_size] for point in run.points)
        assert max(before) < 40 <= last


@pytest.mark.usefixtures("step_times")
def test_seeds_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    runs, protocol = table(path, seeds=(5, 7), rates=(0.3162,), contender_seeds=3)
    assert {run.trial.seed for run in runs} == {5, 7, 8}
    assert protocol.startswith("every batch size with 2 seeds")
    more, _ = table(path, seeds=[0], rates=(0.3162,))
    assert {run.trial.seed for run in more} == {0, 5, 7, 8}


@pytest.mark.usefixtures("step_times")
def test_the_same_sweep_again_runs_nothing_and_one_with_further_seeds_only_those(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    first, _ = table(path)
    assert table(path)[0] == first
    again, protocol = table(path, contender_seeds=4, contender_factor=1.5)
    assert protocol.endswith("; 4 seeds in all within 1.5 times the best cost")
    assert again[: len(first)] == first
    further = Counter((run.trial.batch_size, run.trial.learning_rate) for run in again[len(first) :])
    assert further
    assert set(further.values()) == {2}
    assert {run.trial.seed for run in again[len(first) :]} == {2, 3}
    assert set(further) < set(itertools.product(SIZES, RATES))


def test_a_limit_is_refused_where_only_the_ends_of_runs_count(tmp_path: Path) -> None:
    def schedule(optimizer: Any, trial: Any) -> Any:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.planned_steps)

    cosine = replace(quadratic(), schedule=schedule)
    with pytest.raises(InputError, match="only the ends of runs count: --run-seconds 40 would stop them before"):
        sweep(cosine, SIZES, study=tmp_path / "a.study.db", rates=RATES, run_seconds=40.0)
    with pytest.raises(InputError, match="--until target would stop them before"):
        sweep(cosine, SIZES, study=tmp_path / "a.study.db", rates=RATES, until="target")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"run_seconds": 0.0}, "positive number of training seconds, got run_seconds=0"),
        ({"run_seconds": float("nan")}, "got run_seconds=nan"),
        ({"seeds": 0}, "at least one seed"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"seeds": 3, "contender_seeds": 2}, "contender_seeds=2 is fewer than the 3 seeds"),
        ({"contender_seeds": 6, "contender_factor": 0.5}, "got contender_factor=0.5"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_anything_is_done(
    wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        sweep(quadratic(), SIZES, study=tmp_path / "a.study.db", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("step_times")
def test_the_command_line_has_the_same_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand, protocol = table(tmp_path / "by_hand.study.db", contender_seeds=3, contender_factor=1.5)
    typed = tmp_path / "typed.study.db"
    words = "rightbatch sweep quadratic --batch-sizes 16,64 --rates 0.3162,10 --seeds 2 --planned-examples 8000"
    words += " --target 0.3 --run-seconds 40 --contender-seeds 3 --contender-factor 1.5 --study"
    monkeypatch.setattr(sys, "argv", [*words.split(), str(typed)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    with Study.open(typed) as study:
        runs = study.runs()
        (answer,) = study.answers()
    assert protocol in str(answer)
    assert [(r.trial, r.stop, len(r.points)) for r in runs] == [(r.trial, r.stop, len(r.points)) for r in by_hand]


def test_patience_in_epochs_is_that_many_examples_of_the_data(tmp_path: Path) -> None:
    def train(trial: Any) -> Any:
        for step in range(1, 101):
            yield Point(step, valid_loss=1.0 if step < 5 else 0.1)

    how: dict[str, Any] = {"rates": [0.1], "seeds": 1, "until": "patience", "patience": 2, "target": 0.5}
    for unit, patience, more in (("epochs", 2, {"train_examples": 80}), ("examples", 160, {})):
        study = tmp_path / f"{unit}.study.db"
        how |= {"patience": patience, "patience_unit": unit, "study": study}
        sweep(train, [8], **how, **more)
        with Study.open(study) as kept:
            (run,) = kept.runs()
        assert run.points[-1].step == 25  # the best is at 5, and 160 examples are 20 steps
    with pytest.raises(InputError, match="--train-examples"):
        sweep(train, [8], **{**how, "patience_unit": "epochs", "study": tmp_path / "none.study.db"})
