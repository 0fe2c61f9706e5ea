"""A modest adaptive search: coarse sizes with one seed, then where it matters all sizes and all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rightbatch.cells import Cell
from rightbatch.curves import Curve, StopRule, any_rule, until_target
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.lattice import rate_at
from rightbatch.nearness import nearest
from rightbatch.question import Objective
from rightbatch.records import Settings, Trial
from rightbatch.search.rates import SPAN, next_index
from rightbatch.search.strategy import Action, Advance, Done, Offers, Wait, missing_seed
from rightbatch.search.sweep import start_index
from rightbatch.zones import ZONE_FACTOR

GIVE_UP_FACTOR = 4.0
"""A run that has cost this many times the best so far is stopped: beyond twice the best, how bad does not matter."""

CONTENDER_FACTOR = 1.5
"""Sizes and rates within this factor of the best get all seeds."""


@dataclass(frozen=True)
class Adaptive:
    """From `first_size` outwards in factors of four until a size costs twice the best, on both sides; then the sizes
    beside the best; then all seeds where the best may lie; last the winner once more with a fresh seed."""

    batch_sizes: Sequence[int]
    seeds: Sequence[int]
    first_size: int
    first_rate: float
    offers: Offers
    planned_examples: int | None = None
    settings: Settings = field(default_factory=Settings)

    def __call__(self, evidence: Evidence) -> Action:
        for stage in (self._coarse, self._beside_the_best):
            action = stage(evidence)
            if action is not None:
                return action
            if _being_tuned(evidence):  # each stage rests on all that the one before has found
                return Wait()
        action = self._seeds(evidence)
        if action is not None:
            return action
        if evidence.pending:
            return Wait()
        return self._fresh(evidence) or Done("no other size or rate can be expected to be better")

    # ------------------------------------------------------------------------------------------------- stages

    def _coarse(self, evidence: Evidence) -> Advance | None:
        first = nearest(self.batch_sizes, self.first_size)
        action = self._tune(evidence, first, None)
        if action is not None or first in _being_tuned(evidence):
            return action
        for step in (4.0, 0.25):
            near, far = first, self._next(first, step)
            while far is not None:
                action = self._tune(evidence, far, near)
                if action is not None:
                    return action
                if far in _being_tuned(evidence) or self._is_beyond_the_edge(evidence, far, step):
                    break  # while a size is being tuned, the other side meanwhile
                near, far = far, self._next(far, step)
        return None

    def _is_beyond_the_edge(self, evidence: Evidence, size: int, step: float) -> bool:
        """Whether a size costs twice the best with the best behind it: further that way nothing can win."""
        best = evidence.best_cell
        if best is None or self._cost(evidence, size) < ZONE_FACTOR * best.mean:
            return False
        return best.batch_size < size if step > 1 else best.batch_size > size

    def _beside_the_best(self, evidence: Evidence) -> Advance | None:
        """The best size itself while its best rate is at an edge, and the sizes to either side."""
        best = evidence.best_cell
        if best is None:
            return None
        cells = evidence.cells_of(best.batch_size)
        own = best.batch_size if best in (cells[0], cells[-1]) else None
        wanted = (own, self._next(best.batch_size, 2.0), self._next(best.batch_size, 0.5))
        actions = (self._tune(evidence, size, best.batch_size) for size in wanted if size is not None)
        return next((action for action in actions if action is not None), None)

    def _seeds(self, evidence: Evidence) -> Advance | None:
        """The contender with the fewest seeds next, so that all grow alike and a bad one drops out early."""
        limit = CONTENDER_FACTOR * _best_cost(evidence)
        open_cells = [
            (len(cell.costs) + self._under_way(evidence, cell), cell.mean, cell, seed)
            for cell in evidence.cells
            if cell.reaches
            and cell.mean <= limit
            and (seed := missing_seed(evidence, cell.batch_size, cell.learning_rate, self.seeds)) is not None
            and self.offers(self._trial(cell.batch_size, cell.learning_rate, seed))
        ]
        if not open_cells:
            return None
        _, _, cell, seed = min(open_cells, key=lambda entry: entry[:2])
        return self._advance(evidence, cell.batch_size, cell.learning_rate, seed, "how much do seeds differ?")

    def _under_way(self, evidence: Evidence, cell: Cell) -> int:
        return sum((t.batch_size, t.learning_rate) == (cell.batch_size, cell.learning_rate) for t in evidence.pending)

    def _fresh(self, evidence: Evidence) -> Advance | None:
        best = evidence.choice.best if evidence.choice else None
        if best is None or len(best.costs) < 2 or evidence.fresh_costs(best.batch_size, best.learning_rate):
            return None
        if not self.offers(self._trial(best.batch_size, best.learning_rate, FRESH_SEED)):
            return None
        return self._advance(evidence, best.batch_size, best.learning_rate, FRESH_SEED, "the winner, with a fresh seed")

    # ------------------------------------------------------------------------------------------------- helpers

    def _tune(self, evidence: Evidence, size: int, neighbour: int | None) -> Advance | None:
        """The next rate of a size with the first seed, or None when its best rate is found.

        Beside a neighbour three rates do; the five of a first size are taken where none of the three gets there.
        """
        cells = evidence.cells_of(size)
        narrow = neighbour is not None and (len(cells) < 3 or any(cell.reaches for cell in cells))
        index = next_index(
            cells,
            start_index(evidence, neighbour, self.first_rate),
            lambda k: self.offers(self._trial(size, rate_at(k), self.seeds[0])),
            span=SPAN[:3] if narrow else SPAN,
            pending=evidence.pending_rates(size),
        )
        if index is None:
            return None
        return self._advance(evidence, size, rate_at(index), self.seeds[0], f"batch size {size}: which rate?")

    def _advance(self, evidence: Evidence, size: int, rate: float, seed: int, why: str) -> Advance:
        return Advance(self._trial(size, rate, seed), self._until(evidence, size), why)

    def _until(self, evidence: Evidence, size: int) -> StopRule:
        if evidence.question.objective is Objective.METRIC:
            return _compared_at(evidence, size)
        too_dear = _give_up(evidence, size, GIVE_UP_FACTOR * _best_cost(evidence))
        if evidence.facts.length_bound:  # the target counts at the end of a run only
            return too_dear
        return any_rule(until_target(evidence.question.target), too_dear)

    def _trial(self, size: int, rate: float, seed: int) -> Trial:
        return Trial(size, rate, seed, self.planned_examples, self.settings)

    def _next(self, size: int, step: float) -> int | None:
        """The size nearest to a factor `step` away, of those truly on that side; None at the end."""
        beyond = [s for s in self.batch_sizes if (s > size if step > 1 else s < size)]
        return nearest(beyond, size * step) if beyond else None

    def _cost(self, evidence: Evidence, size: int) -> float:
        return min((cell.mean for cell in evidence.cells_of(size)), default=math.inf)


def _being_tuned(evidence: Evidence) -> frozenset[int]:
    """Sizes of which a rate is under way that is not known yet, unlike further seeds of one that is."""
    known = {(cell.batch_size, cell.learning_rate) for cell in evidence.cells}
    return frozenset(t.batch_size for t in evidence.pending if (t.batch_size, t.learning_rate) not in known)


def _best_cost(evidence: Evidence) -> float:
    return evidence.best_cell.mean if evidence.best_cell else math.inf


def _give_up(evidence: Evidence, size: int, limit: float) -> StopRule:
    """Stop a run that has cost more than a limit, in the unit of the objective."""

    def rule(curve: Curve) -> str | None:
        cost = evidence.cost_of_steps(size, curve[-1].step, curve[-1].examples)
        spent = cost is not None and cost > limit
        return f"cost more than {GIVE_UP_FACTOR:g} times the best so far" if spent else None

    return rule


def _compared_at(evidence: Evidence, size: int) -> StopRule:
    """Stop a run once it has got to the cost at which metrics are compared."""
    question, seconds = evidence.question, evidence.step_seconds(size)

    def rule(curve: Curve) -> str | None:
        last = curve[-1]
        by_examples = question.at_examples is not None and last.examples >= question.at_examples
        by_seconds = question.at_seconds is not None and seconds and last.step * seconds >= question.at_seconds
        return "reached the cost at which runs are compared" if by_examples or by_seconds else None

    return rule
