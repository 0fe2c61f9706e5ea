"""`sharpness`: what is measured of the weights that the runs of a study left, kept, and said across batch sizes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from typer.testing import CliRunner

import rightbatch
from rightbatch.advice import sharpness_of
from rightbatch.bundled.digits import digits
from rightbatch.cli import app
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.landscape.measuring import MEASURING
from rightbatch.minima import MEASURES, Choices
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.show import evidence_of
from rightbatch.store import Study

FEW = {"examples": 100, "curvature_examples": 50, "probes": 4, "dimensions": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of the digits at two sizes and two rates with one or two seeds, and their weights."""
    path = tmp_path_factory.mktemp("sharp") / "digits.study.db"
    for size, rate, seeds in ((32, 0.1, 2), (256, 0.1, 2), (256, 0.0316, 2)):
        rightbatch.sweep(
            "digits", [size], study=path, seeds=seeds, rates=[rate], keep_models="last", objective="examples",
            planned_examples=4000, target=0.6,
        )  # fmt: skip
    return path


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    path = tmp_path / made.name
    shutil.copy(made, path)
    shutil.copytree(made.with_name("digits.models"), tmp_path / "digits.models")
    return path


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def test_the_table_of_measures_and_what_measures_them_have_the_same_names() -> None:
    assert list(MEASURES) == list(MEASURING)
    fields = set(vars(Choices()))
    assert all(set(measure.choices) <= fields for measure in MEASURES.values())


def test_every_measure_is_taken_once_and_kept(study: Path) -> None:
    told = []
    report = rightbatch.sharpness(
        study, measures=list(MEASURES), watch=lambda run, name, done, due: told.append((run.identifier, name)), **FEW
    )
    assert len(told) == len(set(told)) == 6 * len(MEASURES)
    assert len(report.ends) == 6
    for end in report.ends:
        assert {"train_loss", "train_metric", "valid_loss", "valid_metric", "distance", "ends"} <= set(end.values)
        assert all(np.isfinite(end.values[name]) for name in MEASURES)
        assert end.values["box"] > 0
        assert end.gap == end.values["train_metric"] - end.values["valid_metric"]
        assert end.evaluations["box"] >= 10
        assert end.evaluations["eigenvalue"] > 32
    with Study.open(study) as kept:
        records = kept.weights_records()
        assert "sharpness" in kept.costs()
    bounds = {r.quantity: (r.low, r.value, r.high) for r in records if r.low is not None}
    assert set(bounds) == {"eigenvalue", "trace", "temperature"}
    assert all(low <= value <= high for low, value, high in bounds.values())

    told.clear()
    again = rightbatch.sharpness(
        study, measures=list(MEASURES), watch=lambda run, name, done, due: told.append(name), **FEW
    )
    assert told == []
    assert again.ends == report.ends
    assert again.evaluations == 0
    changed = rightbatch.sharpness(study, measures=["box"], runs=[1], **{**FEW, "epsilon": 5e-4})
    assert [end.run for end in changed.ends if "box" in end.values] == [1]
    assert changed.ends[0].values["box"] < report.ends[0].values["box"]
    anew = rightbatch.sharpness(study, measures=["box"], runs=[1], again=True, **FEW)
    assert anew.ends[0].values["box"] == report.ends[0].values["box"]  # the same seed, the same number
    with Study.open(study) as kept:
        assert len(kept.weights_records()) == len(records) + 3  # the other epsilon's three numbers, nothing twice


def test_sizes_are_compared_at_one_rate_and_tuned_and_the_rule_book_hears_of_it(study: Path) -> None:
    report = rightbatch.sharpness(study, measures=["box"], **FEW)
    one, tuned = report.across
    assert [(size.batch_size, size.learning_rate) for size in one.sizes] == [(32, 0.1), (256, 0.1)]
    by_cell: dict[tuple[int, float], list[float]] = {}
    for end in report.ends:
        cell = (end.trial.batch_size, end.trial.learning_rate)
        by_cell.setdefault(cell, []).append(end.values["valid_metric"])
    best = max((0.1, 0.03162), key=lambda rate: np.mean(by_cell[256, rate]))
    assert [(size.batch_size, size.learning_rate) for size in tuned.sizes] == [(32, 0.1), (256, best)]
    assert one.sizes[0].quality is not None
    assert one.sizes[0].quality.estimate == pytest.approx(np.mean(by_cell[32, 0.1]))
    with Study.open(study) as kept:
        evidence = evidence_of(kept, Ask())
    found = sharpness_of(evidence)
    assert found == {
        (end.trial.batch_size, end.trial.learning_rate, end.trial.seed): end.values["box"] for end in report.ends
    }
    verdict = next(v for v in rightbatch.judge(study).judgements if v.rule.name == "sharpness-predicts")
    assert "fewer than six batch sizes" in verdict.says


