"""Plans of a batch that grows, and what a study says of them beside its best fixed size. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.batch_schedule import SETTING, BatchSchedule, parsed, schedule_of
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.means import ratio_of_means
from rightbatch.records import Interval, Run, Setting, Settings, StopReason, Trial

LEVEL = 0.95
"""Of the interval of a gain, all looks together."""

LOOKS = (3, 6)
"""Numbers of fresh seeds after which it is asked whether plan and fixed size can be told apart."""

WORTH = 0.95
"""A plan that seems to cost more of the fixed size than this gets no more seeds: they cost more than it would save."""


@dataclass(frozen=True)
class Plan:
    """A rate and a schedule of the batch size; a schedule of one phase is a fixed size."""

    learning_rate: float
    schedule: BatchSchedule

    @classmethod
    def of(cls, trial: Trial) -> Plan:
        """That by which a trial is made."""
        return cls(trial.learning_rate, schedule_of(trial))

    @property
    def batch_size(self) -> int:
        """Of the first phase."""
        return self.schedule.phases[0].batch_size

    def __str__(self) -> str:
        return plan_text(self.batch_size, self.learning_rate, str(self.schedule))

    def trial(self, seed: int, planned_examples: int | None, settings: Mapping[str, Setting]) -> Trial:
        """A run of it."""
        own = Settings({**settings, SETTING: str(self.schedule)} if not self.schedule.fixed else settings)
        return Trial(self.batch_size, self.learning_rate, seed, planned_examples, own)

    def evidence(self, evidence: Evidence) -> Evidence:
        """Of the runs of this schedule."""
        return evidence.with_setting(SETTING, str(self.schedule))

    def parts(self) -> tuple[Plan, ...]:
        """It without each of its later phases in turn."""
        phases = self.schedule.phases
        return tuple(
            Plan(self.learning_rate, BatchSchedule((*phases[:k], *phases[k + 1 :]))) for k in range(1, len(phases))
        )

    def run(self, evidence: Evidence, seed: int) -> Run | None:
        """Its run with a seed, where that tells something."""
        own = self.evidence(evidence)
        run = own.run_of(self.batch_size, self.learning_rate, seed)
        return run if run is not None and own.conclusive(run) else None

    def cost(self, evidence: Evidence, seed: int) -> float:
        """Of its run with a seed; infinite where that missed the target, or was not made."""
        run = self.run(evidence, seed)
        cost = self.evidence(evidence).cost(run) if run is not None else None
        return math.inf if cost is None else cost

    def spent(self, evidence: Evidence, seed: int, before: Iterable[Plan] = ()) -> float:
        """What its run with a seed took, whether it reached the target or not.

        Less what it has in common with runs of plans `before` it that began with the same size and rate, and is made
        once.
        """
        own = self.evidence(evidence)
        run = own.run_of(self.batch_size, self.learning_rate, seed)
        if run is None or not run.points:
            return 0.0
        common = max((self._in_common(evidence, seed, other) for other in before), default=0.0)
        begun = [point for point in run.points if point.examples <= common]
        shared, whole = (
            (own.cost_of_steps(self.batch_size, some[-1].step, some[-1].examples) if some else None) or 0.0
            for some in (begun, run.points)
        )
        return whole - shared

    def _in_common(self, evidence: Evidence, seed: int, other: Plan) -> float:
        """For how many examples a run of another plan was as its own with the same seed is."""
        if (self.batch_size, self.learning_rate) != (other.batch_size, other.learning_rate):
            return 0.0
        run = other.evidence(evidence).run_of(other.batch_size, other.learning_rate, seed)
        return min(self.schedule.alike_until(other.schedule), run.points[-1].examples if run and run.points else 0.0)

    def mean(self, evidence: Evidence) -> float:
        """The geometric mean of its costs over all seeds that took part in choosing; infinite if any missed."""
        cells = self.evidence(evidence).cells_of(self.batch_size)
        return next((cell.mean for cell in cells if cell.learning_rate == self.learning_rate), math.inf)

    def fresh_costs(self, evidence: Evidence) -> tuple[float, ...]:
        """Of all its runs with fresh seeds; infinite where one missed."""
        costs = self.evidence(evidence).fresh_costs(self.batch_size, self.learning_rate)
        return tuple(math.inf if cost is None else cost for cost in costs)


@dataclass(frozen=True)
class PlanRow:
    """A plan of a growing batch that was tried: its cost over that of the fixed size.

    None where it missed the target; `more_than` is then what it had cost where it was given up for that.
    """

    batch_size: int
    learning_rate: float
    schedule: str
    times_the_fixed: float | None
    seeds: int
    more_than: float | None = None


@dataclass(frozen=True)
class Growth:
    """The best plan of a growing batch beside the best fixed size, both with fresh seeds.

    `times_the_fixed` is the cost of the plan over that of the fixed size; `recommended` where all of its interval is
    below 1. `seeds` are fresh ones: 0 where no plan was worth any. `spread` and `fixed_spread` are the deviations of
    the log of the cost between seeds. `parts` are the plan without each of its later phases in turn, `tried` all plans
    in the order they were tried, both by the seeds that chose; `spent` is what trying them took, in runs of the fixed
    size: what plans that begin alike have in common is trained once.
    """

    batch_size: int
    learning_rate: float
    schedule: str
    times_the_fixed: Interval
    recommended: bool
    cost: float
    fixed_cost: float
    spread: float | None
    fixed_spread: float | None
    seeds: int
    parts: tuple[PlanRow, ...]
    tried: tuple[PlanRow, ...]
    spent: float


def plan_text(batch_size: int, learning_rate: float, schedule: str) -> str:
    """A plan as people read it."""
    return f"{batch_size} at rate {learning_rate:g}" + (f", then {schedule}" if schedule else "")


def fixed_plan(batch_size: int, learning_rate: float) -> Plan:
    """A batch size that stays as it is."""
    return Plan(learning_rate, parsed(batch_size, ""))


def mean_cost(costs: Iterable[float]) -> float:
    """The geometric mean; infinite if any is."""
    logs = np.log(list(costs))
    return math.exp(float(np.mean(logs))) if np.all(np.isfinite(logs)) else math.inf


def compared(evidence: Evidence, plan: Plan, fixed: Plan, looks: int = len(LOOKS)) -> Interval | None:
    """The cost of a plan over that of the fixed size, by fresh seeds; None where either missed the target with one.

    A t interval of the log (Welch), at 95 % all looks together (Bonferroni).
    """
    ours, theirs = plan.fresh_costs(evidence), fixed.fresh_costs(evidence)
    if not ours or not theirs or not math.isfinite(mean_cost((*ours, *theirs))):
        return None
    return ratio_of_means(ours, theirs, 1 - (1 - LEVEL) / looks)


def decided(gain: Interval | None) -> bool:
    """Whether a plan needs no more fresh seeds: it missed the target, is told apart, or is not worth them."""
    return gain is None or (gain.known and 1.0 not in gain) or gain.estimate > WORTH


def growth_of(evidence: Evidence, fixed: Plan) -> Growth | None:
    """What a study says of growing batches beside a fixed choice; None where none was run to the target."""
    if evidence.settings.get(SETTING):
        return None
    plans = _plans(evidence)
    gains = {plan: gain for plan in plans if (gain := compared(evidence, plan, fixed)) is not None}
    if not gains:
        return _unjudged(evidence, fixed, plans)
    best = min(gains, key=lambda plan: (-len(plan.fresh_costs(evidence)), gains[plan].estimate))
    gain, unit = gains[best], fixed.mean(evidence)
    ours, theirs = best.fresh_costs(evidence), fixed.fresh_costs(evidence)
    return Growth(
        batch_size=best.batch_size,
        learning_rate=best.learning_rate,
        schedule=str(best.schedule),
        times_the_fixed=gain,
        recommended=gain.high is not None and gain.high < 1,
        cost=mean_cost(ours),
        fixed_cost=mean_cost(theirs),
        spread=_spread(ours),
        fixed_spread=_spread(theirs),
        seeds=len(ours),
        parts=tuple(_row(evidence, part, unit, _seeds(evidence, part)) for part in best.parts()),
        tried=tuple(_row(evidence, plan, unit, seeds) for plan, seeds in plans.items() if seeds),
        spent=_spent(evidence, plans) / unit,
    )


def _unjudged(evidence: Evidence, fixed: Plan, plans: Mapping[Plan, tuple[int, ...]]) -> Growth | None:
    """Where no plan was worth a fresh seed, the cheapest one; None where no plan, or no fixed size, has a cost.

    Where all were given up, the one that had cost least by then.
    """
    unit = fixed.mean(evidence)
    rows = {plan: _row(evidence, plan, unit, seeds) for plan, seeds in plans.items() if seeds}
    reached = {plan: row.times_the_fixed for plan, row in rows.items() if row.times_the_fixed is not None}
    given_up = {plan: row.more_than for plan, row in rows.items() if row.more_than is not None}
    known = reached or given_up
    if not known or not math.isfinite(unit):
        return None
    best = min(known, key=lambda plan: known[plan])
    note = "by the seeds that plans are tried with" if reached else "at least: it was given up"
    return Growth(
        batch_size=best.batch_size,
        learning_rate=best.learning_rate,
        schedule=str(best.schedule),
        times_the_fixed=Interval(known[best], note=note),
        recommended=False,
        cost=known[best] * unit,
        fixed_cost=unit,
        spread=None,
        fixed_spread=None,
        seeds=0,
        parts=(),
        tried=tuple(rows.values()),
        spent=_spent(evidence, plans) / unit,
    )


def _plans(evidence: Evidence) -> dict[Plan, tuple[int, ...]]:
    """Every growing plan that has runs with the settings of the question, with the seeds that took part in choosing."""
    found: dict[Plan, tuple[int, ...]] = {}
    declared = {**evidence.declared, **evidence.settings}
    for run in evidence.runs:
        trial = run.trial
        text = str(trial.settings.get(SETTING, ""))
        if text and {**declared, **trial.settings} == {**declared, SETTING: text}:
            plan = Plan.of(trial)
            found[plan] = (*found.get(plan, ()), *([trial.seed] if trial.seed < FRESH_SEED else []))
    return {plan: tuple(dict.fromkeys(seeds)) for plan, seeds in found.items()}


def _seeds(evidence: Evidence, plan: Plan) -> tuple[int, ...]:
    """Those that took part in choosing, of its runs that tell something."""
    own = plan.evidence(evidence)
    runs = own.runs_at(plan.batch_size, plan.learning_rate)
    return tuple(sorted(run.trial.seed for run in runs if run.trial.seed < FRESH_SEED and own.conclusive(run)))


def _spent(evidence: Evidence, plans: Mapping[Plan, Sequence[int]]) -> float:
    """What the runs of plans took, in the order they were tried."""
    tried = list(plans)
    return sum(plan.spent(evidence, seed, tried[:k]) for k, (plan, seeds) in enumerate(plans.items()) for seed in seeds)


def _row(evidence: Evidence, plan: Plan, unit: float, seeds: tuple[int, ...]) -> PlanRow:
    reached = mean_cost(plan.cost(evidence, seed) for seed in seeds) if seeds else math.inf
    spent = mean_cost(_until_given_up(evidence, plan, seed) for seed in seeds) if seeds else math.inf
    times, more_than = (cost / unit if math.isfinite(cost) else None for cost in (reached, spent))
    return PlanRow(
        plan.batch_size, plan.learning_rate, str(plan.schedule), times, len(seeds), None if times else more_than
    )


def _until_given_up(evidence: Evidence, plan: Plan, seed: int) -> float:
    """What a run cost that reached the target or was given up for its cost; infinite where it ended otherwise."""
    cost, run = plan.cost(evidence, seed), plan.run(evidence, seed)
    given_up = run is not None and run.stop is not None and run.stop.reason is StopReason.STOPPED_BY_RULE
    return plan.spent(evidence, seed) if math.isinf(cost) and given_up else cost


def _spread(costs: tuple[float, ...]) -> float | None:
    return float(np.std(np.log(costs), ddof=1)) if len(costs) > 1 else None
