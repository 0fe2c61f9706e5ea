"""The contract of a strategy, and the smallest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rightbatch.curves import StopRule, until_horizon
from rightbatch.evidence import Evidence
from rightbatch.records import Trial


@dataclass(frozen=True)
class Advance:
    """Start this trial, or continue it where it was left, until a rule says stop or the run ends by itself."""

    trial: Trial
    until: StopRule
    why: str


@dataclass(frozen=True)
class Done:
    """Nothing more to train, and why."""

    why: str


Action = Advance | Done
Strategy = Callable[[Evidence], Action]
"""A pure function of the evidence: asked again after every run, and after a restart, with all that is known."""

Offers = Callable[[Trial], bool]
"""Whether a runner can run a trial: a batch larger than the data cannot be, nor what a recorded table lacks."""


def fixed(trials: Sequence[Trial], why: str, until: StopRule | None = None) -> Strategy:
    """Run the given trials, each once, to their planned length."""

    def strategy(evidence: Evidence) -> Action:
        for trial in trials:
            if trial.seed not in evidence.seeds_of(trial.batch_size, trial.learning_rate):
                return Advance(trial, until or until_horizon, why)
        return Done("all trials have run")

    return strategy
