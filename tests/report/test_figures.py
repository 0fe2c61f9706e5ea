"""The numbers of the figures are those of the study; early stopping agrees with the rule that would have run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rightbatch
from rightbatch import curves, plots
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.minima import WeightsRecord
from rightbatch.pipeline.sheets import sheet_of
from rightbatch.records import GradientSample, Settings, Stop, StopReason
from rightbatch.report.figures import FIGURES, gradients, minima, rates, stopping, sweet_spot, thoma
from rightbatch.report.figures.figure import caption_of, variants
from rightbatch.report.figures.frontier import frontier_data
from rightbatch.report.sheet import Sheet
from rightbatch.testing import Truth, synthetic_study


def test_the_sweet_spot_has_the_costs_of_the_answer(sheet: Sheet) -> None:
    rows = sweet_spot.sweet_spot_data(sheet)
    assert [row["batch_size"] for row in rows] == [8, 32, 128, 512, 2048]
    for row, size in zip(rows, sheet.answer.sizes, strict=True):
        assert size.cost is not None
        assert (row["cost"], row["low"], row["high"]) == (size.cost.estimate, size.cost.low, size.cost.high)
    assert rows[0]["zone"] == "very small"
    assert rows[-1]["zone"] == "huge"


def test_the_product_of_steps_and_step_time_is_the_cost(sheet: Sheet) -> None:
    for row, steps in zip(sheet.answer.sizes, sweet_spot.steps_data(sheet), strict=True):
        assert row.cost is not None
        assert row.step_seconds is not None
        assert steps["value"] * row.step_seconds == pytest.approx(row.cost.estimate)


def test_the_frontier_is_steps_times_batch_size(sheet: Sheet) -> None:
    rows = frontier_data(sheet)
    assert len(rows) == 5
    for row in rows:
        assert row["examples"] == pytest.approx(row["steps"] * row["batch_size"])


def test_an_epoch_takes_its_steps_times_their_seconds(sheet: Sheet) -> None:
    truth = Truth()
    for row in thoma.epoch_data(sheet):
        steps = sheet.evidence.facts.train_examples / row["batch_size"]
        assert row["value"] == pytest.approx(steps * truth.step_seconds(row["batch_size"]), rel=0.05)


def test_every_run_at_the_best_rate_is_a_dot(sheet: Sheet) -> None:
    for data in (thoma.target_data, thoma.quality_data, thoma.gap_data):
        assert len(data(sheet)) == 2 * len(sheet.answer.sizes)


def test_the_gap_of_equal_losses_is_none(sheet: Sheet) -> None:
    assert all(row["value"] == 0 for row in thoma.gap_data(sheet))


def test_many_dots_become_their_quantiles() -> None:
    rows = [{"batch_size": 8, "value": float(k), "seed": k} for k in range(1000)]
    kept = thoma.thinned([*rows, {"batch_size": 16, "value": 1.0, "seed": 0}])
    assert len(kept) == thoma.DOTS + 1
    assert kept[-1] == {"batch_size": 16, "value": 1.0, "seed": 0}
    middle = [row["value"] for row in kept[:-1]]
    assert np.median(middle) == pytest.approx(499.5)
    assert middle == sorted(middle)


def test_rates_say_how_each_did_by_cost_and_by_quality(sheet: Sheet) -> None:
    rows = rates.rates_data(sheet)
    by_cost = [row for row in rows if row["judged_by"] == rates.COST]
    assert len(by_cost) == len(sheet.evidence.cells)  # none was left off in this study
    assert {row["outcome"] for row in by_cost} <= set(rates.BANDS)
    best = [row for row in by_cost if row["outcome"] == rates.BANDS[0]]
    assert [(r["batch_size"], r["learning_rate"]) for r in best] == [
        (r.batch_size, r.learning_rate) for r in sheet.answer.sizes
    ]
    by_quality = [row for row in rows if row["judged_by"] == rates.QUALITY]
    good = [row["value"] for row in by_quality if row["outcome"] == "best tenth"]
    others = [row["value"] for row in by_quality if row["outcome"] != "best tenth"]
    assert max(good) <= min(others)  # a loss: the smaller the better


def test_the_rules_go_through_the_choice(sheet: Sheet) -> None:
    answer = sheet.answer
    for power in (1.0, 0.5):
        line = rates.rule_line(sheet, power, 1e-9, 1e9)
        ratios = [row["learning_rate"] / row["batch_size"] ** power for row in line]
        assert ratios == pytest.approx([answer.learning_rate / answer.batch_size**power] * len(line))


def test_the_laws_pass_through_the_measured_costs(sheet: Sheet) -> None:
    law = {row["batch_size"]: row["cost"] for row in sweet_spot.law_data(sheet.answer)}
    for row in sheet.answer.sizes:
        assert row.cost is not None
        near = min(law, key=lambda size: abs(math.log(size / row.batch_size)))
        assert law[near] == pytest.approx(row.cost.estimate, rel=0.3)


# ------------------------------------------------------------------------------------------------ early stopping


def bumpy(sheet: Sheet, seed: int) -> Sheet:
    """The same study with noise on its losses, so that patience has something to wait for."""
    draws = np.random.default_rng(seed)

    def noisy(value: float | None) -> float | None:
        return None if value is None else value * math.exp(0.5 * draws.standard_normal())

    runs = tuple(
        replace(run, points=tuple(replace(p, valid_metric=noisy(p.valid_metric)) for p in run.points))
        for run in sheet.evidence.runs
    )
    return replace(sheet, evidence=replace(sheet.evidence, runs=runs, memory={}))


@pytest.mark.parametrize("seed", range(6))
def test_a_patience_stops_what_the_rule_would_have_stopped(sheet: Sheet, seed: int) -> None:
    """The slow twin: the stopping rule itself, asked at every evaluation before the target is confirmed."""
    changed = bumpy(sheet, seed)
    evidence = changed.evidence
    target = evidence.question.target
    rows = stopping.stopping_data(changed)
    assert {row["patience_in"] for row in rows} == set(stopping.UNITS)
    for row in rows:
        unit, patience = row["patience_in"], row["patience"]
        counted = "examples" if unit == "epochs" else unit
        length = patience * (evidence.facts.train_examples if unit == "epochs" else 1)
        rule = curves.until_patience(target.quantity, target.direction, length, counted)
        winners = [
            run
            for run in evidence.relevant
            if run.trial.batch_size == row["batch_size"] and evidence.cost(run) is not None
        ]
        stopped = 0
        for run in winners:
            found = evidence.crossing(run)
            assert found is not None
            before = [k for k, p in enumerate(run.points) if p.step and p.examples < found.high_examples]
            stopped += any(rule(run.points[: k + 1]) is not None for k in before)
        assert row["runs"] == len(winners)
        assert row["stopped"] == pytest.approx(stopped / len(winners))


def test_more_patience_stops_no_more_and_one_size_is_chosen(sheet: Sheet) -> None:
    rows = stopping.stopping_data(bumpy(sheet, 0))
    for unit in stopping.UNITS:
        of_unit = [row for row in rows if row["patience_in"] == unit]
        for size in {row["batch_size"] for row in of_unit}:
            shares = [row["stopped"] for row in of_unit if row["batch_size"] == size]
            assert shares == sorted(shares, reverse=True)
        for patience in {row["patience"] for row in of_unit}:
            at = [row for row in of_unit if row["patience"] == patience]
            assert sum(row["chosen"] for row in at) == any(row["cost"] is not None for row in at)


def test_runs_that_never_get_worse_are_stopped_by_no_patience(sheet: Sheet) -> None:
    rows = stopping.stopping_data(sheet)
    assert all(row["stopped"] == 0 for row in rows)
    assert {row["batch_size"] for row in rows if row["chosen"]} <= {sheet.evidence.choice.batch_size}  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------- noise, notebooks


def test_the_noise_along_a_training_is_that_of_its_parts(sheet: Sheet) -> None:
    draws = np.random.default_rng(0)
    samples = tuple(
        GradientSample(
            step=k, batch_size=64, learning_rate=0.1, shares_squared=1 / 64,
            batch_squared=1.0 + (50 + k) / 64 + 0.002 * draws.standard_normal(),
            parts_squared=(51.0 + k) / 64 + 0.002 * draws.standard_normal(),
        )
        for k in range(160)
    )  # fmt: skip
    rows = gradients.noise_data(replace(sheet, evidence=replace(sheet.evidence, gradient_samples=(samples,))))
    assert len(rows) == gradients.STRETCHES
    for row in rows:
        assert row["noise_scale"] == pytest.approx(50 + row["steps"], rel=0.05)
        assert row["low"] <= row["noise_scale"] <= row["high"]


def test_notebooks_get_the_charts_of_the_page(study: Path) -> None:
    drawn = plots.sweet_spot(study).to_dict()
    assert drawn["layer"]
    assert plots.stopping(study, patience_in="steps").to_dict()["layer"]
    assert rightbatch.plots is plots
    with pytest.raises(InsufficientEvidence, match=r"not measured\. `rightbatch noise .*` would"):
        plots.noise(study)
    with pytest.raises(InputError, match="there is no 'weeks', but evaluations, epochs, steps, examples"):
        plots.stopping(study, patience_in="weeks")


def test_every_figure_has_a_function_for_notebooks() -> None:
    from rightbatch.report.figures import FIGURES

    for figure in FIGURES:
        assert callable(getattr(plots, figure.name.replace("-", "_")))


def test_a_study_without_easier_targets_still_has_its_page(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    synthetic_study(path, batch_sizes=(8, 32, 128), seeds=1).close()
    assert sheet_of(path, objective="metric", at_examples=2000.0).easier == ()


def test_a_rate_whose_runs_were_left_off_is_on_the_map(sheet: Sheet) -> None:
    evidence = sheet.evidence
    cell = evidence.cells_of(128)[0]
    paused = Stop(StopReason.STOPPED_BY_RULE, curves.PAUSED)
    runs = tuple(
        replace(run, points=run.points[:3], stop=paused)
        if (run.trial.batch_size, run.trial.learning_rate) == (128, cell.learning_rate)
        else run
        for run in evidence.runs
    )
    rows = rates.rates_data(replace(sheet, evidence=replace(evidence, runs=runs, memory={})))
    (left,) = [row for row in rows if row["outcome"] == "left off"]
    assert (left["batch_size"], left["learning_rate"], left["runs"]) == (128, cell.learning_rate, 2)
    assert left["value"] is None


def test_rules_that_leave_the_map_at_once_are_not_drawn(sheet: Sheet) -> None:
    assert rates.rule_line(sheet, 1.0, 1e3, 1e4) == []
    one = [row for row in rates.rates_data(sheet) if row["judged_by"] == rates.COST][:1]
    alone = replace(sheet, answer=replace(sheet.answer, learning_rate=1e6))
    assert rates.draw_rates(alone, one).to_dict()["layer"]


def test_sharpness_and_lines_between_minima_are_those_that_were_measured(study: Path, sheet: Sheet) -> None:
    assert minima.sharpness_data(sheet) == minima.path_data(sheet) == []
    with pytest.raises(InsufficientEvidence, match=r"`rightbatch sharpness .* would"):
        plots.sharpness(study)
    usual, other = Settings({"epsilon": 1e-3}), Settings({"epsilon": 5e-4})
    runs = sheet.evidence.runs[:6]
    records = [WeightsRecord(run.identifier, "box", "box", 1.0 + run.identifier, choices=usual) for run in runs]
    records += [WeightsRecord(runs[0].identifier, "box", "box", 99.0, choices=other)]
    records += [
        WeightsRecord(
            runs[0].identifier, "path", name, 0.1 + at**2 * (name != "valid_loss"),
            choices=Settings({"kind": kind, "at": at, "to": runs[1].identifier, "examples": "all"}),
        )
        for kind in ("straight", "curved")
        for at in (-1.0, 0.0, 0.5, 1.0)
        for name in ("train_loss", "train_metric", "valid_loss", "valid_metric")
    ]  # fmt: skip
    seen = replace(sheet, evidence=replace(sheet.evidence, weights=tuple(records)))
    rows = minima.sharpness_data(seen)
    assert sorted(row["value"] for row in rows) == [1.0 + run.identifier for run in runs]
    assert {row["batch_size"] for row in rows} == {run.trial.batch_size for run in runs}
    path = minima.path_data(seen)
    assert len(path) == 2 * 4 * 2
    assert "rises to 1.10" in minima.tell_path(seen, path)
    assert minima.draw_path(seen, path).to_dict()["layer"]
    assert minima.draw_sharpness(seen, rows).to_dict()["layer"]
    assert "batch size" in minima.tell_sharpness(seen, rows)


# ------------------------------------------------------------------------------------------ captions, paused runs


def test_a_caption_speaks_of_what_is_drawn_alone(sheet: Sheet) -> None:
    figures = {figure.name: figure for figure in FIGURES}

    def caption(name: str, sheet: Sheet) -> str:
        return caption_of(figures[name], variants(figures[name], sheet)[-1])

    bare = replace(sheet, answer=replace(sheet.answer, tradeoff=None, step_time=None), easier=())
    for name, mark in (("sweet-spot", "Dashed"), ("frontier", "Dashed"), ("frontier", "Diamond"), ("steps", "Dashed")):
        assert mark in caption(name, sheet)
        assert mark not in caption(name, bare)
    assert "Dashed" not in caption("step-time", bare)
    predicted = [replace(row, seeds=0) for row in sheet.answer.sizes]
    assert "Hollow" not in caption("steps", sheet)
    assert "Hollow" in caption("steps", replace(sheet, answer=replace(sheet.answer, sizes=tuple(predicted)), easier=()))


def test_a_run_that_was_left_on_its_way_is_no_quality(sheet: Sheet) -> None:
    row = sheet.answer.sizes[0]
    paused = Stop(StopReason.STOPPED_BY_RULE, curves.PAUSED)
    runs = [
        replace(run, points=run.points[:2], stop=paused) if run.trial.batch_size == row.batch_size else run
        for run in sheet.evidence.runs
    ]
    left = replace(sheet, evidence=replace(sheet.evidence, runs=tuple(runs), memory={}))
    assert row.batch_size in {one["batch_size"] for one in thoma.quality_data(sheet)}
    assert row.batch_size not in {one["batch_size"] for one in thoma.quality_data(left)}
