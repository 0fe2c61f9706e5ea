"""Checks of what judges the runs: how many examples, at which cost, alone or together, and at which points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import torch

from rightbatch import curves
from rightbatch.batches import is_loader
from rightbatch.checks import aims
from rightbatch.checks.looking import Cannot, seconds_text
from rightbatch.checks.rehearsal import Rehearsal
from rightbatch.findings import Fault, Finding
from rightbatch.losses import examples_in, is_total
from rightbatch.schedules import last_rates
from rightbatch.wording import counted

FEWEST_OF_SHARES, FEWEST = 625, 100
"""What a share of right answers needs for a standard error, 0.5 / sqrt(n), of 2 points; what any mean needs."""

LEAST_SECONDS = 0.5
"""Evaluations of a run that take less in all are not worth a word."""

TIMES_AS_LARGE, SAME_END = 4, 0.1
"""Where a schedule ends is compared at a batch so many times as large; this share of its peak is no difference."""

SPLIT_EXAMPLES = 64
"""A batch of at most so many examples is judged whole and in halves."""

ALIKE, ALIKE_IN_HALF_PRECISION = 1e-3, 0.05
"""Losses that differ by less of their mean differ by rounding."""


def few_examples(context: Rehearsal) -> Iterator[Finding]:
    """A share needs 625 examples, any other mean 100; what is the same for every example needs but one."""
    workload, facts, evaluation = context.workload, context.facts, context.evaluation
    count = evaluation.examples if is_loader(workload.valid) else facts.valid_examples
    values = _judged_values(context)
    what = facts.target_quantity.replace("valid_", "validation ")
    if values is not None and _right_or_wrong(values):
        if count < FEWEST_OF_SHARES:
            yield Finding(
                Fault.FEW_EXAMPLES,
                f"The {what} is right or wrong on {count} examples: a standard error of up to "
                f"{50 / count**0.5:.1f} points.",
                f"Validate on {FEWEST_OF_SHARES} or more, or judge by the loss (target_quantity='valid_loss'), which "
                f"moves smoothly.",
            )
    elif count < FEWEST and not (values is not None and _all_one(values)):
        yield Finding(
            Fault.FEW_EXAMPLES,
            f"The {what} is a mean over {count} examples.",
            f"Validate on {FEWEST} or more.",
        )


def _right_or_wrong(values: torch.Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _all_one(values: torch.Tensor) -> bool:
    return len(values) > 1 and bool((values == values[0]).all())


def _judged_values(context: Rehearsal) -> torch.Tensor | None:
    """The values per example of what judges runs, after the short run; None where single values are not known."""
    workload, model = context.workload, context.run.model
    batch = context.valid_batch
    if (examples_in(batch) or 0) < 2:  # one example says nothing of whether all are alike
        batch = context.batch
    by_loss = context.facts.target_quantity == "valid_loss" or workload.metric is None
    if by_loss or workload.metric is None:
        values = context.judge(workload.loss, model, batch)
    elif workload.metric_on == "set":
        return None
    else:
        values = context.judge(workload.metric, model, batch)
        values = values[1] if isinstance(values, tuple) else values
    return values.detach().cpu() if isinstance(values, torch.Tensor) and values.ndim == 1 else None


def direction(context: Rehearsal) -> Iterator[Finding]:
    """See `aims.direction`."""
    if context.workload.metric is not None:  # else the loss is judged
        yield from aims.direction(context.points, context.facts.direction)


def target(context: Rehearsal) -> Iterator[Finding]:
    """See `aims.target`."""
    wanted = context.target
    if wanted is None:
        return
    values = _judged_values(context) if wanted.quantity == context.facts.target_quantity else None
    yield from aims.target(context.points, wanted, share=values is not None and _right_or_wrong(values))


def planned_length(context: Rehearsal) -> Iterator[Finding]:
    """See `aims.planned_length`."""
    yield from aims.planned_length(context.trial, context.facts.train_examples)


def evaluation_cost(context: Rehearsal) -> Iterator[Finding]:
    """All evaluations of a run at its planned length against its training."""
    workload, trial = context.workload, context.trial
    planned = trial.planned_examples or 1
    steps = trial.planned_steps or 1
    rungs = len(curves.rungs_in_steps(planned, trial.batch_size)) + 1  # and one before training
    evaluation = context.evaluation
    sources = 1 if workload.test is None else 2  # the test data is judged with the validation data
    once = evaluation.seconds * sources
    step_seconds = median(context.step_time.seconds)
    judging, training = once * rungs, step_seconds * steps
    if judging > max(training, LEAST_SECONDS):
        fewer = _rounded_down(evaluation.examples * training / judging / 2)
        enough = f" (evaluation_examples={fewer} would take half as long as training)" if fewer >= FEWEST else ""
        yield Finding(
            Fault.EVALUATION,
            f"One evaluation of {evaluation.examples:,} examples takes {seconds_text(once)}, the {rungs} of a run take "
            f"{seconds_text(judging)}; its {steps:,} steps of {seconds_text(step_seconds)} at batch size "
            f"{trial.batch_size} take {seconds_text(training)}.",
            f"Evaluate on fewer examples{enough}, judge them more cheaply, or plan longer runs.",
        )


def _rounded_down(value: float) -> int:
    """At one significant digit, at least 1."""
    whole = max(1, int(value))
    unit: int = 10 ** (len(str(whole)) - 1)
    return whole // unit * unit


def length_bound(context: Rehearsal) -> Iterator[Finding]:
    """Whether the rate changes after warm-up."""
    if context.facts.length_bound:
        yield Finding(
            Fault.LENGTH_BOUND,
            f"The schedule changes the rate after its peak, over the {context.facts.planned_examples:,} planned "
            f"examples.",
            "Nothing, if that is wanted: runs are then compared at their ends. A constant rate makes every evaluation "
            "count.",
            note=True,
        )


def schedule_length(context: Rehearsal) -> Iterator[Finding]:
    """A schedule that ends comes to its end with the run, whatever the batch size: it is not one of so many steps."""
    if not context.facts.length_bound or context.workload.schedule is None:
        return
    (size, last), (larger, of_larger) = last_rates(context.workload, TIMES_AS_LARGE)
    if abs(of_larger - last) <= SAME_END:
        return
    finished = min(last, of_larger) <= SAME_END
    yield Finding(
        Fault.SCHEDULE_OF_STEPS,
        f"A run over the {context.facts.planned_examples:,} planned examples ends at {last:.3g} times its largest rate "
        f"at batch size {size}, and at {of_larger:.3g} times at {larger}.",
        "Take the length of the schedule from trial.planned_steps, and milestones from examples "
        "(examples / trial.batch_size steps), not from a number of steps or passes.",
        note=not finished,
    )


def batch_dependent(context: Rehearsal) -> Iterator[Finding]:
    """In evaluation mode, the losses of examples are the same alone and with others; a mean is not a sum."""
    if context.loss_problem is not None:
        raise Cannot("the loss returns what it may not")
    model, whole_batch = context.run.model, context.valid_batch
    examples = min(examples_in(whole_batch) or 0, SPLIT_EXAMPLES) // 2 * 2
    if examples < 2:
        whole_batch, examples = context.batch, min(examples_in(context.batch) or 0, SPLIT_EXAMPLES) // 2 * 2
    if examples < 2:
        raise Cannot("no batch has two examples")
    length, half = examples_in(whole_batch) or 0, examples // 2
    loss = context.workload.loss
    try:
        batches = [_part(whole_batch, *span, length) for span in ((0, examples), (0, half), (half, examples))]
        whole, first, second = (context.judge(loss, model, batch) for batch in batches)
        again = context.judge(loss, model, batches[0], seed=1)
    except Exception as error:  # of a batch that is more than its examples
        raise Cannot(f"a batch cannot be split into examples ({type(error).__name__}: {error})") from error
    if _distance(whole, again) > 0:
        raise Cannot("the loss is random in evaluation mode")
    yield from _compared(whole, first, second, half, ALIKE_IN_HALF_PRECISION if context.workload.autocast else ALIKE)


def _compared(whole: Any, first: Any, second: Any, half: int, tolerance: float) -> Iterator[Finding]:
    do = "Let the loss of an example depend on that example only: no statistics of the batch in evaluation mode."
    if is_total(whole):
        together, apart = float(whole[0]), float(first[0]) + float(second[0])
        if abs(together - apart) > tolerance * abs(apart):
            yield Finding(
                Fault.BATCH_DEPENDENT,
                f"The total of {2 * half} examples is {together:.5g} in one batch and {apart:.5g} in two halves.",
                do + " A total is a sum, not a mean.",
            )
    elif whole.ndim == 0:
        together, mean = float(whole), (float(first) + float(second)) / 2
        if abs(together - 2 * mean) <= 0.01 * abs(mean) and mean != 0:
            yield Finding(
                Fault.SUMMED_LOSS,
                f"The loss of {2 * half} examples is {together:.5g}, that of {half} of them {mean:.5g} on average.",
                "Return the losses of the examples (reduction='none'), or their mean; not reduction='sum'.",
            )
    else:
        scale = float(whole.abs().mean())
        apart_most = _distance(whole, torch.cat([first, second]))
        if apart_most > tolerance * scale:
            yield Finding(
                Fault.BATCH_DEPENDENT,
                f"In evaluation mode, the losses of {2 * half} examples change by up to {apart_most:.3g} (their mean "
                f"is {scale:.3g}) when they are judged in two halves.",
                do,
            )


def _distance(one: Any, other: Any) -> float:
    """The largest difference of two values of one kind; values that are not finite are left out."""
    a, b = (torch.as_tensor(value[0] if is_total(value) else value).double() for value in (one, other))
    return float((a - b).abs().nan_to_num(0.0, 0.0, 0.0).max())


def _part(batch: Any, start: int, stop: int, length: int) -> Any:
    """Some examples of a batch: of all tensors that have one row an example."""
    if isinstance(batch, torch.Tensor):
        return batch[start:stop] if batch.ndim and len(batch) == length else batch
    if isinstance(batch, Mapping):
        return {key: _part(value, start, stop, length) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_part(value, start, stop, length) for value in batch)
    return batch


def batch_norm(context: Rehearsal) -> Iterator[Finding]:
    """Layers that normalise over the batch while they train."""
    kind = torch.nn.modules.batchnorm._BatchNorm  # what all of them share has no public name
    layers = [n for n, module in context.model.named_modules() if isinstance(module, kind) and module.training]
    if layers:
        yield Finding(
            Fault.BATCH_NORM,
            f"The model has {counted(len(layers), 'layer')} of batch normalisation, the first is "
            f"{layers[0] or 'itself'!r}.",
            "Nothing, if that is wanted: what is found then holds for this kind of model. Group or layer normalisation "
            "does not depend on the batch.",
            note=True,
        )
