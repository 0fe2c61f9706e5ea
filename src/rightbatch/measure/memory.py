"""What memory a training takes at a batch size: made as it would be, for a few steps, in a process of its own."""

from __future__ import annotations

import gc
import time
from typing import Any

import torch

from rightbatch.accumulation import accumulate
from rightbatch.batches import Source
from rightbatch.evaluation import Evaluator
from rightbatch.losses import examples_in
from rightbatch.measure.activations import parts_of
from rightbatch.measure.heaviest import heaviest_first
from rightbatch.measure.memory_gauges import GAUGES, Gauge
from rightbatch.measure.step_time import harmless_rate
from rightbatch.parts import mapped, split
from rightbatch.raised import MemoryExhausted, explained, is_memory_error
from rightbatch.records import MemoryParts, MemoryProbe, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

STEPS = 2
"""The state of an optimizer is there after its first step: the second one has all that the others have."""

MORE_STEPS = 8
"""At most so many follow, as long as the peak still grows: what an allocator takes settles after a while."""

GROWTH = 0.005
"""The peak has settled when two steps have raised it by no more than this share of the increase."""


def measure_memory(
    workload: Workload,
    source: Source,
    batch_size: int,
    micro_batch_size: int,
    *,
    limit_bytes: int | None,
    headroom: float,
    host_bytes: int,
    look: bool = False,
) -> MemoryProbe:
    """Train for a few steps of `batch_size` examples, in passes of at most `micro_batch_size`, and evaluate.

    The batches are the heaviest of the data (of longest sequences); one is smaller, as the last of a pass may be; the
    weights are evaluated, and then trained once more. To be called once in the life of a process: what an earlier
    training has left behind would be counted.

    Parameters
    ----------
    limit_bytes, headroom: Memory of a device that is not the CPU: what was asked for, and the share that stays free.
    host_bytes: What the process may hold of main memory: of a CPU, the limit.
    look: Whether to count what the model keeps for the backward pass, after all the rest.
    """
    started = time.perf_counter()
    trial = workload.complete(Trial(batch_size, harmless_rate(workload), 0))
    device = torch.device(workload.device)
    gc.collect()
    gauge = GAUGES[device.type](device, limit_bytes, headroom, host_bytes)
    training: int | None = None
    peak: int | None = None
    parts: MemoryParts | None = None
    why = ""
    try:
        with explained(f"batch_size={batch_size}"), RandomStreams(0).active():
            stepper = Stepper(workload, trial, heaviest_first(source), micro_batch_size)
            stepper.schedule = None
            stepper.run(STEPS)
            _settle(stepper, gauge)
            _smaller_step(stepper, len(source) % batch_size if len(source) else batch_size // 2)
            training = gauge.peak()
            Evaluator(workload, workload.source("valid"))(stepper.judged)
            stepper.run(1)
            peak = gauge.peak()
            if look:
                parts = parts_of(stepper)
    except MemoryExhausted as error:
        why = str(error)
    if training is not None and peak is None:
        why = f"in evaluation: {why}"
    seconds = time.perf_counter() - started
    fitted = peak is not None
    return MemoryProbe(
        micro_batch_size=micro_batch_size,
        batch_size=batch_size,
        limit_bytes=gauge.limit_bytes,
        before_bytes=gauge.before_bytes,
        training_bytes=training if fitted else None,
        peak_bytes=peak,
        seconds=seconds,
        why=why,
        parts=parts,
    )


def _settle(stepper: Stepper, gauge: Gauge) -> None:
    """Steps until the peak grows no more."""
    steady, before = 0, gauge.peak()
    for _ in range(MORE_STEPS):
        stepper.run(1)
        now = gauge.peak()
        steady = steady + 1 if now - before <= GROWTH * (now - gauge.before_bytes) else 0
        before = now
        if steady == 2:
            return


def _smaller_step(stepper: Stepper, examples: int) -> None:
    """A step of the first examples of a batch, as the last of a pass may be."""
    batch = next(stepper.batches())
    held = examples_in(batch)
    if not held or not 0 < examples < held:
        return
    part = mapped(batch, lambda tensor: tensor[:examples] if tensor.ndim and len(tensor) == held else tensor)
    stepper.optimizer.zero_grad()
    passes = -(-stepper.accumulation_steps * examples // stepper.trial.batch_size)
    loss: Any = under_autocast(stepper.workload.loss, stepper.workload)
    try:
        micro_batches = split(part, passes) if passes > 1 else [part]
        accumulate(loss, stepper.model, micro_batches, stepper.model.parameters(), stepper.update.scale)
    except Exception as error:
        # A loader's batch may have its examples along another dimension, and BatchNorm refuses one example.
        if is_memory_error(error):
            raise
        return
    stepper.finish_step(part)
