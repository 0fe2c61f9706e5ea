"""What batch size and rate mean as a temperature of the posterior, from what was measured of the weights of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rightbatch.fit.iterates import IterateTests
from rightbatch.generalization import main_records
from rightbatch.minima import WeightsRecord
from rightbatch.records import Interval, Run, Trial

APART = 2.0
"""Temperatures as predicted and as seen that differ by more than this say that the theory does not hold."""


@dataclass(frozen=True)
class Temperature:
    """Of the iterates of SGD that goes on at the rate of a run from where it ended (Mandt et al. 2017, equation 15).

    temperature: Their energy over that of the posterior, as the gradient noise predicts it.
    seen: The same as the training loss along the way shows it.
    examples, parameters: N and d.
    tests: Whether the weights after each pass look like independent draws of a Gaussian.
    """

    run: int
    trial: Trial
    temperature: Interval
    seen: float
    examples: int
    parameters: int
    tests: IterateTests

    @property
    def optimal_learning_rate(self) -> float:
        """At which this batch size would come nearest to the posterior."""
        return self.trial.learning_rate / self.temperature.estimate

    @property
    def optimal_batch_size(self) -> float:
        """At which this rate would come nearest to the posterior."""
        return self.trial.batch_size * self.temperature.estimate

    @property
    def cautions(self) -> tuple[str, ...]:
        """Which assumptions do not hold here, a sentence for each."""
        said = []
        apart = self.seen / self.temperature.estimate if self.temperature.estimate > 0 else 0.0
        if not 1 / APART <= apart <= APART:
            said.append(
                f"Training on for {self.tests.samples} passes, the loss shows a temperature of {self.seen:.3g}, not of "
                f"{self.temperature.estimate:.3g}: the loss is no quadratic with the noise that it has at the end, or "
                f"the passes are too few to forget where they began, or so short that batches drawn without "
                f"replacement cancel out."
            )
        return (*said, *self.tests.failures)


def temperatures_of(runs: Sequence[Run], records: Sequence[WeightsRecord]) -> tuple[Temperature, ...]:
    """One for each run of which it was measured, by the choices that most were measured by."""
    by_run: dict[int, dict[str, WeightsRecord]] = {}
    for record in main_records(records, "temperature"):
        by_run.setdefault(record.run, {})[record.quantity] = record
    return tuple(_of(run, by_run[run.identifier]) for run in runs if run.identifier in by_run)


def _of(run: Run, found: dict[str, WeightsRecord]) -> Temperature:
    value, main = {name: record.value for name, record in found.items()}, found["temperature"]
    return Temperature(
        run=run.identifier,
        trial=run.trial,
        temperature=Interval(main.value, main.low, main.high, 0.95),
        seen=value["seen"],
        examples=int(value["examples"]),
        parameters=int(value["parameters"]),
        tests=IterateTests(
            samples=int(value["samples"]),
            parameters=int(value["parameters"]),
            trend_p_value=value["trend_p_value"],
            autocorrelation=value["autocorrelation"],
            autocorrelation_p_value=value["autocorrelation_p_value"],
            normal_p_value=value["normal_p_value"],
            idle=int(value["idle"]),
        ),
    )
