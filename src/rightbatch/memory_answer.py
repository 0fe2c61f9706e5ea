"""What is answered about memory: the largest batch that fits, and what would make a larger one fit."""

from __future__ import annotations

from dataclasses import dataclass

from rightbatch.another_batch import Plan
from rightbatch.fit.memory import MemoryFit
from rightbatch.records import MemoryParts, MemoryProbe

EIGHT_BITS = 0.25
"""The state of an optimizer in 8 bits a number instead of 32 (its scales, one for some thousand numbers, left out)."""


@dataclass(frozen=True)
class Accumulated:
    """How a batch is trained that does not fit in one pass: the same step, in parts.

    micro_batch_size, accumulation_steps: The parts, nearly equal, and how many they are.
    peak_bytes: What a step of this batch took, of these that were made to confirm it.
    normalising: Modules that normalise each part by itself, so that it is another training than that of the whole.
    difference: By how much the gradient of half a pass changes, relative to its norm, if it is cut into as many parts.
    """

    batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    peak_bytes: int
    normalising: tuple[str, ...] = ()
    difference: float | None = None


@dataclass(frozen=True)
class MemoryReport:
    """The largest batch that fits, what it takes, and how that was found.

    batch_size: The largest size that was run and stayed within the limit, in examples of one pass; 0: not even one.
    at_most: No larger size than this can fit, as far as was seen; None where the data end first.
    peak_bytes: The most that was held at `batch_size`.
    limit_bytes: What may be held: the smaller of what is free and of what was asked for, less the headroom.
    asked_bytes: The limit that was asked for; None: what is free.
    before_bytes: What is held before there is a model: the program, its libraries, the data.
    fit: The increase over that as a line in the batch size; None with nothing that ran.
    why: Of the smallest size that did not fit, what happened.
    refused: What the workload itself said of a size that it could not train, whatever the memory.
    wished: How the wished batch is trained; None where none was wished.
    plans: What the person trains with now, and what the rule `by` makes of it at the wished size and at `batch_size`,
        where that was asked for and the wished batch does not fit in one pass.
    """

    workload: str
    device: str
    batch_size: int
    at_most: int | None
    train_examples: int
    peak_bytes: int | None
    limit_bytes: int
    asked_bytes: int | None
    headroom: float
    before_bytes: int
    fit: MemoryFit | None
    parts: MemoryParts | None
    wished: Accumulated | None
    probes: tuple[MemoryProbe, ...]
    why: str
    refused: str
    wall_seconds: float
    plans: tuple[Plan, Plan, Plan] | None = None
    by: str | None = None


@dataclass(frozen=True)
class Saving:
    """What a change would make of the largest batch: predicted from what was counted, not run."""

    what: str
    batch_size: int


def savings(report: MemoryReport) -> tuple[Saving, ...]:
    """What activation checkpointing, bfloat16 and a state in 8 bits would buy, where it is anything."""
    fit, parts = report.fit, report.parts
    if fit is None or parts is None or not fit.slope_known:
        return ()
    room = report.limit_bytes - report.before_bytes
    fixed, example = fit.fixed_bytes.estimate, fit.example_bytes.estimate
    changed = {"the state of the optimizer in 8 bits": (fixed - (1 - EIGHT_BITS) * parts.optimizer_bytes, example)}
    if parts.kept_bytes and parts.kept_with_checkpoints_bytes is not None:
        spared = parts.kept_bytes - parts.kept_with_checkpoints_bytes
        changed["activation checkpointing of every block"] = (fixed, max(example - spared, 0.1 * example))
    if parts.kept_bytes and parts.kept_in_bfloat16_bytes is not None:
        halved = parts.kept_in_bfloat16_bytes / parts.kept_bytes
        changed["autocast to bfloat16"] = (fixed + parts.model_bytes / 2, halved * example)
    now = max(1.0, (room - fixed) / example)
    found = []
    for what, (constant, each) in changed.items():
        factor = (room - constant) / each / now
        if factor >= 1.03:
            found.append(Saving(what, int(factor * report.batch_size)))
    return tuple(found)
