"""The search for a batch that grows while training: from the best fixed size outwards, then judged by fresh seeds.

A planned schedule is a start (batch size and rate) and phases, each from so many examples on, at a larger size and a
factor of the rate. One change at a time is tried; what is better, over the same seeds, is gone on from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from rightbatch.batch_schedule import BatchSchedule, Phase
from rightbatch.curves import Curve, StopRule, any_rule, until_target
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.growth import LOOKS, Plan, compared, decided, mean_cost
from rightbatch.lattice import index_of, rate_at
from rightbatch.records import Settings
from rightbatch.search.strategy import Action, Advance, Done, Offers, Wait

SEEDS = (0, 1)
"""Every plan runs with the first; with the others where it was better than the best so far with that."""

BETTER = 0.99
"""A plan is gone on from that costs at most this share of the best so far."""

GIVE_UP_FACTOR = 1.0
"""A run is stopped that has cost so many times what the best so far did with the same seed: it is no better."""

GIVE_UP_LATE = 4.0
"""Runs that judge a plan are stopped when they have cost so many times the fixed size."""

MOST_RUNS = 7.0
"""The search ends when it has cost as much as so many runs of the best fixed size (decision 25)."""

FIRST = ((1, 4, 1 / 2), (2, 2, 1 / 4), (1, 2, 1 / 2), (1, 4, 1 / 4), (4, 2, 1 / 4))
"""The first plans: begun with a part of the fixed size, and gone on with a multiple after a share of the examples."""

LATER, LARGER, FASTER = 4 / 3, 2, 2**0.5
"""By how much a phase is moved, its size and its factor of the rate are changed at a time."""

MOST_PHASES = 3

Phases = Sequence[Phase]


@dataclass(frozen=True)
class Growing:
    """From the fixed choice, one change of a plan after the other.

    `rates` are the best rates of fixed sizes: a start may move to one of these sizes. `largest` is the largest batch of
    a plan. `looks`: see `LOOKS`. Plans are tried one at a time; the runs that judge one may be made side by side.
    """

    fixed: Plan
    rates: Mapping[int, float]
    largest: int
    offers: Offers
    planned_examples: int | None = None
    settings: Settings = field(default_factory=Settings)
    most_runs: float = MOST_RUNS
    looks: Sequence[int] = LOOKS

    def __call__(self, evidence: Evidence) -> Action:
        found = self.climb(evidence)
        wanted = (found,) if isinstance(found, Advance) else self._judge(evidence, found)
        if isinstance(wanted, Done):
            return Wait() if evidence.pending else wanted
        under_way = {(Plan.of(trial), trial.seed) for trial in evidence.pending}
        return next((one for one in wanted if (Plan.of(one.trial), one.trial.seed) not in under_way), Wait())

    # ---------------------------------------------------------------------------------------------- the search

    def climb(self, evidence: Evidence) -> Plan | Advance:
        """The best plan, or the run that has to be made to know it: gone through anew with all that is known."""
        for seed in SEEDS:
            if self.fixed.run(evidence, seed) is None:
                limit = GIVE_UP_LATE * self.fixed.mean(evidence)
                return self._advance(evidence, self.fixed, seed, limit, f"{self.fixed}, beside which plans are tried")
        if not any(math.isfinite(self.fixed.cost(evidence, seed)) for seed in SEEDS):
            return self.fixed  # it reached the target with other seeds alone: there is nothing to try plans beside
        best, costs, last = self.fixed, self._costs_of_fixed(evidence), ""
        unit = mean_cost(costs.values())
        spent, seen = 0.0, list[Plan]()
        while True:
            for name, plan in self._moves(evidence, unit, best, last):
                if plan in (self.fixed, *seen) or not self.offers(plan.trial(0, self.planned_examples, self.settings)):
                    continue
                if spent >= self.most_runs * unit:
                    return best
                tried = self._tried(evidence, plan, costs)
                if isinstance(tried, Advance):
                    return tried
                spent += sum(plan.spent(evidence, seed, seen) for seed in tried)
                seen.append(plan)
                if len(tried) == len(SEEDS) and mean_cost(tried.values()) <= BETTER * mean_cost(costs.values()):
                    best, costs, last = plan, tried, name
                    break
            else:
                return best

    def _costs_of_fixed(self, evidence: Evidence) -> dict[int, float]:
        """By the seeds that plans are tried with; where it missed with one, the mean of the others."""
        known = {seed: self.fixed.cost(evidence, seed) for seed in SEEDS}
        mean = mean_cost(cost for cost in known.values() if math.isfinite(cost))
        return {seed: cost if math.isfinite(cost) else mean for seed, cost in known.items()}

    def _tried(self, evidence: Evidence, plan: Plan, best: Mapping[int, float]) -> dict[int, float] | Advance:
        """Its costs by seed, up to the first that is not better than the best; or the run that is missing."""
        found: dict[int, float] = {}
        for seed in SEEDS:
            if plan.run(evidence, seed) is None:
                return self._advance(evidence, plan, seed, GIVE_UP_FACTOR * best[seed], f"would {plan} be faster?")
            found[seed] = plan.cost(evidence, seed)
            if found[seed] > BETTER * best[seed]:
                break
        return found

    def _moves(self, evidence: Evidence, unit: float, plan: Plan, last: str) -> Sequence[tuple[str, Plan]]:
        """Every change of a plan, with what it is called; the one that was good last comes first."""
        steps = evidence.steps_of_cost(self.fixed.batch_size, unit)
        assert steps is not None  # it has a cost
        examples = steps * self.fixed.batch_size
        changes = self._changes(plan.learning_rate, plan.schedule.phases, examples)
        return [
            (name, Plan(rate, BatchSchedule(tuple(phases))))
            for name, rate, phases in sorted(changes, key=lambda change: change[0] != last)
            if self._possible(phases, examples)
        ]

    def _changes(self, rate: float, phases: Phases, examples: float) -> Iterator[tuple[str, float, Phases]]:
        """What a change is called, and the rate and the phases that come of it; the fixed size needs the `examples`."""
        first, *grown = phases
        faster, slower = rate_at(index_of(rate) + 1), rate_at(index_of(rate) - 1)
        if not grown:
            for part, multiple, share in FIRST:
                start = replace(first, batch_size=max(1, first.batch_size // part))
                grows = phase_at(share * examples, multiple * first.batch_size)
                for its_rate in (rate, faster):  # growth stands in for decay: a higher rate may be best at the start
                    yield "first", its_rate, (start, grows)
            return
        yield "rate up", faster, phases
        for k, phase in reversed(tuple(enumerate(phases))[1:]):
            begins, size, factor = phase.begins_examples, phase.batch_size, phase.rate_factor
            for name, changed in {
                "earlier": phase_at(begins / LATER, size, factor),
                "larger": phase_at(begins, size * LARGER, factor),
                "later": phase_at(begins * LATER, size, factor),
                "faster": phase_at(begins, size, factor * FASTER),
                "slower": phase_at(begins, size, factor / FASTER),
                "smaller": phase_at(begins, size // LARGER, factor),
            }.items():
                yield f"{name} {k}", rate, (*phases[:k], changed, *phases[k + 1 :])
        last = phases[-1]
        if len(phases) < MOST_PHASES:
            yield (
                "further",
                rate,
                (*phases, phase_at(last.begins_examples * LATER, 4 * last.batch_size, last.rate_factor)),
            )
        for size in (first.batch_size // 2, first.batch_size * 2):
            if size in self.rates and first.batch_size in self.rates:
                begun = rate_at(index_of(rate * self.rates[size] / self.rates[first.batch_size]))
                # What follows has the rates that it had.
                rest = (phase_at(p.begins_examples, p.batch_size, p.rate_factor * rate / begun) for p in grown)
                yield f"start {size}", begun, (replace(first, batch_size=size), *rest)
        yield "rate down", slower, phases

    def _possible(self, phases: Phases, examples: float) -> bool:
        """Whether they grow one after the other, to no more than may be, before the fixed size is at the target."""
        grow = all(a.batch_size < b.batch_size and a.begins_examples < b.begins_examples for a, b in pairwise(phases))
        return grow and phases[-1].batch_size <= self.largest and phases[-1].begins_examples < examples

    # ----------------------------------------------------------------------------------------------- the judges

    def _judge(self, evidence: Evidence, plan: Plan) -> Done | tuple[Advance, ...]:
        """The plan without each phase; then it and the fixed size with fresh seeds, until they can be told apart.

        All runs that are missing until something can be told. The fixed size comes last: it may begin as the plan did.
        """
        if plan == self.fixed:
            return Done("no growth that was tried is faster than the fixed batch size")
        parts = [(part, seed, f"without a part of it: {part}") for part in plan.parts() for seed in SEEDS]
        for look in self.looks:
            seeds = range(FRESH_SEED, FRESH_SEED + look)
            fresh = [(one, seed, f"{one}, with a fresh seed") for one in (plan, self.fixed) for seed in seeds]
            if missing := [one for one in (*parts, *fresh) if one[0].run(evidence, one[1]) is None]:
                limit = GIVE_UP_LATE * self.fixed.mean(evidence)
                return tuple(self._advance(evidence, one, seed, limit, why) for one, seed, why in missing)
            if decided(compared(evidence, plan, self.fixed, len(self.looks))):
                break
        return Done("the best plan that was found is judged")

    def _advance(self, evidence: Evidence, plan: Plan, seed: int, limit: float, why: str) -> Advance:
        dear = _too_dear(plan.evidence(evidence), plan.batch_size, limit)
        until = any_rule(until_target(evidence.question.target), dear)
        return Advance(plan.trial(seed, self.planned_examples, self.settings), until, why, branches=True)


def _too_dear(evidence: Evidence, batch_size: int, limit: float) -> StopRule:
    """Beyond a cost and not at the target: one that came there in time may have to stay for a second evaluation."""
    target = evidence.question.target

    def rule(curve: Curve) -> str | None:
        if target.reached_by(getattr(curve[-1], target.quantity)):
            return None
        cost = evidence.cost_of_steps(batch_size, curve[-1].step, curve[-1].examples)
        return "cost more than the best plan so far" if cost is not None and cost > limit else None

    return rule


def phase_at(examples: float, batch_size: int, rate_factor: float = 1.0) -> Phase:
    """With numbers of few digits, so that they read well and a plan is the same one where a cost is known better."""
    return Phase(int(float(f"{examples:.2g}")), batch_size, float(f"{rate_factor:.3g}"))
