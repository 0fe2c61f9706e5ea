"""Checks of training itself: what the loss returns, gradients, the rate, finite losses, whether anything is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

import torch

from rightbatch.checks.data import contents
from rightbatch.checks.looking import Cannot, Raised, named
from rightbatch.checks.rehearsal import Rehearsal
from rightbatch.errors import WorkloadError
from rightbatch.findings import Fault, Finding
from rightbatch.records import Trial
from rightbatch.wording import counted

TIMES = 4.0
"""The rate is multiplied by this to see whether the optimizer takes it over."""

COMPARED_STEPS = 5
"""Losses of so many steps at either end of the short run are compared."""

EXACT = 1e-6
"""Two rates that differ by less are the same."""


def shapes(context: Rehearsal) -> Iterator[Finding]:
    """Loss and metric return what `rightbatch.losses` allows, in training and in evaluation."""
    do_loss = "Return the losses of the examples: with torch's loss functions, reduction='none'."
    do_metric = "Return one value per example, a pair (total, weight), or (loss, value) of these."
    problem, of_metric = context.loss_problem, context.metric_problem
    if problem is not None:
        yield Finding(Fault.SHAPE, str(problem), do_loss)
    if of_metric is not None:
        yield Finding(Fault.SHAPE, str(of_metric), do_metric)
    if problem is None and of_metric is None:
        try:
            _ = context.evaluation
        except Raised as raised:
            if not isinstance(raised.error, WorkloadError):
                raise
            yield Finding(Fault.SHAPE, str(raised.error), do_metric if context.workload.metric else do_loss)


def gradients(context: Rehearsal) -> Iterator[Finding]:
    """The loss has a gradient, each trainable parameter gets one, and the optimizer has them all."""
    if context.loss_problem is not None:
        raise Cannot("the loss cannot be trained on")
    loss = context.returned
    total = loss[0] if isinstance(loss, tuple) else loss
    if not total.requires_grad:
        yield Finding(
            Fault.NO_GRADIENT,
            "loss(model, batch) returned losses without a gradient.",
            "Compute them from the model's output, not under no_grad, after .detach(), .item() or .argmax().",
        )
        return
    run = context.run
    # What the optimizer does not have is told once, also where it has no gradient either.
    ungraded = [name for name in run.ungraded if name not in run.left_out]
    if run.left_out:
        yield Finding(
            Fault.NO_GRADIENT,
            f"Not given to the optimizer: {counted(len(run.left_out), 'trainable parameter')}, "
            f"{named([*run.left_out])}.",
            "Give it all of `parameters`; what is to stay as it is gets requires_grad_(False).",
        )
    if ungraded:
        yield Finding(
            Fault.NO_GRADIENT,
            f"Without a gradient in {len(run.losses)} steps: {counted(len(ungraded), 'trainable parameter')}, "
            f"{named(ungraded)}.",
            "Use them in forward (is a part detached, or never called?), or set requires_grad_(False).",
        )


def batch_matters(context: Rehearsal) -> Iterator[Finding]:
    """After the short run, two batches that differ have other losses."""
    first, second = context.batch, context.other_batch
    if contents(first) == contents(second):
        raise Cannot("two batches hold the same")
    losses = [context.training_loss(batch) for batch in (first, second)]
    # Examples that are learned already may all have a loss of 0; one that is not finite is told elsewhere.
    if torch.equal(*losses) and bool(losses[0].isfinite().all()) and bool((losses[0] != 0).any()):
        yield Finding(
            Fault.BATCH_IGNORED,
            f"After {len(context.run.losses)} steps, two batches with other examples have the same loss to the last "
            f"digit, {float(losses[0].double().mean()):.6g}.",
            "Compute the loss from the batch that the function is given: loss(model, batch).",
        )


def rate(context: Rehearsal) -> Iterator[Finding]:
    """The optimizer's groups follow the rate of the trial, and one of them has it."""
    asked = context.trial.learning_rate
    before, after = _rates(context, asked), _rates(context, TIMES * asked)
    if not before:
        raise Cannot("the optimizer has no 'lr' in its groups")
    stuck = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if abs(b - TIMES * a) > EXACT * TIMES * a]
    do = "Give the optimizer lr=trial.learning_rate."
    if stuck:
        k = stuck[0]
        yield Finding(
            Fault.RATE_IGNORED,
            f"{len(stuck)} of {len(before)} groups of the optimizer do not follow the trial: asked for {asked:g} and "
            f"{TIMES * asked:g}, group {k} has {before[k]:g} and {after[k]:g}.",
            do + " A group may have a factor times that.",
        )
    elif not any(abs(found - asked) <= EXACT * asked for found in before):
        yield Finding(
            Fault.RATE_IGNORED,
            f"Asked for the rate {asked:g}, the optimizer has {named([f'{r:g}' for r in before])}.",
            do + " A rule that scales it with the batch size is what is to be found out.",
        )


def _rates(context: Rehearsal, learning_rate: float) -> list[float]:
    trial = context.trial
    other = Trial(trial.batch_size, learning_rate, trial.seed, trial.planned_examples, trial.settings)
    try:
        optimizer = context.workload.optimizer(context.model.parameters(), other)
    except Exception as error:
        raise Raised("optimizer(parameters, trial)", error) from error
    return [float(group["lr"]) for group in optimizer.param_groups if group.get("lr") is not None]


def finite(context: Rehearsal) -> Iterator[Finding]:
    """The training loss of the first steps, and the values of the first evaluation."""
    trial = context.trial
    losses = context.run.losses
    where = f"at batch size {trial.batch_size} and rate {trial.learning_rate:g}"
    if not math.isfinite(losses[-1]):  # the run ends at the first such loss
        at_start = len(losses) == 1
        yield Finding(
            Fault.NOT_FINITE,
            f"The training loss is {losses[-1]:g} at step {len(losses)} {where}"
            + ("." if at_start else f"; it began at {losses[0]:.4g}."),
            "Look for a logarithm of 0, a division by 0, inputs of very large size."
            if at_start
            else f"Lower the present rate, for instance to {trial.learning_rate / 10:g}, or clip gradients "
            f"(max_gradient_norm=1.0).",
        )
        return
    evaluation = context.evaluation
    bad = {name: v for name, v in (("loss", evaluation.loss), ("metric", evaluation.metric)) if not math.isfinite(v)}
    if bad:
        yield Finding(
            Fault.NOT_FINITE,
            f"Before training, the validation {' and '.join(f'{name} is {value:g}' for name, value in bad.items())}.",
            "Look at the validation data, and for a division by 0 in what judges it.",
        )


def learning(context: Rehearsal) -> Iterator[Finding]:
    """Whether the training loss falls in the first steps."""
    losses, trial = context.run.losses, context.trial
    if len(losses) < 2 * COMPARED_STEPS or not math.isfinite(losses[-1]):
        raise Cannot(f"there are {len(losses)} steps with a finite loss, fewer than {2 * COMPARED_STEPS}")
    first, last = fmean(losses[:COMPARED_STEPS]), fmean(losses[-COMPARED_STEPS:])
    if last >= first:
        yield Finding(
            Fault.NO_LEARNING,
            f"The training loss was {first:.4g} in the first {COMPARED_STEPS} steps and {last:.4g} in the last of "
            f"{len(losses)}, at batch size {trial.batch_size} and rate {trial.learning_rate:g}.",
            "Try another present rate, and see that inputs and labels belong together. A long warm-up may explain it.",
            note=True,
        )
