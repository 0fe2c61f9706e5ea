"""The examples of one's own training code: short, with few lines for rightbatch, and they run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import rightbatch
from rightbatch.cli import main
from rightbatch.store import Study

FOLDER = Path(__file__).parents[1] / "examples"
OURS = re.compile(r"rightbatch|\btrial\b|\byield\b|json")
"""A line that a person would not have without rightbatch."""

QUESTIONS = {
    "numpy_loop": ["{}:train", "--target", "0.4", "--present", "32,1.0", "--train-examples", "10000"],
    "sklearn_partial_fit": [
        *["{}:train", "--target", "0.9", "--direction", "max", "--present", "32,0.01", "--train-examples", "1197"]
    ],
    "hugging_face_by_hand": ["{}:train", "--target", "0.6", "--present", "32,0.003", "--train-examples", "5000"],
    "plain_script": [
        *["--target", "0.5", "--present", "64,0.1", "--train-examples", "10000", "--"],
        *[sys.executable, "{}", "--epochs", "1"],
        *["--batch-size", "{{batch_size}}", "--lr", "{{learning_rate}}", "--seed", "{{seed}}"],
    ],
}
SLOW_TO_START = {"hugging_face_by_hand": "0.003", "plain_script": "0.1"}
"""They are swept at this rate alone; the others are searched."""


def statements(example: str) -> list[str]:
    """The lines of an example without its docstring and empty lines."""
    text = (FOLDER / f"{example}.py").read_text()
    return [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]


def test_every_example_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(QUESTIONS)


@pytest.mark.parametrize("example", QUESTIONS)
def test_an_example_is_short_and_at_most_five_lines_of_it_are_ours(example: str) -> None:
    assert len((FOLDER / f"{example}.py").read_text().splitlines()) < 40
    ours = [line for line in statements(example) if OURS.search(line)]
    assert 1 <= len(ours) <= 5, ours


@pytest.mark.parametrize("example", QUESTIONS)
def test_an_example_gives_an_answer(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    question = [word.format(FOLDER / f"{example}.py") for word in QUESTIONS[example]]
    rate = SLOW_TO_START.get(example)
    verb = ["sweep", "--until", "target", "--rates", rate] if rate else ["find"]
    options = ["--seeds", "1", "--batch-sizes", "64,256", "--study", "it.study.db", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["rightbatch", *verb, *options, *question])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "train with batch size" in said.out
    with Study.open("it.study.db") as study:
        runs = study.runs()
    assert {run.trial.batch_size for run in runs} <= {64, 256}  # the search may need no run of one of them
    assert all(run.points for run in runs if run.stop and run.stop.reason is rightbatch.StopReason.FINISHED)