def test_what_is_measured_is_that_of_the_weights_that_were_kept(study: Path) -> None:
    report = rightbatch.sharpness(study, measures=[], path=(1, 3), examples=100)
    with Study.open(study) as kept:
        runs = {run.identifier: run for run in kept.runs()}
    for end in report.ends:
        point = runs[end.run].points[-1]
        assert end.values["valid_metric"] == pytest.approx(point.valid_metric, abs=1e-6)
        assert end.values["valid_loss"] == pytest.approx(point.valid_loss, rel=1e-4)
    torch.manual_seed(runs[1].trial.seed)
    start = torch.cat([p.detach().flatten() for p in digits().model().parameters()])
    weights = torch.load(study.with_name("digits.models") / "run-1.pt", weights_only=True)
    distance = float((torch.cat([value.flatten() for value in weights.values()]) - start).norm())
    assert report.ends[0].values["distance"] == pytest.approx(distance, rel=1e-5)
    assert len(report.path) == 50
    ends = {(point.kind, point.at): point.valid_metric for point in report.path}
    for kind in ("straight", "curved"):
        assert ends[kind, 0.0] == pytest.approx(report.ends[0].values["valid_metric"], abs=1e-6)
        assert ends[kind, 1.0] == pytest.approx(report.ends[2].values["valid_metric"], abs=1e-6)


def test_interrupted_it_keeps_what_was_measured_and_goes_on(study: Path) -> None:
    def stop(run: object, name: str, done: int, due: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rightbatch.sharpness(study, measures=["box"], watch=stop, **FEW)
    with Study.open(study) as kept:
        assert len({(r.run, r.measure) for r in kept.weights_records()}) == 7
    counted = []
    rightbatch.sharpness(study, measures=["box"], watch=lambda run, name, done, due: counted.append(due), **FEW)
    assert counted == [5] * 5


def test_the_command_says_it_in_eighty_columns_and_as_json(study: Path) -> None:
    options = ["--examples", "100", "--threads", "1", "--measures", "box,sam"]
    code, text = run_cli("sharpness", str(study), *options)
    assert code == 0, text
    assert "one rate" in text
    assert "rank correlation" in text or "fewer than six" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    code, text = run_cli("sharpness", str(study), *options, "--json")
    assert code == 0
    assert '"valid_metric"' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measures", "flatness"], "no measure 'flatness'"),
        (["--epsilon", "0"], "epsilon is a positive number"),
        (["--solver", "adam"], "solver is one of l-bfgs-b, signed-ascent"),
        (["--restarts", "0"], "restarts is a whole number of at least 1"),
        (["--runs", "99"], "Run 99 has left no weights"),
        (["--runs", "one"], "--runs is numbers of runs"),
        (["--path", "1"], "--path is two different runs"),
        (["--workload", "quadratic"], "is a study of 'digits', not of 'quadratic'"),
    ],
)
def test_bad_input_is_told(study: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["sharpness", str(study), *arguments])
    assert result.exception is not None
    assert message in str(result.exception)


def test_without_weights_it_says_how_to_keep_them(study: Path) -> None:
    shutil.rmtree(study.with_name("digits.models"))
    with pytest.raises(InsufficientEvidence, match="--keep-models last"):
        rightbatch.sharpness(study)


def test_weights_of_another_model_and_code_that_changed_are_refused(study: Path) -> None:
    wider = replace(digits(), model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 9), torch.nn.Linear(9, 10)))
    with pytest.raises(rightbatch.RightbatchError, match="has changed since"):
        rightbatch.sharpness(study, wider)
    with pytest.raises(InputError, match="does not fit the model"):
        rightbatch.sharpness(study, wider, changed_code="mix", **FEW)


def test_what_was_measured_stays_known_when_the_weights_are_gone(study: Path) -> None:
    report = rightbatch.sharpness(study, measures=["box"], **FEW)
    shutil.rmtree(study.with_name("digits.models"))
    again = rightbatch.sharpness(study, measures=["box"], **FEW)
    assert (again.ends, again.across, again.evaluations) == (report.ends, report.across, 0)
    assert again.missing == 6
    assert rightbatch.sharpness(study, measures=["box"], runs=[2], **FEW).ends == report.ends
    with pytest.raises(InputError, match="Run 2 has left no weights; these have: none"):
        rightbatch.sharpness(study, measures=["sam"], runs=[2], **FEW)
