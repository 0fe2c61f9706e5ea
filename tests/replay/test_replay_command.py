"""Replay from end to end: the same report each time and with any number of workers, and what a person sees of it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from made_up_tables import TARGET, write_table

from rightbatch.cli import main
from rightbatch.errors import InputError
from rightbatch.pipeline.replay import replay
from rightbatch.records import to_json


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("replayed") / "made_up.csv.gz")


QUICK = ("random", "grid", "default-32", "largest")


def test_a_report_is_the_same_with_two_workers(table: Path) -> None:
    alone, shared = (replay(table, [TARGET], strategies=QUICK, repeats=5, workers=n) for n in (1, 2))
    assert to_json(alone) == to_json(shared)
    assert list(alone.targets[0].outcomes) == list(QUICK)
    other = replay(table, [TARGET], strategies=QUICK, repeats=5, first_repeat=5)
    assert to_json(other) != to_json(alone)


def test_more_spend_is_not_worse_for_who_runs_everything(table: Path) -> None:
    found = replay(table, [TARGET], strategies=["random"], repeats=20, until_units=30)
    outcome = found.targets[0].outcomes["random"]
    medians = [after.regret.median for after in outcome.after]
    assert medians[-1] < medians[0]
    assert medians[-1] < 1.5
    assert outcome.lasting_units == math.inf or 0 < outcome.lasting_units <= 30


def test_our_search_is_good_early_and_says_so(table: Path) -> None:
    found = replay(table, [TARGET], strategies=["rightbatch"], repeats=2, optimizer="SGD momentum")
    outcome = found.targets[0].outcomes["rightbatch"]
    assert outcome.covered is not None
    assert 0 <= outcome.covered <= 1
    assert outcome.sizes is not None
    assert outcome.after[-1].regret.median < 2
    assert outcome.after[-1].regret.missing == 0


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["rightbatch", "replay", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_command_prints_a_table_and_json(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [table, "--target", TARGET, "--strategy", "random", "--strategy", "default-32", "--repeats", 3]
    code, printed, _ = run(monkeypatch, capsys, *words, "--units", 30)
    assert code == 0
    assert "made_up: target 0 takes" in printed
    assert "that at batch size 32; a unit is" in printed
    rows = [line.split()[0] for line in printed.splitlines() if line.startswith(("random", "default-32", "floor"))]
    assert rows == ["random", "default-32", "floor"]
    assert "…" not in printed  # nothing is cut off within 80 characters
    code, printed, _ = run(monkeypatch, capsys, *words, "--json")
    assert code == 0
    (report,) = json.loads(printed)
    target = report["targets"][0]
    assert target["small_ratio"] == pytest.approx(
        target["scale"]["small_seconds"] / target["scale"]["reference_seconds"]
    )
    assert set(target["floor"]) == {"median", "ninetieth", "missing"}
    assert [one["spend_units"] for one in target["outcomes"]["random"]["after"]] == [0, 0.25, 0.5, 1, 2, 3]
    assert set(target["outcomes"]["random"]["after"][0]) == {"spend_units", "regret", "covered"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.csv"], "no table at nowhere.csv"),
        (["TABLE", "--target", "99"], "reaches 99"),
        (["TABLE", "--target", "0", "--strategy", "hope"], "no strategy 'hope'"),
        (["TABLE", "--target", "0", "--units", "0"], "positive spend"),
    ],
)
def test_wrong_words_are_said(
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    code, _, complaint = run(monkeypatch, capsys, *(str(table) if word == "TABLE" else word for word in words))
    assert code == 1
    assert says in complaint


def test_a_table_with_one_seed_everywhere_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "one.csv", seeds=lambda size, rate: 1, sizes=(8,))
    with pytest.raises(InputError, match="at least two"):
        replay(path, [TARGET])
