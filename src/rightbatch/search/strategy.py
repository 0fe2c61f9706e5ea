"""The contract of a strategy, and the smallest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rightbatch.curves import StopRule, until_horizon
from rightbatch.ends import bracket, next_length
from rightbatch.evidence import Evidence
from rightbatch.records import Trial


@dataclass(frozen=True)
class Advance:
    """Start this trial, or continue it where it was left, until a rule says stop or the run ends by itself.

    Where `pause` gives a reason the run is paused: it does not end, and can be continued with nothing repeated. A run
    that `branches` may begin from the state of another one that began as it does, and others from its own states.
    """

    trial: Trial
    until: StopRule
    why: str
    pause: StopRule | None = None
    branches: bool = False


@dataclass(frozen=True)
class Wait:
    """Nothing to propose before one of the runs that are under way has ended."""


@dataclass(frozen=True)
class Done:
    """Nothing more to train, and why."""

    why: str


Action = Advance | Wait | Done
Strategy = Callable[[Evidence], Action]
"""A pure function of the evidence: asked again after every run, and after a restart, with all that is known.

Where several runs are made at a time, `Evidence.pending` names those under way. A strategy then proposes another one
that it would want whatever comes of them, or waits.
"""

Offers = Callable[[Trial], bool]
"""Whether a runner can run a trial: a batch larger than the data cannot be, nor what a recorded table lacks."""


def fixed(trials: Sequence[Trial], why: str, until: StopRule | None = None) -> Strategy:
    """Run the given trials, each once, to their planned length."""

    def strategy(evidence: Evidence) -> Action:
        for trial in trials:
            if missing_seed(evidence, trial.batch_size, trial.learning_rate, [trial.seed]) is not None:
                return Advance(trial, until or until_horizon, why)
        return Wait() if evidence.pending else Done("all trials have run")

    return strategy


def missing_seed(evidence: Evidence, size: int, rate: float, seeds: Sequence[int]) -> int | None:
    """The first of the seeds that has not run in a cell and is not under way there."""
    pending = {one.seed for one in evidence.pending if (one.batch_size, one.learning_rate) == (size, rate)}
    return next((seed for seed in seeds if seed not in evidence.seeds_of(size, rate) | pending), None)


def by_length(strategy: Strategy) -> Strategy:
    """The strategy for a length-bound workload: each trial it proposes is run at one planned length after the other."""

    def by_planned_length(evidence: Evidence) -> Action:
        action = strategy(evidence)
        if not isinstance(action, Advance):
            return action
        trial, target = action.trial, evidence.question.target
        longest = trial.planned_examples or evidence.facts.planned_examples
        seeds = {run.trial.seed: run.points for run in evidence.runs_at(trial.batch_size, trial.learning_rate)}
        ends = seeds.pop(trial.seed, ())
        known = (bracket(others, target) for others in seeds.values())
        likely = next((found for found in known if found is not None), None)
        # Of few steps, sqrt(2) times as many may be as many: then by the other rule, which says when it is done.
        planned = next_length(ends, target, longest, likely) or next_length(ends, target, longest) or longest
        return replace(action, trial=replace(trial, planned_examples=planned))

    return by_planned_length
