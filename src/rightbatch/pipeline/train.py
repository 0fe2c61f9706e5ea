"""`train`: one training whose batch size is chosen as it goes, with no search before: from nothing but a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rightbatch import curves
from rightbatch.batch_schedule import Phase
from rightbatch.controllers import Controller, Limits, TunedGoodput
from rightbatch.errors import InputError
from rightbatch.pipeline.profile import LARGEST
from rightbatch.pipeline.runners import as_runner
from rightbatch.records import Point, Target, Trial

if TYPE_CHECKING:
    import torch

ROUNDS = 5
"""Repeats of a step time: the controller needs only the law through all of them."""


@dataclass(frozen=True)
class Trained:
    """What came of it. `ended`: why, in a sentence, with how near it came where the target was not reached.

    `phases`: from how many examples on which batch size and factor of the rate were used. `points`: its evaluations.
    """

    reached: bool
    ended: str
    phases: tuple[Phase, ...]
    points: tuple[Point, ...] = field(repr=False)
    model: torch.nn.Module = field(repr=False)


def train(
    workload: Any,
    controller: Controller | None = None,
    *,
    present: tuple[int, float] | None = None,
    target: float | None = None,
    planned_examples: int | None = None,
    seed: int = 0,
    device: str | None = None,
    threads: int | None = None,
) -> Trained:
    """Train once, with a batch size that is chosen as it goes: no search before, nothing but seconds per step.

        trained = rightbatch.train("digits")
        trained.ended, trained.phases, trained.model

    Parameters
    ----------
    workload: A `Workload`, or the name of one.
    controller: One of `rightbatch.controllers`. None: `TunedGoodput`, the most progress per second by four times the
        noise scale and the seconds per step, between an eighth of the first size and as much as fits 8,192 or a
        quarter of the data; the rate follows the noise.
    present: The batch size and the rate to begin with; None: those of the workload.
    target: Train until the workload's target quantity has reached it; None: the workload's own target, and without
        one to the planned length.

    Raises
    ------
    InputError: For what is no workload, or says neither a present choice nor is given one.
    """
    from rightbatch.engine import WorkloadRunner
    from rightbatch.measure.step_time import measure_step_times
    from rightbatch.online import OnlineRun, points_of

    runner = as_runner(workload, device=device, threads=threads)
    if not isinstance(runner, WorkloadRunner):
        raise InputError(
            f"Only a rightbatch.Workload can be trained so; in your own loop use rightbatch.AdaptiveBatchSampler "
            f"({runner.facts.name!r} draws its batches itself)."
        )
    first = present or runner.facts.present
    if first is None:
        raise InputError("Where to begin is not known. Give present=(batch_size, learning_rate).")
    most = max(first[0], min(LARGEST, runner.facts.train_examples // 4 or LARGEST))
    limits = Limits(max(1, first[0] // 8), most)
    own = controller or TunedGoodput(limits=limits)
    sizes = [size for k in range(-3, 14) if limits.smallest <= (size := int(first[0] * 2.0**k)) <= most]
    records = measure_step_times(runner.workload, sizes, rounds=ROUNDS) if "seconds" in own.needs else ()
    timed = {record.batch_size: record for record in records}  # the last of each has all repeats
    run = OnlineRun(runner.workload, Trial(*first, seed, planned_examples), own, tuple(timed.values()))
    wanted = target if target is not None else runner.facts.target
    quantity = runner.facts.target_quantity
    goal = None if wanted is None else Target(wanted, quantity, runner.facts.quantity_direction(quantity))
    points = tuple(points_of(run, goal))
    reached = goal is not None and curves.crossing(points, goal) is not None
    return Trained(reached, _ended(points, goal), tuple(run.phases), points, run.stepper.judged)


def _ended(points: Sequence[Point], goal: Target | None) -> str:
    """Why a training ended, and how near it came."""
    last = points[-1]
    after = f"after {last.examples:,} examples in {last.step:,} steps"
    if curves.diverged(points):
        return f"The loss was beyond saving {after}: begin with a lower rate (present=(batch_size, rate))."
    if goal is None:
        return f"The planned length: {after}."
    bound = f"{goal.quantity} {'at least' if goal.direction == 'max' else 'at most'} {goal.value:g}"
    if curves.crossing(points, goal) is not None:
        return f"Reached the target ({bound}) {after}."
    best = curves.best_value(points, goal.quantity, goal.direction)
    near = "no value to judge" if best is None else f"the best was {best:.4g}"
    if goal.reached_by(best):
        near += ", but not at two evaluations in a row, as a target is reached"
    return (
        f"Did not reach the target ({bound}) in the planned length, {after}: {near}. Plan more with planned_examples, "
        f"or give an easier target in the unit of what is judged."
    )
