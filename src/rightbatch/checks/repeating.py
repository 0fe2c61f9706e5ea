"""Checks of a fresh start: each run has a new model, and a seed fixes all that is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from rightbatch.checks.looking import Cannot, named
from rightbatch.checks.rehearsal import Rehearsal, ShortRun, alike
from rightbatch.findings import Fault, Finding

ROUNDING = 1e-4
"""Losses that differ by less (relatively) differ by rounding: a GPU adds in an order of its own."""


def model_kept(context: Rehearsal) -> Iterator[Finding]:
    """A model is made anew for each run, and does not remember what an earlier run has learned."""
    seen = _kept(context)
    if seen is not None:
        yield Finding(
            Fault.MODEL_KEPT, seen, "Make the model, and all that it is made of, inside the function `model`."
        )


def repeatable(context: Rehearsal) -> Iterator[Finding]:
    """Two runs of one seed have the same losses."""
    if _kept(context) is not None:
        raise Cannot("the model is kept from run to run")
    first, second = context.run, context.second_run
    seed = context.trial.seed
    if not alike(context.born, first.start):
        different = [name for name, value in context.born.items() if not alike({name: value}, _only(first, name))]
        yield Finding(
            Fault.NOT_REPEATABLE,
            f"model() gave other initial weights when it was called again with seed {seed}: {named(different)}.",
            "Draw them from the generators of torch, NumPy or Python, which are seeded before each run.",
        )
        return
    step = next((k for k, (a, b) in enumerate(zip(first.losses, second.losses, strict=False)) if _differ(a, b)), None)
    if step is not None:
        yield Finding(
            Fault.NOT_REPEATABLE,
            f"Two runs with seed {seed} began with the same weights, and at step {step + 1} their losses are "
            f"{first.losses[step]:.6g} and {second.losses[step]:.6g}.",
            "Draw from the generators of torch, NumPy or Python, which are seeded before each run, or from one that is "
            "made anew with the seed; keep nothing that changes outside of the run.",
        )


def _kept(context: Rehearsal) -> str | None:
    """How something of a model outlives its run; None where nothing does."""
    model, run = context.model, context.run
    if model is run.model:
        return "model() returned the same object in two calls."
    places = {_place(p) for p in model.parameters() if p.requires_grad} - {0}
    shared = [n for n, p in run.model.named_parameters() if p.requires_grad and _place(p) in places]
    if shared:
        return f"Two models share the memory of {len(shared)} parameters: {named(shared)}."
    # Alike before any training, so that chance is excluded, and other after a run: then the run was remembered.
    if alike(context.born, run.start) and not alike(run.start, context.second_run.start):
        changed = [n for n, value in run.start.items() if not alike({n: value}, _only(context.second_run, n))]
        return (
            f"After a run of {len(run.losses)} steps, model() gave other initial weights with the same seed: "
            f"{named(changed)}."
        )
    return None


def _only(run: ShortRun, name: str) -> dict[str, torch.Tensor]:
    return {name: run.start[name]} if name in run.start else {}


def _place(tensor: torch.Tensor) -> int:
    if torch.nn.parameter.is_lazy(tensor):  # it has no memory yet
        return 0
    return tensor.untyped_storage().data_ptr()


def _differ(a: float, b: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.isfinite(a) != math.isfinite(b)
    return abs(a - b) > ROUNDING * max(abs(a), abs(b))
