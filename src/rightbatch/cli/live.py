"""What is seen while runs are made: a few lines that change, in a terminal only."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.beginnings import HELD
from rightbatch.pipeline.outlook import Outlook
from rightbatch.pipeline.searching import guess_of
from rightbatch.pipeline.show import evidence_of
from rightbatch.records import Run
from rightbatch.report import units
from rightbatch.store import Study, being_written
from rightbatch.wording import counted

REFRESH_PER_SECOND = 8
GUESS_SECONDS = 2.0
"""What the search believes is asked again this often: that takes hundredths of a second."""

SHORT_SECONDS, LONG_SECONDS = 5.0, 60.0
"""Where training takes less, nothing is said of it; where it may take longer, a budget is hinted at."""

FEWEST_ENDED = 5
"""How long it still takes is said after so many runs."""

FOLLOW_SECONDS = 1.0
"""How often a study that another process writes is read again."""


class Live:
    """Use as a context; `watch` is what the loop calls. Silent where the console is not a terminal.

    The lines are drawn by a thread of their own, so `watch` never changes what `render` may be looking at: it replaces
    the dictionaries of the runs under way and of those paused each time.
    """

    def __init__(self, console: Console, *, budget_seconds: float | None = None) -> None:
        self._console = console
        self._budget = budget_seconds
        self._live: RichLive | None = None
        self._started = time.monotonic()
        self._running: Mapping[int, tuple[Run, str, float]] = {}
        self._paused: Mapping[int, Run] = {}
        self._ended = 0
        self._training = 0.0
        self._evidence: Evidence | None = None
        self._guess, self._guessed = "", -math.inf
        self._outlook: Outlook | None = None
        self._foreseen = self._started

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._live = RichLive(
                get_renderable=self.render,
                console=self._console,
                transient=True,
                refresh_per_second=REFRESH_PER_SECOND,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def expect(self, outlook: Outlook) -> None:
        """Say how long it is going to take, in a terminal or not, unless it is soon over."""
        self._outlook, self._foreseen = outlook, time.monotonic()
        if outlook.high_seconds is not None and outlook.high_seconds < SHORT_SECONDS:
            return
        long = (outlook.high_seconds or math.inf) > LONG_SECONDS and self._budget is None
        hint = "; --budget TIME, as 10m, ends it sooner, and the same command goes on" if long else ""
        self._console.print(f"{outlook_text(outlook)}{hint}", style="dim", soft_wrap=True, markup=False)

    def watch(self, run: Run, why: str, evidence: Evidence) -> None:
        """Take note of a new point, a pause or the end of a run."""
        if self._live is None:
            return
        if time.monotonic() - self._guessed > GUESS_SECONDS:
            self._guess, self._guessed = best_guess(evidence), time.monotonic()
        self._evidence = evidence
        paused = {number: other for number, other in self._paused.items() if number != run.identifier}
        running = {number: row for number, row in self._running.items() if number != run.identifier}
        if run.stop is None and why == HELD:
            self._paused, self._running = {**paused, run.identifier: run}, running
            return
        self._paused = paused
        if run.stop is None:
            begun = self._running[run.identifier][2] if run.identifier in self._running else time.monotonic()
            self._running = {**self._running, run.identifier: (run, why, begun)}
            return
        self._running = running
        self._ended += 1
        self._training += run.points[-1].seconds if run.points else 0.0
        self._evidence = evidence.with_run(run)

    def render(self) -> RenderableType:
        """The lines as they are now."""
        now = time.monotonic() - self._started
        if self._evidence is None:
            return Text(f"{units.seconds(now)}: measuring seconds per step, starting")
        running, paused = self._running, self._paused  # the same ones in every line
        unended = (*(run for run, _, _ in running.values()), *paused.values())
        training = self._training + sum(run.points[-1].seconds for run in unended if run.points)
        head = [f"{units.seconds(now)}", _counts(self._ended, len(running), len(paused), self._outlook)]
        if self._budget is not None:
            head.append(f"at most {units.seconds(max(0.0, self._budget - now))} left")
        elif left := self._left():
            head.append(left)
        head.append(f"{units.seconds(training)} of it in training steps")
        lines: list[RenderableType] = [Text(" | ".join(head))]
        if best := best_so_far(self._evidence):
            lines.append(Text(f"best so far: {best}", style="bold"))
        if self._guess:
            lines.append(Text(f"best guess: {self._guess}"))
        lines.append(running_table(running, self._evidence))
        return Group(*lines)

    def _left(self) -> str:
        """By the wall seconds of the runs so far, where it is known how many there will be."""
        runs = self._outlook.runs if self._outlook else None
        if runs is None or self._ended < FEWEST_ENDED:
            return ""
        each = (time.monotonic() - self._foreseen) / self._ended
        return f"about {units.seconds(each * max(1, runs - self._ended))} more"


def outlook_text(outlook: Outlook) -> str:
    """How many runs, and how long."""
    about = "" if outlook.exact else "roughly "
    parts = [] if outlook.runs is None else [f"{about}{counted(outlook.runs, 'run')}"]
    if outlook.low_seconds is None or outlook.high_seconds is None:
        parts.append("how long they take is not known: no planned length, or no seconds per step")
    else:
        low, high = units.seconds(outlook.low_seconds), units.seconds(outlook.high_seconds)
        parts.append(f"{low if outlook.exact else f'{about}{low} to {high}'} of training steps, and evaluation")
    return "to come: " + ", ".join(parts)


def follow(path: str | Path, console: Console, **asked: Any) -> None:
    """Show a study while another process goes on with it; returns when nobody writes it any more.

    In a terminal a few lines that change, elsewhere one line for each run that has ended. Raises `StudyError` when the
    study cannot be opened.
    """
    told: set[int] = set()
    begun: dict[int, float] = {}
    with (
        RichLive(console=console, transient=True, auto_refresh=False) if console.is_terminal else nullcontext() as live
    ):
        while True:
            writing = being_written(Path(path))
            with Study.open(path) as study:
                runs = study.runs()
                try:
                    evidence = evidence_of(study, Ask(**asked))
                except InsufficientEvidence:  # its target is being derived
                    evidence = None
            running = {
                run.identifier: (run, "", begun.setdefault(run.identifier, time.monotonic()))
                for run in runs
                if run.stop is None
            }
            paused = [run for run in runs if run.stop is not None and run.stop.message == HELD]
            ended = [run for run in runs if run.stop is not None and run.stop.message != HELD]
            best = best_so_far(evidence) if evidence is not None else ""
            if live is not None:
                head = _counts(len(ended), len(running), len(paused)) + (f" | best so far: {best}" if best else "")
                rows = [running_table(running, evidence)] if evidence is not None else []
                live.update(Group(Text(head), *rows), refresh=True)
            else:
                for run in ended:
                    if run.identifier not in told:
                        console.print(_ended_line(run) + (f" | best so far: {best}" if best else ""), soft_wrap=True)
                told |= {run.identifier for run in ended}
            if not writing:
                return
            time.sleep(FOLLOW_SECONDS)


def _counts(ended: int, running: int, paused: int, outlook: Outlook | None = None) -> str:
    if outlook is not None and outlook.runs is not None and ended <= outlook.runs:
        done = f"{ended} of {'' if outlook.exact else 'roughly '}{outlook.runs} runs done"
        return f"{done}, {running} running" + (f", {paused} paused" if paused else "")
    return f"{ended} runs done, {running} running" + (f", {paused} paused" if paused else "")


def _ended_line(run: Run) -> str:
    trial = run.trial
    reason = run.stop.message or run.stop.reason.value if run.stop else ""
    examples = f"{run.points[-1].examples:,} examples" if run.points else "no point"
    return (
        f"run {run.identifier}: batch {trial.batch_size}, rate {units.rate(trial.learning_rate)}, seed {trial.seed}: "
        f"{examples}, {reason}"
    )


def running_table(running: Mapping[int, tuple[Run, str, float]], evidence: Evidence) -> Table:
    """One row a run under way: what it is, how far it is, what it has reached, how long it may still take."""
    table = Table(box=None, pad_edge=False, show_header=False)
    quantity = evidence.question.target.quantity
    for run, why, begun in running.values():
        trial, last = run.trial, run.points[-1] if run.points else None
        value = units.significant(getattr(last, quantity)) if last else "-"
        table.add_row(
            f"batch {trial.batch_size}, rate {units.rate(trial.learning_rate)}, seed {trial.seed}",
            f"{last.examples:,} examples" if last else "starting",
            f"{evidence.judged_by.replace('_', ' ')} {value}",
            _time_left(run, run.wall_seconds + time.monotonic() - begun),
            f"[dim]{why}[/dim]",
        )
    return table


def best_so_far(evidence: Evidence) -> str:
    """The cheapest cell of what is known, in words; empty while there is none."""
    cell = evidence.best_cell
    if cell is None:
        return ""
    cost = units.cost(cell.mean, evidence.question.objective)
    return f"batch {cell.batch_size}, rate {units.rate(cell.learning_rate)}, {cost}"


def best_guess(evidence: Evidence) -> str:
    """What the search would train with now, in words, with the sizes that may be the best; empty where it has none."""
    guess = guess_of(evidence)
    if guess is None or guess.seconds is None or guess.sizes is None:
        return ""
    low, high = (
        units.cost(bound or 0.0, evidence.question.objective) for bound in (guess.seconds.low, guess.seconds.high)
    )
    return (
        f"batch {guess.batch_size} (90 %: {guess.sizes[0]} to {guess.sizes[1]}), "
        f"rate {units.rate(guess.learning_rate)}, {low} to {high}"
    )


def _time_left(run: Run, spent: float) -> str:
    """At the pace so far, until the planned length: a run may well stop before."""
    done, planned = run.points[-1].examples if run.points else 0, run.trial.planned_examples
    if not done or not planned:
        return ""
    return f"at most {units.seconds(spent * max(0.0, planned / done - 1))} more"
