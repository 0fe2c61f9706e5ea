"""The lines that are seen while runs are made, as runs begin and end."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from rightbatch.cli import live
from rightbatch.evidence import Evidence
from rightbatch.pipeline.show import show
from rightbatch.records import Run, Stop, StopReason
from rightbatch.testing import synthetic_study


class Undrawn:
    """A live display without its thread, so that a test says when it is drawn."""

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    path = tmp_path_factory.mktemp("live") / "live.study.db"
    synthetic_study(path, batch_sizes=(16, 64, 256), seeds=2).close()
    return show(path)[1]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> live.Live:
    monkeypatch.setattr(live, "RichLive", Undrawn)
    return live.Live(terminal()).__enter__()


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)


def text(lines: RenderableType) -> str:
    console = terminal()
    console.print(lines)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def a_run(evidence: Evidence, number: int) -> Run:
    return replace(evidence.runs[number], stop=None, identifier=1000 + number)


def seeds_in(told: str) -> int:
    return len(re.findall(r"seed \d", told))


def test_runs_that_begin_and_end_are_counted(shown: live.Live, evidence: Evidence) -> None:
    runs = [a_run(evidence, number) for number in range(3)]
    assert "measuring seconds per step" in text(shown.render())
    for run in runs:
        shown.watch(run, "why", evidence)
    told = text(shown.render())
    assert "0 runs done, 3 running" in told
    assert seeds_in(told) == 3
    for ended, run in enumerate(runs, start=1):
        shown.watch(replace(run, stop=Stop(StopReason.FINISHED)), "why", evidence)
        told = text(shown.render())
        assert f"{ended} runs done, {3 - ended} running" in told
        assert seeds_in(told) == 3 - ended


@pytest.mark.parametrize("ends", [False, True], ids=["one begins", "one ends"])
def test_runs_that_begin_or_end_while_the_lines_are_drawn_are_in_the_next_ones(
    shown: live.Live, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    for number in range(3):
        shown.watch(a_run(evidence, number), "why", evidence)
    other = replace(a_run(evidence, 1), stop=Stop(StopReason.FINISHED)) if ends else a_run(evidence, 3)
    time_left = live._time_left

    def meanwhile(run: Run, spent: float) -> str:
        """In the middle of the first row, as the other thread may."""
        monkeypatch.setattr(live, "_time_left", time_left)
        shown.watch(other, "why", evidence)
        return time_left(run, spent)

    monkeypatch.setattr(live, "_time_left", meanwhile)
    told = text(shown.render())
    assert "3 running" in told
    assert seeds_in(told) == 3
    assert seeds_in(text(shown.render())) == (2 if ends else 4)


def test_nothing_is_kept_where_the_console_is_no_terminal(evidence: Evidence) -> None:
    with live.Live(Console(file=io.StringIO())) as silent:
        silent.watch(a_run(evidence, 0), "why", evidence)
        assert "measuring seconds per step" in text(silent.render())


def test_the_study_that_is_watched_may_have_no_answer_yet(shown: live.Live, evidence: Evidence) -> None:
    nothing = replace(evidence, runs=())
    shown.watch(replace(a_run(evidence, 0), points=()), "why", nothing)
    told = text(shown.render())
    assert "starting" in told
    assert "best so far" not in told
