"""`noise`: the samples are kept, what is said fits them, and what has no gradients to show is told so."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rightbatch.bundled.quadratic import hessian, quadratic
from rightbatch.cli import main
from rightbatch.errors import InputError
from rightbatch.fit.noise import noise_scale
from rightbatch.pipeline.find import find
from rightbatch.pipeline.noise import noise
from rightbatch.records import GradientSample, Interval
from rightbatch.report.noise import scale_text
from rightbatch.store import Study

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_report_is_that_of_the_samples_that_are_kept(tmp_path: Path) -> None:
    told: list[tuple[GradientSample, int]] = []
    path = tmp_path / "q.study.db"
    report = noise(
        quadratic(), study=path, batch_size=16, learning_rate=1e-6, steps=80, watch=lambda *one: told.append(one)
    )
    with Study.open(path) as study:
        ((seed, samples),) = study.gradient_samples()
        assert study.costs()["noise"] == pytest.approx(report.wall_seconds)
    assert seed == 0
    assert [(sample, 80) for sample in samples] == told
    assert report.whole == noise_scale(samples)
    assert report.along == tuple(noise_scale(samples[k : k + 20]) for k in (0, 20, 40, 60))
    assert report.now == report.along[-1]
    assert (report.noise_scale, report.interval) == (
        report.whole.scale.estimate,
        (report.whole.scale.low, report.whole.scale.high),
    )
    assert hessian().sum() / (hessian() ** 2).sum() in report.whole.scale
    assert not report.at_target


def test_trainings_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    for seed in (0, 7):
        noise(quadratic(), study=path, steps=16, seed=seed)
    with Study.open(path) as study:
        found = study.gradient_samples()
    assert [(seed, len(samples)) for seed, samples in found] == [(0, 16), (7, 16)]
    assert found[0][1] != found[1][1]


def test_with_a_study_it_goes_to_the_target_and_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    answer = find(quadratic(), study=path, batch_sizes=[8, 32, 128], seeds=1, objective="examples")
    report = noise(
        quadratic(), study=path, batch_size=answer.batch_size, learning_rate=answer.learning_rate, objective="examples"
    )
    assert report.at_target
    assert answer.steps is not None
    assert report.whole.samples == pytest.approx(answer.steps, rel=0.5)
    assert report.critical_batch_size is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workload": "digits", "steps": 15}, "At least 16 steps"),
        ({"workload": "digits", "steps": 200, "learning_rate": 1e9}, "the training diverges. Choose a lower"),
        ({"workload": "loop"}, "watch them with rightbatch.NoiseScale"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, given: dict[str, object], said: str) -> None:
    (tmp_path / "my.py").write_text("def train(trial):\n    yield None\n")
    workload = given.pop("workload")
    with pytest.raises(InputError, match=said):
        noise(
            f"{tmp_path}/my.py:train" if workload == "loop" else workload,
            study=tmp_path / "a.study.db",
            **given,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (Interval(41.23, 30.1, 60.7), "41.2 [30.1, 60.7]"),
        (Interval(900.0, 64.2, math.inf), "at least 64.2"),
        (Interval(math.inf, 64.2, math.inf), "at least 64.2"),
    ],
)
def test_without_an_upper_bound_it_is_at_least(scale: Interval, text: str) -> None:
    assert scale_text(scale) == text


def test_a_study_of_an_earlier_version_has_no_samples_and_can_be_given_some(tmp_path: Path) -> None:
    golden = next(GOLDEN.glob("*.study.db"))
    path = Path(shutil.copy(golden, tmp_path / "old.study.db"))
    with Study.open(path) as study:
        assert study.gradient_samples() == ()
    sample = GradientSample(0, 32, 0.1, 2.0, 1.0, 0.25)
    with Study.open(path, write=True) as study:
        study.add_gradient_samples(3, [sample])
    with Study.open(path) as study:
        assert study.gradient_samples() == ((3, (sample,)),)


def test_the_command_line_prints_and_its_json_is_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["rightbatch", "noise", "digits", "--steps", "40", "--threads", "1", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = capsys.readouterr().out
        if not options:
            assert "digits: gradient noise scale" in said
            assert "0 to 9" in said
            assert "at the target it may be much larger" in said
            continue
        found = json.loads(said)
        assert found["noise_scale"] == found["whole"]["scale"]["estimate"]
        assert found["interval"] == [found["whole"]["scale"]["low"], found["whole"]["scale"]["high"]]
        assert (found["batch_size"], found["learning_rate"]) == (32, 0.1)


def test_a_search_starts_from_it(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    report = noise(quadratic(), study=path, batch_size=16, learning_rate=0.02, steps=200)
    assert report.critical_prior is not None
    answer = find(quadratic(), study=path, batch_sizes=[8, 32], seeds=1, objective="examples")
    told = [reason for reason in answer.reasons if reason.startswith("gradients put B_crit at")]
    assert len(told) == 1
    known = report.critical_prior
    assert f"{known.estimate:.3g} [{known.low:.3g}, {known.high:.3g}]" in told[0]


def test_the_metric_of_adam_and_the_curvature_are_kept_beside_the_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    work = replace(
        quadratic(), optimizer=lambda parameters, trial: torch.optim.Adam(parameters, lr=trial.learning_rate)
    )
    report = noise(work, study=path, batch_size=16, learning_rate=1e-4, steps=60, curvature=True)
    with Study.open(path) as study:
        by_metric = {samples[0].metric: samples for _, samples in study.gradient_samples()}
    assert {metric: len(samples) for metric, samples in by_metric.items()} == {
        "plain": 60,
        "preconditioned": 59,  # there is no metric before the first step
        "curvature": 32,
    }
    assert report.preconditioned == noise_scale(by_metric["preconditioned"])
    assert report.curvature == noise_scale(by_metric["curvature"])
    h = hessian()
    assert (h**2).sum() / (h**3).sum() in report.curvature.scale


def test_a_study_of_version_three_is_read_and_raised(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    noise(quadratic(), study=path, steps=16)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE gradient_samples DROP COLUMN metric")
        connection.execute("ALTER TABLE step_times DROP COLUMN unfinished")
        connection.execute("UPDATE study SET schema_version = 3")
    connection.close()
    with Study.open(path) as study:
        ((_, before),) = study.gradient_samples()
    with Study.open(path, write=True) as study:
        study.add_gradient_samples(1, [replace(before[0], metric="curvature")])
        found = study.gradient_samples()
    assert found[0] == (0, before)
    assert found[1][1][0].metric == "curvature"
