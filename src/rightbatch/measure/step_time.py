"""Seconds per optimizer step at each batch size: warmed up, round-robin, every repeat kept."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch

from rightbatch.errors import MissingExtra, WorkloadError
from rightbatch.fit.step_time import unsteady
from rightbatch.memory_room import HEADROOM, data_limit, free_bytes
from rightbatch.raised import MemoryExhausted, explained, tell_left_out
from rightbatch.records import StepTime, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

REPEAT_SECONDS = 0.04
"""A repeat is as many steps as fill about this time, so that the clock and one hiccup do not decide it."""


def measure_step_times(
    workload: Workload, batch_sizes: Sequence[int], *, rounds: int, micro_batch_size: int | None = None
) -> Generator[StepTime, None, int | None]:
    """Measure each size once a round, in turn, so that a machine that speeds up or slows down touches all alike.

    A step includes waiting for its data (measured apart, by reading the same number of batches without training) and
    excludes evaluation. The rate is small: time does not depend on it, and the model must not diverge meanwhile.

    Gives the records of all sizes after each round, with the repeats so far. Returns the smallest size that does not
    fit into memory (it and larger ones get no record); None where all fit. A size at which the workload raises gets no
    record either, with a warning (batch normalisation refuses a batch of one example); where that is every size, the
    first error is raised.
    """
    too_large: int | None = None
    rate = harmless_rate(workload)
    source = workload.source("data")
    streams = RandomStreams(0)
    with streams.active():
        steppers: dict[int, Stepper] = {}
        repeats: dict[int, int] = {}
        failures: dict[int, WorkloadError] = {}
        for size in sorted(batch_sizes):
            try:
                with explained(f"while measuring step times at batch size {size}"):
                    stepper = Stepper(workload, workload.complete(Trial(size, rate, 0)), source, micro_batch_size)
                    stepper.schedule = None
                    if steppers:  # one model for all: memory does not grow with their number, and time is the same
                        first = next(iter(steppers.values()))
                        stepper.model, stepper.optimizer, stepper.update = first.model, first.optimizer, first.update
                    with _never_killed(workload):
                        repeats[size] = _steps_a_repeat(stepper)
            except MemoryExhausted:
                too_large = size
                break
            except WorkloadError as error:
                failures[size] = error
                continue
            steppers[size] = stepper
        if failures and not steppers:
            raise next(iter(failures.values()))
        tell_left_out(failures)
        seconds: dict[int, list[float]] = {size: [] for size in steppers}
        waits: dict[int, list[float]] = {size: [] for size in steppers}
        for done in range(1, rounds + 1):
            for size, stepper in steppers.items():
                steps = repeats[size]
                stepper.run(1)  # what was evicted since this size last ran comes back
                seconds[size].append(_timed_steps(stepper, steps) / steps)
                waits[size].append(_timed_reading(stepper, steps) / steps)
            for size, repeated in seconds.items():
                yield StepTime(size, tuple(repeated), tuple(waits[size]), unsteady(repeated), done < rounds)
    return too_large


def harmless_rate(workload: Workload) -> float:
    """So small a rate that no model diverges while something else than its training is looked at."""
    return (workload.present[1] if workload.present else 0.1) / 100


@contextmanager
def _never_killed(workload: Workload) -> Iterator[None]:
    """On a CPU: an allocation fails that would take what is not there, before the system kills this process for it."""
    if torch.device(workload.device).type != "cpu":
        yield
        return
    try:
        free = free_bytes()
    except MissingExtra:  # nothing tells what is free
        yield
        return
    with data_limit(int((1 - HEADROOM) * free)):
        yield


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
    started = time.perf_counter()
    read = sum(1 for _ in islice(stepper.source.epoch(stepper.trial.batch_size, torch.Generator()), steps))
    return (time.perf_counter() - started) * steps / read


def _synchronize(stepper: Stepper) -> None:
    if stepper.workload.device.startswith("cuda"):
        torch.cuda.synchronize()
    elif stepper.workload.device == "mps":
        torch.mps.synchronize()
