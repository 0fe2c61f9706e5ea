"""The command line as a person meets it: what it prints, its exit codes, one clear message for each wrong input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from rightbatch import cli, tables
from rightbatch.bundled import WORKLOADS
from rightbatch.cli import main
from rightbatch.errors import RightbatchError
from rightbatch.store import Study

GOLDEN = Path(__file__).parent / "golden" / "version-1.study.db"


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Call the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rightbatch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copy(GOLDEN, tmp_path / "golden.study.db"))


# ------------------------------------------------------------------------------------------------------ reading


def test_show_prints_the_answer(run, golden: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("show", golden)
    assert result.code == 0
    assert "digits: train with batch size 128 at learning rate 0.3162" in result.out
    assert "valid loss at most 0.15" in result.out
    assert "batch size 32 at 0.1 costs" in result.out


def test_show_answers_other_questions_from_the_same_study(run, golden: Path) -> None:  # type: ignore[no-untyped-def]
    by_time = json.loads(run("show", golden, "--json").out)
    by_examples = json.loads(run("show", golden, "--objective", "examples", "--json").out)
    assert by_time["batch_size"] == 128
    assert by_examples["batch_size"] == 8
    assert by_examples["objective"] == "examples"


def test_report_writes_one_page_and_figures(run, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("report", golden, "--figures", tmp_path / "figures")
    page = tmp_path / "golden.html"
    assert result.code == 0
    assert result.out.splitlines()[0] == str(page)
    assert "Train with batch size 128 at learning rate 0.3162" in page.read_text()
    assert (tmp_path / "figures" / "sweet-spot.png").read_bytes().startswith(b"\x89PNG")


def test_exported_curves_run_again_as_a_table(run, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("export", golden, tmp_path / "curves.csv.gz", "--curves").code == 0
    rows = tables.read_rows(tmp_path / "curves.csv.gz")
    assert tuple(rows[0]) == tables.COLUMNS
    # The metric of this workload is an accuracy; the recorded answer was about its loss, so a target is given.
    result = run(
        "sweep", "curves.csv.gz", "--batch-sizes", "8,32,128,512", "--target", "0.93", "--seeds", "2", "--json"
    )
    assert result.code == 0, result.err
    replayed = json.loads(result.out)
    original = json.loads(run("show", golden, "--target", "0.93", "--target-on", "metric", "--json").out)
    costs = [
        {row["batch_size"]: row["cost"]["estimate"] for row in answer["sizes"] if row["cost"]}
        for answer in (replayed, original)
    ]
    assert costs[0].keys() <= costs[1].keys()
    for size, cost in costs[0].items():
        assert cost == pytest.approx(costs[1][size], rel=0.15)


def test_exported_runs_have_a_row_a_run(run, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("export", golden, tmp_path / "runs.csv", "--json")
    assert json.loads(result.out) == {"file": str(tmp_path / "runs.csv"), "rows": 48}
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 49


def test_parquet_holds_the_same_rows_as_csv(run, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pyarrow")
    for name in ("a.csv", "a.parquet"):
        assert run("export", golden, tmp_path / name, "--curves").code == 0
    from_csv, from_parquet = (tables.read_runs(tables.read_rows(tmp_path / name)) for name in ("a.csv", "a.parquet"))
    assert len(from_csv) == len(from_parquet) == 48
    for one, other in zip(from_csv, from_parquet, strict=True):
        assert one.trial.batch_size == other.trial.batch_size
        assert [p.step for p in one.points] == [p.step for p in other.points]
        assert one.points[-1].valid_loss == pytest.approx(other.points[-1].valid_loss, rel=1e-6)


def test_workloads_are_listed(run) -> None:  # type: ignore[no-untyped-def]
    names = [entry["name"] for entry in json.loads(run("workloads", "--json").out)]
    assert names == list(WORKLOADS)
    assert names[0] == "digits"


def test_every_command_has_help(run) -> None:  # type: ignore[no-untyped-def]
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        result = run(name, "--help")
        assert result.code == 0
        assert len(result.out) > 100


# --------------------------------------------------------------------------------------------------- wrong input


def write_workload(folder: Path, changes: str) -> str:
    """A file with a small workload, changed as a test wants it; its name for the command line."""
    (folder / "mine.py").write_text(
        f"""
import torch
from torch import nn
import rightbatch

def make():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator)
    y = x.sum(dim=1)
    parts = dict(
        name="mine",
        model=lambda: nn.Linear(5, 1),
        data=(x[:300], y[:300]),
        valid=(x[300:], y[300:]),
        loss=lambda model, batch: (model(batch[0])[:, 0] - batch[1]) ** 2,
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate),
        present=(16, 0.01),
        planned_examples=3000,
    )
    {changes}
    return rightbatch.Workload(**parts)
