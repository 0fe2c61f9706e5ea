"""`find --schedule`: a growing batch is searched after the fixed sizes, kept in the study, and told from it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch.bundled.quadratic import quadratic
from rightbatch.errors import InputError
from rightbatch.evidence import FRESH_SEED
from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report import terminal
from rightbatch.report.figures import FIGURES
from rightbatch.report.figures.growing import FRESH
from rightbatch.report.markdown import markdown

HOW: dict[str, Any] = {"batch_sizes": [8, 32], "seeds": 1, "objective": "examples", "schedule": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("growing") / "quadratic.study.db"
    rightbatch.find(quadratic(), study=path, **HOW)
    return path


def test_a_growing_batch_is_judged_beside_the_fixed_one(study: Path) -> None:
    answer, evidence = rightbatch.show(study, objective="examples")
    growth = answer.growth
    assert growth is not None
    assert growth.seeds >= 3
    assert growth.recommended == (growth.times_the_fixed.high is not None and growth.times_the_fixed.high < 1)
    assert growth.spent > 0
    assert len(growth.parts) == growth.schedule.count("@")
    fresh = {run.trial.seed for run in evidence.runs if run.trial.settings.get("batch_schedule")} & {FRESH_SEED}
    assert fresh
    # Reasons are for other settings, not for every plan that was tried.
    assert not any("batch_schedule" in reason for reason in answer.reasons)


def test_the_same_command_trains_nothing_more(study: Path) -> None:
    with rightbatch.Study.open(study) as kept:
        before = len(kept.runs())
    again = rightbatch.find(quadratic(), study=study, **HOW)
    with rightbatch.Study.open(study) as kept:
        assert len(kept.runs()) == before
    assert again.growth == rightbatch.show(study, objective="examples")[0].growth


def test_it_is_told_and_drawn(study: Path) -> None:
    sheet = sheet_of(study, objective="examples", easier=False)
    growth = sheet.answer.growth
    assert growth is not None
    figure = next(figure for figure in FIGURES if figure.name == "growing")
    rows = figure.data(sheet)
    assert rows[-1]["how"] == FRESH
    assert rows[-1]["cost"] == pytest.approx(sheet.answer.cost.estimate * growth.times_the_fixed.estimate)
    assert "plans were tried" in figure.tell(sheet, rows)
    figure.draw(sheet, rows).to_dict()
    assert growth.schedule.split("@")[0] in markdown(sheet)
    assert terminal.answer_text(sheet.answer)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"settings": {"batch_schedule": "64@1000"}}, "Leave one of them out"),
        ({"objective": "metric", "at_examples": 1000}, "choose the objective time"),
    ],
)
def test_what_cannot_be_searched_is_refused(tmp_path: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rightbatch.find(quadratic(), study=tmp_path / "a.study.db", **{**HOW, **asked})


def test_a_loop_draws_its_own_batches(tmp_path: Path) -> None:
    def train(trial):
        for step in range(50):
            yield rightbatch.Point(step + 1, valid_loss=1 / (step + 1))

    with pytest.raises(InputError, match=r"trial\.at\(examples\)"):
        rightbatch.find(train, study=tmp_path / "a.study.db", target=0.1, train_examples=100, **HOW)
