"""The lines that are seen while runs are made, as runs begin and end."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from rightbatch.cli import live
from rightbatch.evidence import Evidence
from rightbatch.pipeline.beginnings import HELD
from rightbatch.pipeline.outlook import Outlook
from rightbatch.pipeline.show import show
from rightbatch.records import Run, Stop, StopReason
from rightbatch.store import Study
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


def test_how_much_is_to_come_is_said_before_and_counted_down(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RichLive", Undrawn)
    console = terminal()
    shown = live.Live(console).__enter__()
    shown.expect(Outlook(40, 30.0, 120.0))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        "to come: roughly 40 runs, roughly 30.0 s to 2 min 00 s of training steps, and evaluation; --budget TIME, "
        "as 10m, ends it sooner, and the same command goes on\n"
    )
    for number in range(5):
        assert " more" not in text(shown.render()).splitlines()[0]
        shown.watch(replace(a_run(evidence, number), stop=Stop(StopReason.FINISHED)), "why", evidence)
    told = text(shown.render())
    assert "5 of roughly 40 runs done, 0 running | about " in told
    assert re.search(r"about \S+ \S+ more", told)


@pytest.mark.parametrize(
    ("outlook", "said"),
    [
        (Outlook(60, 30.0, 30.0, exact=True), "to come: 60 runs, 30.0 s of training steps, and evaluation"),
        (Outlook(None, 2.0, 10.0), "to come: roughly 2.00 s to 10.0 s of training steps, and evaluation"),
        (Outlook(1, None, None, exact=True), "to come: 1 run, how long they take is not known: no planned length"),
    ],
)
def test_an_outlook_in_words(outlook: Outlook, said: str) -> None:
    assert live.outlook_text(outlook).startswith(said)


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


def test_a_paused_run_is_counted_as_paused_until_it_goes_on_or_ends(shown: live.Live, evidence: Evidence) -> None:
    runs = [a_run(evidence, number) for number in range(2)]
    for run in runs:
        shown.watch(run, "why", evidence)
    shown.watch(runs[0], HELD, evidence)
    told = text(shown.render())
    assert "0 runs done, 1 running, 1 paused" in told
    assert seeds_in(told) == 1
    trained = sum(run.points[-1].seconds for run in runs)
    assert f"{live.units.seconds(trained)} of it in training steps" in told  # that of the paused one too
    shown.watch(runs[0], "why", evidence)
    told = text(shown.render())
    assert "0 runs done, 2 running |" in told
    assert seeds_in(told) == 2
    shown.watch(runs[0], HELD, evidence)
    shown.watch(replace(runs[0], stop=Stop(StopReason.STOPPED_BY_RULE)), HELD, evidence)
    told = text(shown.render())
    assert "1 runs done, 1 running |" in told


def test_who_follows_a_study_sees_paused_runs_as_neither_done_nor_running(tmp_path: Path) -> None:
    path = tmp_path / "live.study.db"
    synthetic_study(path, batch_sizes=(16, 64), seeds=1).close()
    with Study.open(path, write=True) as study:
        first, second, *others = study.runs()
        study.stop_run(first.identifier, Stop(StopReason.INTERRUPTED, HELD), 0.0)
        study.reopen_run(second.identifier)
        assert study.runs()[1].stop is None
        study.stop_run(second.identifier, Stop(StopReason.INTERRUPTED, HELD), 0.0)
    console = Console(file=io.StringIO(), width=200)
    live.follow(path, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == len(others)
    assert not any(line.startswith((f"run {first.identifier}:", f"run {second.identifier}:")) for line in lines)
