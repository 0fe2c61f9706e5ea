"""Seconds per optimizer step at each batch size: warmed up, round-robin, every repeat kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from rightbatch.records import StepTime, Trial
from rightbatch.stepping import Stepper, is_memory_error
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

REPEAT_SECONDS = 0.04
"""A repeat is as many steps as fill about this time, so that the clock and one hiccup do not decide it."""


def measure_step_times(workload: Workload, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
    """Measure each size once a round, in turn, so that a machine that speeds up or slows down touches all alike.

    A step includes waiting for its data (measured apart, by reading the same number of batches without training) and
    excludes evaluation. The rate is small: time does not depend on it, and the model must not diverge meanwhile.
    """
    rate = (workload.present[1] if workload.present else 0.1) / 100
    source = workload.source("data")
    streams = RandomStreams(0)
    with streams.active():
        steppers: dict[int, Stepper] = {}
        repeats: dict[int, int] = {}
        for size in sorted(batch_sizes):
            try:
                stepper = Stepper(workload, workload.complete(Trial(size, rate, 0)), source)
                stepper.schedule = None
                if steppers:  # one model for all sizes: memory does not grow with their number, and time is the same
                    first = next(iter(steppers.values()))
                    stepper.model, stepper.optimizer = first.model, first.optimizer
                repeats[size] = _steps_a_repeat(stepper)
            except Exception as error:
                if not is_memory_error(error):
                    raise
                break  # this size does not fit, nor do larger ones: they get no record
            steppers[size] = stepper
        seconds: dict[int, list[float]] = {size: [] for size in steppers}
        waits: dict[int, list[float]] = {size: [] for size in steppers}
        for _ in range(rounds):
            for size, stepper in steppers.items():
                steps = repeats[size]
                stepper.run(1)  # what was evicted since this size last ran comes back
                seconds[size].append(_timed_steps(stepper, steps) / steps)
                waits[size].append(_timed_reading(stepper, steps) / steps)
    for size in steppers:
        yield StepTime(size, tuple(seconds[size]), tuple(waits[size]), unsteady(seconds[size]))


def _steps_a_repeat(stepper: Stepper) -> int:
    stepper.run(2)  # the first steps allocate: optimizer state, workspace
    once = _timed_steps(stepper, 3) / 3
    return int(np.clip(REPEAT_SECONDS / max(once, 1e-9), 2, 2000))


def _timed_steps(stepper: Stepper, steps: int) -> float:
    _synchronize(stepper)
    started = time.perf_counter()
    stepper.run(steps)
    _synchronize(stepper)
    return time.perf_counter() - started


def _timed_reading(stepper: Stepper, steps: int) -> float:
    count = min(steps, len(stepper.source) // stepper.trial.batch_size)
    order = torch.randperm(len(stepper.source))
    started = time.perf_counter()
    for _ in islice(stepper.source.batches(order, stepper.trial.batch_size), count):
        pass
    return (time.perf_counter() - started) * steps / count


def _synchronize(stepper: Stepper) -> None:
    if stepper.workload.device.startswith("cuda"):
        torch.cuda.synchronize()
    elif stepper.workload.device == "mps":
        torch.mps.synchronize()


def unsteady(seconds: Sequence[float]) -> tuple[int, ...]:
    """Positions of repeats that stand out: modified z-score above 3.5 (Iglewicz and Hoaglin 1993)."""
    times = np.asarray(seconds)
    deviation = np.abs(times - np.median(times))
    scale = np.median(deviation)
    if scale == 0:
        return ()
    return tuple(int(k) for k in np.flatnonzero(0.6745 * deviation / scale > 3.5))
