"""The search: a few runs, paused and continued where knowing more is worth most for what it costs.

What is believed of all batch sizes and rates (`belief`) says what each run would teach: the knowledge gradient
(Frazier, Powell and Dayanik 2009), by how much the lowest expected log cost falls when the run's outcome is known. The
run that teaches most for the square root of its cost goes on by one slice. When no run teaches enough any more, the
best one is trained to the target, and that is the answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rightbatch.curves import Curve, until_target
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.records import Settings, StopReason, Trial
from rightbatch.search.belief import Cell, believe
from rightbatch.search.laws import draw_laws, rate_prior
from rightbatch.search.out_of_reach import NO_MORE
from rightbatch.search.outlook import Mask, Outlook, guess_of
from rightbatch.search.progress import Progress, progress_of, step_costs
from rightbatch.search.searcher import Guess
from rightbatch.search.strategy import Action, Advance, Done, Offers, Wait

LEAST_STEPS = 20
"""The first slice of a run."""

SLICE, LEAST_GROWTH, MOST_GROWTH = 0.3, 0.25, 1.0
"""A slice is this share of what the whole run is expected to cost; a run grows by this at least, and at most."""

ENOUGH = 0.002
"""The search ends when the run that is most worth its cost is expected to lower the log of the answer by less."""

LOST = 2.5
"""A run that has cost this many times what the best is expected to, without reaching the target, is not continued."""

MOST_FRESH = 2
"""So many choices are checked with a fresh seed: the first, and the one that takes its place where it was lucky."""

KNOWN_NOISE = 0.02
"""What stays unknown of a run that is trained to the target."""

FAR, MOST_MOVES = 1.5, 4
"""Where the best rate turns out to be so many deviations from where the prior has it, the prior is moved there."""

Rates = Callable[[Evidence], Sequence[float]]
"""The learning rates to choose from; they may widen as the evidence grows."""


@dataclass(frozen=True)
class FewRuns:
    """The search over given sizes and rates, with at most so many seeds in a cell.

    `fresh`: the winner is trained once more with a seed that took no part in choosing it; what that says is believed
    as well, and may make another one the winner. `longest_cost`: of a run.
    """

    batch_sizes: Sequence[int]
    rates: Rates
    offers: Offers
    seeds: int = 5
    longest_cost: float = math.inf
    fresh: bool = False
    planned_examples: int | None = None
    settings: Settings = field(default_factory=Settings)

    def __call__(self, evidence: Evidence) -> Action:
        outlook = self.outlook(evidence)
        if not outlook.progress:
            return self._first(evidence, outlook)
        if outlook.hopeless:
            return Wait() if evidence.pending else Done("no batch size and rate is left that may reach the target")
        chosen = self._most_worth(evidence, outlook)
        if chosen is not None:
            return self._advance(evidence, outlook, chosen.trial, chosen.whole, "where the next seconds teach most")
        if evidence.pending:
            return Wait()
        if not outlook.reached[outlook.best]:
            row, winner = self._winner(outlook)
            if winner.seed < self.seeds and self.offers(winner):
                return self._advance(
                    evidence, outlook, winner, self._expected(outlook, row), "the winner, to the target"
                )
        return self._fresh(evidence, outlook) or Done("no run that could be made is expected to change the answer")

    def guess(self, evidence: Evidence) -> Guess:
        """The cell of the lowest expected cost; of those about as low, one that has reached the target."""
        return guess_of(self.outlook(evidence), evidence)

    def outlook(self, evidence: Evidence) -> Outlook:
        """What is believed after the evidence, computed once."""
        key, made_of = ("outlook", id(self), evidence.question), (self, evidence.runs, evidence.step_times)
        kept = evidence.memory.get(key)
        # The last one alone is kept, each has a covariance of all cells; beside what it was made of.
        if kept is None or any(one is not other for one, other in zip(kept, made_of, strict=False)):
            kept = evidence.memory[key] = (*made_of, self._outlook(evidence))
        found: Outlook = kept[-1]
        return found

    def next_gain(self, evidence: Evidence) -> tuple[float, float]:
        """By how much the next run is expected to lower the log of the answer's cost, and what it would cost."""
        outlook = self.outlook(evidence)
        chosen = self._most_worth(evidence, outlook)
        return (chosen.gain, chosen.left) if chosen else (0.0, 0.0)

    # ------------------------------------------------------------------------------------------------- helpers

    def _outlook(self, evidence: Evidence) -> Outlook:
        rates = self.rates(evidence)
        cells = [(size, rate) for size in self.batch_sizes for rate in rates if self.offers(self._trial(size, rate, 0))]
        costs = step_costs(evidence, self.batch_sizes)
        progress = progress_of(evidence, costs)
        present, critical = evidence.facts.present, evidence.critical_prior
        centre, spread = rate_prior(evidence.facts.optimizer, present[1] if present else None)
        for _ in range(MOST_MOVES):
            laws = draw_laws(centre, spread, min(rates), max(rates))
            belief = believe(cells, laws, progress, costs, present=present, critical=critical)
            # Hardly any version is left where runs say that the best rate is far from where it was looked for.
            if abs(belief.log_rate - centre) < FAR * spread:
                break
            centre = round(4 * belief.log_rate) / 4
        lost_after = LOST * math.exp(min(float(belief.mean[: len(cells)].min()) + 2 * belief.seed_deviation, 700.0))
        closed = _closed(cells, progress, lost_after) | _barren(cells, evidence)
        hopeless = bool(closed.all())
        return Outlook(belief, progress, np.zeros_like(closed) if hopeless else closed, hopeless)

    def _most_worth(self, evidence: Evidence, outlook: Outlook) -> _Worth | None:
        """The run that teaches most for the root of what is left of its cost; None if it does not teach enough."""
        found = []
        for trial, row, noise, spent in self._candidates(evidence, outlook):
            whole = self._expected(outlook, row)
            least = LEAST_STEPS * math.exp(outlook.belief.log_step_costs[trial.batch_size])
            left = max(whole - spent, 0.1 * spent if spent else least)
            found.append(_Worth(trial, outlook.gain(row, noise), whole, left))
        best = max(found, key=lambda one: max(one.gain, 1e-12) / math.sqrt(one.left), default=None)
        return best if best is not None and best.gain >= ENOUGH else None

    def _candidates(self, evidence: Evidence, outlook: Outlook) -> Iterator[tuple[Trial, int, float, float]]:
        """Each run that could be advanced: its trial, its row in the belief, its noise (squared), what it has cost."""
        belief = outlook.belief
        paused = {run.cell for run in belief.paused}
        under_way = {(trial.batch_size, trial.learning_rate) for trial in evidence.pending}
        for k, cell in enumerate(belief.cells):
            if outlook.closed[k] or cell in paused or cell in under_way:
                continue
            seed = _next_seed(outlook.progress, cell)
            if seed < self.seeds and self.offers(self._trial(*cell, seed)):
                yield self._trial(*cell, seed), k, belief.seed_deviation**2, 0.0
        place = {cell: k for k, cell in enumerate(belief.cells)}
        for k, run in enumerate(belief.paused, start=len(belief.cells)):
            if run.cell in place and not outlook.closed[place[run.cell]] and run.cell not in under_way:
                yield self._trial(*run.cell, run.seed), k, KNOWN_NOISE**2, run.cost

    def _first(self, evidence: Evidence, outlook: Outlook) -> Action:
        """The prior's best guess; where such a run told nothing (it diverged at once), the next best of lower rates."""
        if evidence.pending:
            return Wait()
        told_nothing = [(run.trial.batch_size, run.trial.learning_rate) for run in evidence.relevant if run.stop]
        for k in np.argsort(outlook.belief.mean[: len(outlook.belief.cells)], kind="stable"):
            cell = outlook.belief.cells[int(k)]
            if not any(cell[0] <= size and cell[1] >= rate for size, rate in told_nothing):
                return self._advance(evidence, outlook, self._trial(*cell, 0), 0.0, "the prior's best guess")
        return Done("no run gave a value to judge")

    def _winner(self, outlook: Outlook) -> tuple[int, Trial]:
        """The run that is to reach the target in the best cell: the paused one, or a new one; and its row."""
        cell = outlook.belief.cells[outlook.best]
        for row, run in enumerate(outlook.belief.paused, start=len(outlook.belief.cells)):
            if run.cell == cell:
                return row, self._trial(*cell, run.seed)
        return outlook.best, self._trial(*cell, _next_seed(outlook.progress, cell))

    def _fresh(self, evidence: Evidence, outlook: Outlook) -> Advance | None:
        trial = self._trial(*outlook.belief.cells[outlook.advised], FRESH_SEED)
        checked = {
            (run.trial.batch_size, run.trial.learning_rate)
            for run in evidence.relevant
            if run.trial.seed == FRESH_SEED and evidence.conclusive(run)
        }
        done = (trial.batch_size, trial.learning_rate) in checked or len(checked) >= MOST_FRESH
        if not self.fresh or done or not self.offers(trial):
            return None
        return Advance(trial, until_target(evidence.question.target), "the winner, with a fresh seed")

    def _expected(self, outlook: Outlook, row: int) -> float:
        return float(min(math.exp(min(float(outlook.belief.mean[row]), 700.0)), self.longest_cost))

    def _advance(self, evidence: Evidence, outlook: Outlook, trial: Trial, expected: float, why: str) -> Advance:
        made = next(
            (r for r in outlook.progress if (*r.cell, r.seed) == (trial.batch_size, trial.learning_rate, trial.seed)),
            None,
        )
        steps = made.steps if made else 0
        share = SLICE * expected / math.exp(outlook.belief.log_step_costs[trial.batch_size])
        until = steps + max(LEAST_STEPS, LEAST_GROWTH * steps, min(share, MOST_GROWTH * steps))

        def pause(curve: Curve) -> str | None:
            return "one slice further" if curve[-1].step >= until else None

        return Advance(trial, until_target(evidence.question.target), why, pause)

    def _trial(self, size: int, rate: float, seed: int) -> Trial:
        return Trial(size, rate, seed, self.planned_examples, self.settings)


