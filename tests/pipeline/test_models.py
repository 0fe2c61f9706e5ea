"""Weights that are kept: they load, they are those of the evaluation that they say, and only what may win stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from rightbatch import curves, find
from rightbatch.bundled.digits import digits
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import InputError, StudyError
from rightbatch.evaluation import Evaluator
from rightbatch.evidence import Evidence
from rightbatch.pipeline import desk
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.desk import weights_path
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.models import KEPT_CELLS, MAY_WIN, models_folder, prune, pruning, winner
from rightbatch.pipeline.setting_up import gather, question
from rightbatch.recommend import recommend
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial
from rightbatch.search.strategy import fixed
from rightbatch.store import Study
from rightbatch.weights import KeptWeights
from rightbatch.workers import Workers

PLANNED = 8_000
DIGITS = digits()
HIGH_RATE = Trial(64, 1.0, 0, PLANNED)
"""At this rate the validation loss goes up and down: its best evaluation is not the last."""


@pytest.fixture(scope="module", params=["best", "last"])
def keep(request: pytest.FixtureRequest) -> Any:
    return request.param


def value_of(path: Path, quantity: str = "valid_loss") -> float:
    """What the model with the weights of a file is worth on the validation data."""
    model = DIGITS.model()
    model.load_state_dict(torch.load(path, weights_only=True))
    loss, metric = Evaluator(DIGITS, DIGITS.source("valid"))(model)
    return float(loss if quantity == "valid_loss" else metric)


def kept_value(points: tuple[Point, ...], keep: str) -> float:
    losses = [point.valid_loss for point in points if point.valid_loss is not None]
    return min(losses) if keep == "best" else losses[-1]


def points_of(run: Any) -> tuple[Point, ...]:
    points = []
    while isinstance(outcome := run.advance(), Point):
        points.append(outcome)
    return tuple(points)


def test_a_file_gives_the_value_of_its_evaluation(keep: Any, tmp_path: Path) -> None:
    run = WorkloadRunner(DIGITS, keep).start(HIGH_RATE)
    points = points_of(run)
    path = tmp_path / "folder" / "weights.pt"
    assert run.write_weights(path) is True
    assert value_of(path) == pytest.approx(kept_value(points, keep), rel=1e-6)
    assert abs(kept_value(points, "best") - kept_value(points, "last")) > 1e-3  # so the two are told apart
    assert [file.name for file in path.parent.iterdir()] == ["weights.pt"]


def test_in_the_middle_of_a_run_they_are_those_until_then(keep: Any, tmp_path: Path) -> None:
    run = WorkloadRunner(DIGITS, keep).start(HIGH_RATE)
    points: tuple[Point, ...] = ()
    for k in range(30):
        points = (*points, run.advance())
        if k % 7 == 0:
            run.write_weights(tmp_path / "weights.pt")
            assert value_of(tmp_path / "weights.pt") == pytest.approx(kept_value(points, keep), rel=1e-6)


def test_a_run_that_goes_on_remembers_its_best(keep: Any, tmp_path: Path) -> None:
    runner = WorkloadRunner(DIGITS, keep)
    whole = runner.start(HIGH_RATE)
    points = points_of(whole)
    whole.write_weights(tmp_path / "whole.pt")
    best = min(range(len(points)), key=lambda k: points[k].valid_loss or math.inf)
    assert best < len(points) - 2  # so that a run may stop and go on after it
    first = runner.start(HIGH_RATE)
    for _ in range(best + 2):
        first.advance()
    second = runner.start(HIGH_RATE, first.save())
    points_of(second)
    second.write_weights(tmp_path / "second.pt")
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "second.pt"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_metric_is_kept_where_it_is_the_target(tmp_path: Path) -> None:
    judged = replace(DIGITS, target_quantity="valid_metric")
    run = WorkloadRunner(judged, "best").start(HIGH_RATE)
    points = points_of(run)
    run.write_weights(tmp_path / "weights.pt")
    best = max(point.valid_metric for point in points if point.valid_metric is not None)
    assert value_of(tmp_path / "weights.pt", "valid_metric") == pytest.approx(best, rel=1e-6)


def test_of_averaged_weights_the_average_is_kept(keep: Any, tmp_path: Path) -> None:
    averaged = replace(DIGITS, averaging_examples=2000.0)
    run = WorkloadRunner(averaged, keep).start(HIGH_RATE)
    points = points_of(run)
    run.write_weights(tmp_path / "weights.pt")
    assert value_of(tmp_path / "weights.pt") == pytest.approx(kept_value(points, keep), rel=1e-6)


def test_nothing_is_kept_unless_asked_for_and_of_a_closed_run(tmp_path: Path) -> None:
    for kept in ("none", "best", "last"):
        run = WorkloadRunner(DIGITS, kept).start(replace(HIGH_RATE, planned_examples=640))  # type: ignore[arg-type]
        points_of(run)
        if kept != "none":
            run.close()
        assert run.write_weights(tmp_path / "weights.pt") is False
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="kept as none, best or last, got 'all'"):
        WorkloadRunner(DIGITS, "all").start(HIGH_RATE)  # type: ignore[arg-type]


def test_weights_that_cannot_be_written_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = KeptWeights("last", WorkloadRunner(DIGITS).facts)
    with pytest.raises(StudyError, match=r"cannot be written.*--keep-models none"):
        kept.write(tmp_path / "file" / "weights.pt", DIGITS.model())


# ------------------------------------------------------------------------------------------------- in a search

TRIALS = [Trial(size, rate, 0, PLANNED) for size in (32, 128) for rate in (0.01, 0.03162, 0.1)]


def searched(
    study_path: Path, keep: Any, crew: Any = None, watch: Callable[[Run, str, Evidence], None] = desk.unwatched
) -> Evidence:
    runner = WorkloadRunner(DIGITS, keep)
    asked = question(Ask(objective="examples"), Target(0.5, "valid_loss", "min"))
    models = models_folder(study_path)
    facts = replace(runner.facts, planned_examples=PLANNED)
    with Study.open_or_create(study_path, facts) as study:
        evidence = gather(study, facts, asked, runner=runner)
        watching = pruning(models, watch)
        return drive(study, runner, fixed(TRIALS, "test"), evidence, crew=crew, models=models, watch=watching)[0]


def assert_only_the_cheapest(evidence: Evidence, folder: Path, keep: str) -> None:
    reaching = sorted((cell for cell in evidence.cells if cell.reaches), key=lambda cell: cell.mean)
    near = [cell for k, cell in enumerate(reaching) if k < KEPT_CELLS or cell.mean <= MAY_WIN * reaching[0].mean]
    assert len(reaching) > len(near)
    cheapest = {(cell.batch_size, cell.learning_rate) for cell in near}
    runs = {
        weights_path(folder, run.identifier): run
        for run in evidence.runs
        if (run.trial.batch_size, run.trial.learning_rate) in cheapest
    }
    assert set(folder.iterdir()) == set(runs)
    for path, run in runs.items():
        assert value_of(path) == pytest.approx(kept_value(run.points, keep), rel=1e-6)
    answer = recommend(evidence, protocol="", spent_seconds={})
    best = winner(folder, evidence, answer)
    assert best is not None
    assert (runs[best].trial.batch_size, runs[best].trial.learning_rate) == (answer.batch_size, answer.learning_rate)


def test_while_a_search_goes_on_only_the_cheapest_cells_keep_their_models(keep: Any, tmp_path: Path) -> None:
    most = 0

    def watch(run: Run, why: str, evidence: Evidence) -> None:
        nonlocal most
        most = max(most, len(list(models_folder(tmp_path / "a.study.db").glob("*"))))

    evidence = searched(tmp_path / "a.study.db", keep, watch=watch)
    assert_only_the_cheapest(evidence, tmp_path / "a.models", keep)
    assert most <= len(list((tmp_path / "a.models").iterdir())) + 1  # that of the run that has just ended


def test_models_of_runs_in_workers_are_kept_alike(tmp_path: Path) -> None:
    with Workers(partial(WorkloadRunner, DIGITS, "best"), 2, threads=1) as crew:
        evidence = searched(tmp_path / "a.study.db", "best", crew)
    assert_only_the_cheapest(evidence, tmp_path / "a.models", "best")


def test_before_any_run_reaches_the_target_all_are_kept(tmp_path: Path) -> None:
    runner = WorkloadRunner(DIGITS)
    runs = []
    for number, rate in enumerate((0.01, 0.1)):
        trial = Trial(64, rate, 0, 2000)
        runs.append(Run(trial, points_of(runner.start(trial)), Stop(StopReason.FINISHED), 0.0, number))
        weights_path(tmp_path, number).touch()
    asked = question(Ask(objective="examples"), Target(0.0, "valid_loss", "min"))
    evidence = Evidence(runner.facts, tuple(runs), (), asked, runner.facts.settings, 2000)
    prune(tmp_path, evidence)
    assert len(list(tmp_path.iterdir())) == 2
    between = sorted(curves.best_value(run.points, "valid_loss", "min") or 0.0 for run in runs)
    easier = replace(asked, target=Target(sum(between) / 2, "valid_loss", "min", rule="first_touch"))
    prune(tmp_path, replace(evidence, question=easier))
    assert [path.name for path in tmp_path.iterdir()] == ["run-1.pt"]


def test_an_interrupted_run_leaves_no_model_and_its_end_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "STATE_SECONDS", 0.0)
    path = tmp_path / "a.study.db"

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if len(run.points) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(path, "best", watch=interrupt)
    assert not (tmp_path / "a.models").exists()
    evidence = searched(path, "best")
    first = evidence.runs[-len(TRIALS)] if len(evidence.runs) > len(TRIALS) else evidence.runs[0]
    assert first.stop == Stop(StopReason.FINISHED)
    assert_only_the_cheapest(evidence, tmp_path / "a.models", "best")


def test_the_answer_of_find_names_the_model_of_the_best_run_at_its_choice(keep: Any, tmp_path: Path) -> None:
    path = tmp_path / "digits.study.db"
    answer = find(
        DIGITS, study=path, batch_sizes=[64, 128], seeds=2, keep_models=keep, target=0.5, objective="steps",
        planned_examples=PLANNED,
    )  # fmt: skip
    assert answer.model is not None
    model = Path(answer.model)
    assert model.parent == tmp_path / "digits.models"
    with Study.open(path) as study:
        runs = {weights_path(model.parent, run.identifier): run for run in study.runs()}
        assert study.answers()[-1]["model"] == answer.model
    run = runs[model]
    assert (run.trial.batch_size, run.trial.learning_rate) == (answer.batch_size, answer.learning_rate)
    assert value_of(model) == pytest.approx(kept_value(run.points, keep), rel=1e-6)
    rivals = [r for p, r in runs.items() if p.is_file() and r.trial.batch_size == answer.batch_size]
    rivals = [r for r in rivals if r.trial.learning_rate == answer.learning_rate]
    assert len(rivals) > 1
    assert kept_value(run.points, "best") == min(kept_value(r.points, "best") for r in rivals)


def test_where_a_study_is_not_named_as_usual_its_models_still_lie_beside_it(tmp_path: Path) -> None:
    assert models_folder(tmp_path / "digits.study.db") == tmp_path / "digits.models"
    assert models_folder(tmp_path / "other.sqlite") == tmp_path / "other.sqlite.models"


def test_what_a_search_of_few_runs_may_choose_is_kept_though_others_were_luckier(tmp_path: Path) -> None:
    facts = WorkloadRunner(DIGITS).facts
    asked = question(Ask(objective="examples"), Target(0.5, "valid_loss", "min"))
    costs = {(64, 0.01, 0): 1000, (64, 0.1, 0): 1010, (64, 1.0, 0): 1020, (8, 0.1, 0): 1900, (8, 0.01, 0): 2100}
    costs[256, 0.1, 0] = 5000
    costs[256, 0.1, 1000] = 4000  # it was chosen, and trained with a fresh seed
    runs = tuple(
        Run(
            Trial(size, rate, seed, PLANNED),
            tuple(Point(k, n, valid_loss=0.4) for k, n in ((1, cost), (2, cost + 1))),
            Stop(StopReason.FINISHED),
            0.0,
            number,
        )
        for number, ((size, rate, seed), cost) in enumerate(costs.items())
    )
    for run in runs:
        weights_path(tmp_path, run.identifier).touch()
    prune(tmp_path, Evidence(facts, runs, (), asked, facts.settings, PLANNED))
    assert {path.name for path in tmp_path.iterdir()} == {f"run-{number}.pt" for number in (0, 1, 2, 3, 5, 6)}