"""
    )
    return "mine.py:make"


WRONG_WORKLOADS = {
    "loss of a wrong shape": (
        "parts['loss'] = lambda model, batch: (model(batch[0]) - batch[1][:, None]) ** 2",
        1,
        "returned shape (16, 1) for a batch of 16. It must return the value of each example",
    ),
    "NaN data": ("parts['data'][0][7] = float('nan')", 1, "not finite (NaN or infinite) in 1 of 300 examples"),
    "a workload that raises": (
        "parts['loss'] = lambda model, batch: model.no_such_layer(batch)",
        1,
        "The workload raised AttributeError",
    ),
    "a function that raises": ("raise KeyError('gone')", 1, "mine.py:make raised KeyError: 'gone'"),
    "a target never reached": ("parts['target'] = -1.0", 3, "No batch size and rate reached the target"),
}


@pytest.mark.parametrize(("changes", "code", "message"), WRONG_WORKLOADS.values(), ids=WRONG_WORKLOADS)
def test_a_wrong_workload_gets_one_clear_message(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, changes: str, code: int, message: str
) -> None:
    pytest.importorskip("torch")
    name = write_workload(tmp_path, changes)
    result = run("sweep", name, "--batch-sizes", "16", "--seeds", "1")
    assert result.code == code
    assert result.err.startswith("rightbatch: ")
    assert message in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) <= 3


def test_a_good_workload_of_ones_own_is_answered(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    name = write_workload(tmp_path, "")
    result = run("find", name, "--batch-sizes", "4..64", "--seeds", "2", "--json")
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    assert answer["workload"] == "mine"
    assert answer["batch_size"] in (4, 8, 16, 32, 64)
    assert re.search(r"reaches: [\d.]+, less 2 % of the gain from [\d.]+", answer["target"]["origin"])
    assert (tmp_path / "mine.study.db").is_file()
    again = run("find", name, "--batch-sizes", "4..64", "--seeds", "2", "--json")
    assert json.loads(again.out)["batch_size"] == answer["batch_size"]


def test_changed_code_is_not_mixed_into_a_study(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    arguments = ("--batch-sizes", "16", "--seeds", "1", "--rates", "0.01")
    assert run("sweep", write_workload(tmp_path, ""), *arguments).code == 0
    changed = write_workload(tmp_path, "")
    text = (tmp_path / "mine.py").read_text().replace("lambda: nn.Linear(5, 1)", "lambda: nn.Linear(5, 1, bias=False)")
    (tmp_path / "mine.py").write_text(text)
    os.utime(tmp_path / "mine.py", (time.time() + 5, time.time() + 5))  # or Python would take its cached lines
    result = run("sweep", changed, *arguments)
    assert result.code == 1
    assert "The code of 'mine', or the checkpoint that its runs start from, has changed since" in result.err


def test_a_profile_shows_what_was_asked_for_and_says_what_was_not_measured_again(run) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    first = run("profile", "quadratic", "--batch-sizes", "16,20", "--rounds", 3)
    assert first.code == 0, first.err
    assert "--again" not in first.out
    second = run("profile", "quadratic", "--batch-sizes", "16,24", "--rounds", 3)
    assert "not measured again: 16 (--again measures anew)" in second.out
    assert [line.split()[0] for line in second.out.splitlines()[1:3]] == ["16", "24"]
    both = json.loads(run("profile", "quadratic", "--batch-sizes", "16,20", "--again", "--rounds", 3, "--json").out)
    assert [record["batch_size"] for record in both["step_times"]] == [16, 20]
    assert both["not_measured_again"] == []


def test_a_profile_takes_what_a_program_does_not_say_itself(run) -> None:  # type: ignore[no-untyped-def]
    body = "import sys; [print('at', k, 'loss', 1, 'after', k * float(sys.argv[3]), flush=True) for k in range(1, 9)]"
    program = (sys.executable, "-I", "-S", "-c", body, "{batch_size}", "{learning_rate}", "{pace}")
    pattern = r"at (?P<step>\S+) loss (?P<valid_loss>\S+) after (?P<seconds>\S+)"
    options = ("--rounds", 3, "--train-examples", 100, "--present", "8,0.1", "--pattern", pattern, "--set", "pace=0.5")
    result = run("profile", *options, "--study", "a.study.db", "--json", "--", *program)
    assert result.code == 0, result.err
    found = json.loads(result.out)["step_times"]
    assert [record["batch_size"] for record in found] == [2, 4, 8, 16, 32, 64]
    assert {second for record in found for second in record["seconds"]} == {0.5}
    with Study.open("a.study.db") as study:
        assert study.facts.train_examples == 100


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("sweep", "digits", "--batch-sizes", "4096"), 1, "Batch size 4096 is larger than the data: 1437"),
        (("find", "no-such"), 1, "There is no workload 'no-such'. Give a bundled one (digits"),
        (("find", "nowhere.py:make"), 1, "There is no file nowhere.py"),
        (("find", "nowhere.csv"), 1, "There is no table at nowhere.csv"),
        (("show", "nowhere.study.db"), 1, "There is no study at nowhere.study.db"),
        (("find", "digits", "--present", "32"), 1, "--present is BATCH_SIZE,RATE"),
        (("find", "digits", "--present", "0,0.1"), 1, "a batch size of at least 1 and a positive learning rate"),
        (("find", "digits", "--present", "32,-0.1"), 1, "a batch size of at least 1 and a positive learning rate"),
        (("find", "digits", "--set", "momentum"), 1, "--set is NAME=VALUE"),
        (("find", "digits", "--batch-sizes", "5..7"), 1, "no power of two between 5 and 7"),
        (("find", "digits", "--batch-sizes", "0..8"), 1, "whole numbers from 1, got '0..8'"),
        (("sweep", "digits", "--batch-sizes", "0..8"), 1, "whole numbers from 1, got '0..8'"),
        (("profile", "digits", "--batch-sizes", "0..8"), 1, "whole numbers from 1, got '0..8'"),
        (("profile", "digits", "--train-examples", "50"), 1, "train_examples is for loops and commands"),
        (("sweep", "digits", "--batch-sizes", "8", "--until", "bored"), 1, "until horizon, target or patience"),
        (("sweep", "digits", "--batch-sizes", "8", "--set", "dropout=0.5"), 1, "declares no setting 'dropout'"),
        (("find", "digits", "--device", "cuda:99"), 1, "Device 'cuda:99' cannot be used here"),
        (("find", "digits", "--study", "/dev/null/x.study.db"), 1, "cannot be written"),
        (("find",), 2, "Missing argument"),
        (("fnid", "digits"), 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_input_gets_one_clear_message(  # type: ignore[no-untyped-def]
    run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    pytest.importorskip("torch")
    result = run(*arguments)
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("damage", ["not a study", "newer schema"])
def test_a_study_that_cannot_be_read_gets_one_clear_message(run, golden: Path, damage: str) -> None:  # type: ignore[no-untyped-def]
    if damage == "not a study":
        golden.write_text("not a study at all")
        expected = "is not a study of rightbatch"
    else:
        with sqlite3.connect(golden) as connection:
            connection.execute("UPDATE study SET schema_version = 99")
        connection.close()
        expected = "schema_version 99; this version of rightbatch knows up to 7"
    for arguments in (("show", golden), ("report", golden), ("export", golden, "x.csv")):
        result = run(*arguments)
        assert result.code == 1
        assert expected in result.err


def test_an_unwritable_page_is_said(run, golden: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("report", golden, "--out", "/dev/null/page.html")
    assert result.code == 1
    assert "/dev/null/page.html cannot be written" in result.err


def test_debug_shows_the_whole_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rightbatch", "show", "nowhere.study.db", "--debug"])
    with pytest.raises(RightbatchError, match="There is no study"):
        main()


# -------------------------------------------------------------------------------------------- killed in the middle


def test_killed_in_the_middle_no_finished_run_is_lost_or_repeated(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "rightbatch", "sweep", "quadratic", "--batch-sizes", "64,256", "--seeds", "2"]
    command += ["--rates", "0.05,0.1", "--target", "0.5", "--epochs", "1", "--study", "q.study.db"]
    finished: set[tuple[int, float, int]] = set()
    for kill in (True, True, False):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kill:
            _wait_for_a_run_after(tmp_path / "q.study.db", finished)
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=120)
        now = _finished(tmp_path / "q.study.db")
        assert len(now) == len(set(now))
        assert finished <= set(now)
        finished = set(now)
    assert process.returncode == 0
    assert finished == {(size, rate, seed) for size in (64, 256) for rate in (0.05623, 0.1) for seed in (0, 1)}


def _finished(path: Path) -> list[tuple[int, float, int]]:
    with sqlite3.connect(path) as connection:
        query = "SELECT batch_size, learning_rate, seed FROM runs WHERE stop_reason = 'finished'"
        rows = connection.execute(query).fetchall()
    connection.close()
    return rows


def _wait_for_a_run_after(path: Path, known: set[tuple[int, float, int]]) -> None:
    for _ in range(1200):
        if path.exists():
            try:
                if len(_finished(path)) > len(known):
                    return
            except sqlite3.OperationalError:  # its tables are not there yet
                pass
        time.sleep(0.05)
    raise AssertionError("no run finished within a minute")


def test_ctrl_c_leaves_a_whole_study_and_says_how_to_go_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "rightbatch", "sweep", "quadratic", "--batch-sizes", "64", "--study", "q.study.db"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_for_a_run_after(tmp_path / "q.study.db", set())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "What was measured is kept; the same command goes on: rightbatch sweep quadratic" in said
    assert "Traceback" not in said
    with sqlite3.connect(tmp_path / "q.study.db") as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE stop_reason IS NULL").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_warning_is_a_sentence(run, monkeypatch: pytest.MonkeyPatch, golden: Path) -> None:  # type: ignore[no-untyped-def]
    def warned(*arguments: object, **more: object) -> None:
        warnings.warn("Runs are made one at a time.", stacklevel=1)
        raise RightbatchError("enough")

    monkeypatch.setattr("rightbatch.pipeline.show.show", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("show", golden)
    assert result.err.splitlines()[0] == "warning: Runs are made one at a time."
