"""A study as a table: seconds are those of each run's own settings and sizes, and curves can be run again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch.batch_schedule import SETTING

GROWS = "256@100"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits at a fixed size, and the same with a batch that grows."""
    path = tmp_path_factory.mktemp("export") / "two.study.db"
    how: dict[str, Any] = {"study": path, "rates": [0.3162], "seeds": 1, "planned_examples": 6000, "target": 0.6}
    rightbatch.sweep("digits", [32, 64], **how)
    rightbatch.sweep("digits", [32, 64], settings={SETTING: GROWS}, **how)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_seconds_of_a_batch_that_grows_are_those_of_its_sizes(study: Path, tmp_path: Path) -> None:
    rightbatch.export(study, tmp_path / "runs.csv")
    rows = rows_of(tmp_path / "runs.csv")
    assert len(rows) == 4
    for schedule in ("", GROWS):
        _, evidence = rightbatch.show(study, settings={SETTING: schedule})
        assert len(evidence.relevant) == 2
        for run in evidence.relevant:
            (row,) = [
                one
                for one in rows
                if int(one["batch_size"]) == run.trial.batch_size and (SETTING in one["settings"]) == bool(schedule)
            ]
            last = run.points[-1]
            whole = evidence.cost_of_steps(run.trial.batch_size, last.step, last.examples)
            assert float(row["seconds"]) == pytest.approx(whole)
            assert float(row["seconds_to_target"]) == pytest.approx(evidence.cost(run))


def test_curves_of_a_study_with_two_values_of_a_setting_can_be_run_again(study: Path, tmp_path: Path) -> None:
    table = tmp_path / "curves.csv"
    rightbatch.export(study, table, whole_curves=True, settings={SETTING: ""})
    rows = rows_of(table)
    assert len({(row["batch_size"], row["seed"], row["step"]) for row in rows}) == len(rows)
    again = rightbatch.find(str(table), study=tmp_path / "again.study.db", target=-0.6, objective="examples")
    assert again.batch_size in (32, 64)