@dataclass(frozen=True)
class _Worth:
    """A run that could be advanced: by how much it would lower the log cost, what it costs in all and what is left."""

    trial: Trial
    gain: float
    whole: float
    left: float


def _next_seed(progress: Sequence[Progress], cell: Cell) -> int:
    """The first seed of a cell that has not been run."""
    used = {run.seed for run in progress if run.cell == cell}
    return next(seed for seed in itertools.count() if seed not in used)


def _barren(cells: Sequence[Cell], evidence: Evidence) -> Mask:
    """Cells of which a run ended for good before it had trained; out of memory, all sizes at least as large."""
    ended = [run for run in evidence.relevant if run.stop is not None and run.stop.reason in NO_MORE]
    none = {
        (run.trial.batch_size, run.trial.learning_rate) for run in ended if not run.points or not run.points[-1].step
    }
    memory = (run.trial.batch_size for run in ended if run.stop and run.stop.reason is StopReason.OUT_OF_MEMORY)
    too_large = min(memory, default=math.inf)
    return np.array([cell in none or cell[0] >= too_large for cell in cells])


def _closed(cells: Sequence[Cell], progress: Sequence[Progress], lost_after: float) -> Mask:
    """Cells that will not do: a run missed the target or is lost there; or one diverged or stalled there or where it is
    less noisy, at a size as large and a rate as low, and none here that goes on came further."""
    over = [run for run in progress if run.diverged or run.stalled]
    missed = {run.cell for run in progress if not run.reached and (run.ended or run.cost > lost_after)}
    come = dict.fromkeys(cells, -math.inf)
    for run in progress:
        if run.cell in come and not (run.diverged or run.stalled):
            come[run.cell] = max(come[run.cell], run.share)

    def worse(size: int, rate: float) -> bool:
        return any(
            size <= run.batch_size and rate >= run.learning_rate and come[size, rate] <= run.share for run in over
        )

    return np.array([cell in missed or worse(*cell) for cell in cells])
