"""Schedules of the rate: whether one leaves it alone after warm-up, and how one is stepped where batches change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rightbatch.closures import needs_closure
from rightbatch.errors import WorkloadError
from rightbatch.records import Trial

if TYPE_CHECKING:
    from rightbatch.workload import Workload

PROBED_STEPS = 5_000
"""A longer run is probed at a larger batch size, which has fewer steps for the same planned length."""


def changes_after_warm_up(workload: Workload) -> bool:
    """Whether the rate of a run at its planned length moves again once it has reached its largest value.

    If so, what a run has reached half-way depends on how long it was planned to be, and only its end counts.
    """
    if workload.schedule is None:
        return False
    rates = probe_rates(workload)
    peak = rates.index(max(rates))
    return any(abs(rate - rates[peak]) > 1e-6 * rates[peak] for rate in rates[peak:])


def last_rates(workload: Workload, factor: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """Of a batch size and one that is `factor` times as large: the size, and the last rate as a share of the largest.

    The same where the schedule was made for the planned length; else larger batches end with it unfinished.
    """
    sizes = _probed_size(workload), factor * _probed_size(workload)
    probed = [probe_rates(workload, size) for size in sizes]
    first, second = (rates[-1] / max(rates) for rates in probed)
    return (sizes[0], first), (sizes[1], second)


def probe_rates(workload: Workload, batch_size: int | None = None) -> list[float]:
    """The rate in force at each step of a run at its planned length, without training.

    `batch_size`: None for the present one, or as large a one as has `PROBED_STEPS` at most.

    Raises `WorkloadError` for a schedule that cannot be stepped without a value (ReduceLROnPlateau).
    """
    assert workload.schedule is not None
    _, rate = workload.present or (32, 0.1)
    trial = workload.complete(Trial(batch_size or _probed_size(workload), rate, 0))
    optimizer = workload.optimizer([torch.nn.Parameter(torch.zeros(1, 1))], trial)
    try:
        schedule = workload.schedule(optimizer, trial)
    except Exception as error:
        raise WorkloadError(f"schedule(optimizer, trial) raised {type(error).__name__}: {error}.") from error
    rates = []
    planned_steps = trial.planned_steps or 1
    for step in range(1, planned_steps + 1):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        # A parameter without a gradient: nothing moves, but schedulers expect the call.
        optimizer.step(lambda: 0.0) if needs_closure(optimizer) else optimizer.step()
        try:
            schedule.step()
        except Exception as error:
            if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise WorkloadError(
                    f"{type(schedule).__name__}.step() asks for a value ({error}). A schedule is stepped after every "
                    f"optimizer step without one; use a schedule of steps, or leave the rate constant."
                ) from error
            raise WorkloadError(
                f"{type(schedule).__name__}.step() raised {type(error).__name__}: {error} (step {step} of "
                f"{planned_steps}, batch_size={trial.batch_size}). Take its length from trial.planned_steps."
            ) from error
    return rates


def _probed_size(workload: Workload) -> int:
    size, rate = workload.present or (32, 0.1)
    planned = workload.complete(Trial(size, rate, 0)).planned_examples or 1
    return max(size, -(-planned // PROBED_STEPS))


class Pace:
    """Steps a schedule that was made for steps of one batch size, so that it has always seen the same examples.

    `owed_examples` are those of steps that it was not told of yet: fewer than a step of that size has.
    """

    def __init__(self, schedule: Any, batch_size: int) -> None:
        self._schedule, self._batch_size = schedule, batch_size
        self.owed_examples = 0

    def after(self, examples: int) -> None:
        """After a step on so many examples."""
        self.owed_examples += examples
        while self.owed_examples >= self._batch_size:
            self.owed_examples -= self._batch_size
            self._schedule.step()


def multiply_rates(optimizer: torch.optim.Optimizer, schedule: Any, factor: float) -> None:
    """Multiply the rates that are in force, and those that a schedule starts from."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
        if "initial_lr" in group:
            group["initial_lr"] = group["initial_lr"] * factor
    if schedule is not None and hasattr(schedule, "base_lrs"):
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
