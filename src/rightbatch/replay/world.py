"""One repeat of a replay: what a search may see of a table, what it pays for it, and what its advice is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rightbatch.evidence import Evidence
from rightbatch.question import Objective, Question
from rightbatch.records import Run, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.replay.scale import Scale, judged_seconds, split
from rightbatch.replay.table import Array, Cell, Table
from rightbatch.search.searcher import Guess, Searcher
from rightbatch.search.strategy import Advance, Done, Offers

MOST_HIDDEN = 2
"""So many rates at each end of a table may be hidden from a repeat."""


@dataclass(frozen=True)
class Told:
    """What a search is told before it begins. `generator` is for searches that draw at random."""

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    train_examples: int
    optimizer: str
    target: Target
    cap_seconds: float
    offers: Offers
    generator: np.random.Generator


MakeSearcher = Callable[[Told], Searcher]


@dataclass(frozen=True)
class Moment:
    """From `spent_seconds` on the search advises this guess, until its next moment."""

    spent_seconds: float
    guess: Guess
    reached: bool
    """Whether the guess has reached the target in all of its own runs, and has one."""


@dataclass
class World:
    """A table with its seeds split, some of its rates hidden, and a clock of training seconds."""

    table: Table
    scale: Scale
    seen: dict[Cell, tuple[Run, ...]]
    judging: dict[Cell, Array]
    told: Told
    times: dict[Cell, Array]
    spent_seconds: float = 0.0
    _runs: dict[tuple[int, float, int], Run] = field(default_factory=dict)
    evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        facts = WorkloadFacts(
            name=self.table.name,
            train_examples=self.told.train_examples,
            valid_examples=0,
            planned_examples=0,
            metric="valid_metric",
            direction="max",
            optimizer=self.told.optimizer,
        )
        self.evidence = Evidence(facts, (), (), Question(Objective.TIME, self.told.target))

    def play(self, search: Searcher, until_seconds: float) -> tuple[Moment, ...]:
        """Let a search act until it is done or the clock is past `until_seconds`; what it advised from when on."""
        moments = [self._moment(search)]
        while self.spent_seconds < until_seconds:
            action = search(self.evidence)
            if isinstance(action, Advance):
                self._advance(action)
            else:
                assert isinstance(action, Done), f"one run at a time is made here: {action}"
                break
            moments.append(self._moment(search))
        return tuple(moments)

    def judge(self, guess: Guess) -> float:
        """Median training seconds to the target over the judging seeds; infinite if half of them or more miss."""
        return judged_seconds(self.judging[guess.batch_size, guess.learning_rate])

    # ------------------------------------------------------------------------------------------------- actions

    def _advance(self, action: Advance) -> None:
        """Reveal a run rung by rung until the rule says stop or the run ends; only what is new costs seconds."""
        trial = action.trial
        key = (trial.batch_size, trial.learning_rate, trial.seed)
        whole = self.seen[key[:2]][trial.seed]
        had = self._runs.get(key)
        shown = len(had.points) if had else 0
        ended = shown == len(whole.points)
        assert not ended, f"{trial} has ended: there is nothing to continue"
        before = whole.points[shown - 1].step if shown else 0
        why: str | None = None
        while why is None and shown < len(whole.points):
            shown += 1
            points = whole.points[:shown]
            why = action.until(points) or (action.pause(points) if action.pause else None)
        stop = None
        if shown == len(whole.points):
            diverged = whole.stop is not None and whole.stop.reason is StopReason.DIVERGED
            stop = Stop(StopReason.DIVERGED if diverged else StopReason.FINISHED)
        run = Run(trial, whole.points[:shown], stop, identifier=had.identifier if had else len(self._runs) + 1)
        self._runs[key] = run
        self.spent_seconds += (run.points[-1].step - before) * self.table.step_seconds[trial.batch_size]
        self.evidence = self.evidence.with_run(run)

    def _moment(self, search: Searcher) -> Moment:
        guess = search.guess(self.evidence)
        cell = (guess.batch_size, guess.learning_rate)
        own = [run for key, run in self._runs.items() if key[:2] == cell]
        reached = [
            crossed
            for run in own
            # A run that was paused before its target says nothing against the cell.
            if (crossed := self.evidence.crossing(run) is not None) or run.stop is not None
        ]
        return Moment(self.spent_seconds, guess, bool(reached) and all(reached))


def make_world(table: Table, scale: Scale, repeat: int, *, optimizer: str = "", train_examples: int = 0) -> World:
    """One repeat: seeds split at random, none to two rates hidden at each end, never that of the best cell."""
    generator = np.random.default_rng([repeat, round(1e6 * abs(scale.target)), *table.name.encode()])
    times = table.times_to(scale.target)
    best = table.rates.index(scale.best[1])
    low = min(int(generator.integers(MOST_HIDDEN + 1)), best)
    high = max(len(table.rates) - 1 - int(generator.integers(MOST_HIDDEN + 1)), best)
    rates = table.rates[low : high + 1]
    halves = {cell: split(generator, len(table.runs[cell])) for cell in table.cells if cell[1] in rates}
    seen = {cell: tuple(table.runs[cell][k] for k in halves[cell][0]) for cell in halves}
    judging = {cell: times[cell][halves[cell][1]] for cell in halves}

    def offers(trial: Trial) -> bool:
        return trial.seed < len(seen.get((trial.batch_size, trial.learning_rate), ()))

    told = Told(
        sizes=table.sizes,
        rates=rates,
        train_examples=train_examples or 4 * table.sizes[-1],
        optimizer=optimizer,
        target=Target(scale.target, "valid_metric", "max"),
        cap_seconds=table.cap_seconds,
        offers=offers,
        generator=generator,
    )
    return World(table, scale, seen, judging, told, {cell: times[cell][halves[cell][0]] for cell in halves})
