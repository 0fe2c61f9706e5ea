"""Where to begin: what the person trains with now, or what suits the optimizer."""

from __future__ import annotations

from rightbatch.pipeline.asking import Ask
from rightbatch.records import Settings, Trial, WorkloadFacts

USUAL_RATES = {"SGD": 0.1, "SGD momentum": 0.03, "Adam": 0.001}
"""Where to begin when nobody says at which rate they train now."""

RATE_OF_UNKNOWN = 0.001
"""The same, by an optimizer of which nothing is known: hardly any diverges there."""


def usual_rate(optimizer: str) -> float | None:
    """The rate to begin at for an optimizer nobody said a rate for; None for one that is not known."""
    known = [rate for name, rate in USUAL_RATES.items() if optimizer.startswith(name)]
    return known[-1] if known else None


def first_choice(facts: WorkloadFacts) -> tuple[int, float]:
    """The size and rate to begin at: what the person trains with now, else 32 and the optimizer's usual rate."""
    return facts.present or (32, usual_rate(facts.optimizer) or RATE_OF_UNKNOWN)


def first_trial(
    facts: WorkloadFacts, ask: Ask, seed: int = 0, *, batch_size: int | None = None, learning_rate: float | None = None
) -> Trial:
    """A run of the first choice to its planned length; where a size or a rate is given, with that instead."""
    size, rate = first_choice(facts)
    planned = facts.planned_examples or None
    return Trial(batch_size or size, learning_rate or rate, seed, planned, Settings(ask.settings))
