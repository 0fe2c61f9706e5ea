"""Optuna as a person would use it here: log seconds to the target made small, bad runs pruned by Hyperband.

* The batch size and the rate are log-uniform over their ranges, and snapped to the nearest cell that can be run.
* A trial's value is the log of its seconds to the target; a run that ends short of it is scored at the cap.
* Its intermediate values, after 1, 4, 16, 64 and 256 parts of the cap, are how far its best value is from the target; a
  run that got there is at 0 from then on. Hyperband (Li et al. 2018, arXiv 1603.06560) prunes by them.
* A cell that is proposed again goes on with its pruned run, which pays only for what is new; else with its next seed.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

from rightbatch.curves import Curve, StopRule, best_value, until_target
from rightbatch.errors import MissingExtra
from rightbatch.evidence import Evidence
from rightbatch.records import Run, Target, Trial
from rightbatch.replay.seen import cells_of, fastest, seconds_of
from rightbatch.replay.table import Cell
from rightbatch.replay.world import Told
from rightbatch.search.searcher import Guess
from rightbatch.search.strategy import Action, Advance, Done

FACTOR = 4
"""Of every four runs Hyperband lets one go on to four times the seconds."""

RUNGS = tuple(FACTOR**k for k in range(5))
"""In parts of the cap, the last of which is all of it."""

WAITING = 1
"""A run is let go on only beside so many others. Optuna's own choice is 0: the first run of all then goes on to the
cap, however bad it is, and the cost to a regret of 1.25 is about twice as high on our tables."""

Key = tuple[int, float, int]
"""Batch size, rate and seed of a run."""


def tpe(told: Told) -> OptunaSearch:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), Optuna's default. Raises `MissingExtra` without it."""
    return OptunaSearch(told, lambda optuna, seed: optuna.samplers.TPESampler(seed=seed))


def gp(told: Told) -> OptunaSearch:
    """A Gaussian process with expected improvement. Raises `MissingExtra` where Optuna is not installed."""
    return OptunaSearch(told, lambda optuna, seed: optuna.samplers.GPSampler(seed=seed))


class OptunaSearch:
    """One study of Optuna, advanced by one slice of a run a call.

    The study is a state, which no other strategy has: asked twice with the same evidence, it answers the same.
    """

    def __init__(self, told: Told, sampler: Callable[[Any, int], Any]) -> None:
        optuna = _optuna()
        self._told, self._cells = told, cells_of(told)
        self._pruned, self._complete = optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE
        seed = int(told.generator.integers(2**31))
        with warnings.catch_warnings():  # what is experimental there says so
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(
                # Hyperband deals trials out to its brackets by this name, which is random where it is not given.
                study_name=f"replay {seed}",
                sampler=sampler(optuna, seed),
                pruner=optuna.pruners.HyperbandPruner(1, RUNGS[-1], FACTOR, bootstrap_count=WAITING),
            )
        self._over: set[Key] = set()
        self._answered: tuple[Evidence, Action] | None = None
        self._ask(None)
        assert self._trial is not None, "nothing is offered"
        self._first = (self._trial.batch_size, self._trial.learning_rate)

    def __call__(self, evidence: Evidence) -> Action:
        if self._answered is None or self._answered[0] is not evidence:
            self._answered = evidence, self._next(evidence)
        return self._answered[1]

    def guess(self, evidence: Evidence) -> Guess:
        """The fastest cell; before any run got there, that of the run that came nearest; before that, the first."""
        found = fastest(evidence)
        if found is None and evidence.runs:
            nearest = min(evidence.runs, key=lambda run: _shortfall(run.points, evidence.question.target))
            found = (nearest.trial.batch_size, nearest.trial.learning_rate)
        return Guess(*(found or self._first))

    # ------------------------------------------------------------------------------------------------- helpers

    def _next(self, evidence: Evidence) -> Action:
        """Tell the study what is known of its trial; where that is over, ask for another, until one has to be run."""
        target = evidence.question.target
        while self._trial is not None:
            run = _run_of(self._trial, evidence)
            seconds = seconds_of(evidence, run) if run else None
            if run is not None and seconds is not None:
                self._over.add(_key(run.trial))
                self._tell_over(seconds)
                self._ask(evidence)
            elif run is None or run.points[-1].seconds < self._rung_seconds or self._rung == len(RUNGS) - 1:
                return Advance(self._trial, until_target(target), "the next slice", _after(self._rung_seconds))
            elif self._report(_shortfall(run.points, target)):
                self._study.tell(self._asked, state=self._pruned)
                self._ask(evidence)
        return Done("every cell was run with every seed")

    def _ask(self, evidence: Evidence | None) -> None:
        """The study's next trial, and the run nearest to it that can be made or continued; None where none is left."""
        self._rung = 0
        runs = [trial for cell in self._cells if (trial := self._open(cell)) is not None]
        if not runs:
            self._trial = None
            return
        self._asked = self._study.ask()
        sizes, rates = self._told.sizes, self._told.rates
        size = self._asked.suggest_int("batch_size", min(sizes), max(sizes), log=True)
        rate = self._asked.suggest_float("learning_rate", min(rates), max(rates), log=True)
        self._trial = min(
            runs, key=lambda t: abs(math.log(t.batch_size / size)) + abs(math.log(t.learning_rate / rate))
        )
        had = _run_of(self._trial, evidence) if evidence else None
        while evidence and had and had.points[-1].seconds >= self._rung_seconds and self._rung < len(RUNGS) - 1:
            # It was pruned there before. To propose it again is to let it go on: only what is new is judged.
            self._report(_shortfall(had.points, evidence.question.target))

    def _open(self, cell: Cell) -> Trial | None:
        """A cell's first seed whose run is not over."""
        seed = next(seed for seed in itertools.count() if (*cell, seed) not in self._over)
        trial = Trial(*cell, seed)
        return trial if self._told.offers(trial) else None

    @property
    def _rung_seconds(self) -> float:
        return float(self._told.cap_seconds * RUNGS[self._rung] / RUNGS[-1])

    def _report(self, shortfall: float) -> bool:
        """Tell the study the trial's value at the next rung; whether it would prune the trial there."""
        self._asked.report(shortfall, RUNGS[self._rung])
        self._rung += 1
        return bool(self._asked.should_prune())

    def _tell_over(self, seconds: float) -> None:
        """Tell the study how a run ended. It also takes part at the rungs that it did not live to see."""
        while self._rung < len(RUNGS):
            self._report(0.0 if math.isfinite(seconds) else math.inf)
        self._study.tell(self._asked, math.log(min(seconds, self._told.cap_seconds)), self._complete)


def _key(trial: Trial) -> Key:
    return trial.batch_size, trial.learning_rate, trial.seed


def _run_of(trial: Trial, evidence: Evidence) -> Run | None:
    return next((run for run in evidence.runs if _key(run.trial) == _key(trial)), None)


def _shortfall(curve: Curve, target: Target) -> float:
    """How far the best value so far is from the target; infinite where there is none."""
    best = best_value(curve, target.quantity, target.direction)
    return math.inf if best is None else 0.0 if target.reached_by(best) else abs(target.value - best)


def _after(seconds: float) -> StopRule:
    def rule(curve: Curve) -> str | None:
        return "the slice is over" if curve[-1].seconds >= seconds else None

    return rule


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
