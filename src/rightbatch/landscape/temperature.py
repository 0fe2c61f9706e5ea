"""Batch size and rate as a temperature: what constant SGD makes of the weights that a run ended with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.evaluation import Evaluator
from rightbatch.fit.iterates import iterate_tests
from rightbatch.fit.posterior import temperature_of
from rightbatch.fit.quantiles import t_quantile
from rightbatch.gradients.exact import trained
from rightbatch.gradients.rows import gradient_rows
from rightbatch.minima import Choices
from rightbatch.records import Interval, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

LEVEL = 0.95

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it are spread evenly between whole numbers."""

Numbers = Iterator[tuple[str, float, float | None, float | None]]
"""Quantities with their values and the ends of their intervals, where they have one; the measure's own name first."""


def wander(workload: Workload, trial: Trial, passes: int) -> tuple[Stepper, Tensor]:
    """Train on from the workload's weights at the trial's rate without a schedule; weights about every pass `[k, d]`.

    At another place in each pass: batches drawn without replacement have no noise left where a pass ends.
    """
    stepper = Stepper(replace(workload, schedule=None, averaging_examples=None), trial)
    steps, kept = max(1, round(len(stepper.source) / trial.batch_size)), []
    with RandomStreams(trial.seed).active():
        for number in range(passes):
            stepper.run(max(1, round((number + 1 + (number + 1) * GOLDEN % 1) * steps) - stepper.step))
            kept.append(torch.cat([p.detach().flatten().cpu() for p in trained(stepper.model).values()]))
    return stepper, torch.stack(kept)


# ------------------------------------------------------------------------------- by what a gradient moves the weights


def _of_sgd(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> Tensor:
    # A gradient moves the weights by rate (1 + momentum + momentum^2 ...): equation 25.
    gain = (1 - group["dampening"]) / (1 - group["momentum"]) if group["momentum"] else 1.0
    return torch.full_like(parameter, group["lr"] * gain)


def _of_adam(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> Tensor:
    state = optimizer.state[parameter]
    if not state:  # no gradient ever came
        return torch.zeros_like(parameter)
    seen = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return group["lr"] / (seen.sqrt() + group["eps"])  # type: ignore[no-any-return]


GAINS: dict[type, Callable[[torch.optim.Optimizer, dict[str, Any], nn.Parameter], Tensor]] = {
    torch.optim.SGD: _of_sgd,
    torch.optim.Adam: _of_adam,
    torch.optim.AdamW: _of_adam,
}
"""By how much a gradient moves each weight in the end, for the optimizers whose steps are known: the diagonal of H."""


def gains(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """The diagonal of the step H, shape `[d]`, after some steps: zero for what the optimizer does not have.

    In the order of `gradients.exact.trained`, which need not be that of the optimizer's groups. Raises `InputError` for
    an unknown optimizer.
    """
    of = GAINS.get(type(optimizer))
    if of is None:
        raise InputError(
            f"What a gradient of one example does to the weights is known for {', '.join(t.__name__ for t in GAINS)}, "
            f"not for {type(optimizer).__name__}: this temperature needs one of them."
        )
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    parts = [of(optimizer, groups[p], p) if p in groups else torch.zeros_like(p) for p in trained(model).values()]
    return torch.cat([part.detach().flatten() for part in parts])


# --------------------------------------------------------------------------------------------------------- the numbers


def temperature(workload: Workload, trial: Trial, choices: Choices) -> Numbers:
    """Quantities with the ends of their intervals, the temperature first: see `fit.posterior.temperature`.

    The weights are those that the workload's model begins with; from there it is trained on, at the trial's rate.
    """
    source = workload.source("data")
    examples = len(source)
    if not examples:
        raise InputError(f"How many examples {workload.name!r} has is not known: a posterior is of so many. Give them.")
    stepper, samples = wander(workload, trial, choices.passes)
    step, some = gains(stepper.model, stepper.optimizer), min(choices.noise_examples or examples, examples)
    found = energy(workload, step, next(iter(source.fixed(some, some))))
    share = temperature_of(1.0, trial.batch_size, examples, len(step))
    assert found.low is not None
    assert found.high is not None
    yield "temperature", share * found.estimate, share * found.low, share * found.high
    yield "seen", seen_temperature(workload, samples, examples, choices.examples), None, None
    yield "parameters", float(len(step)), None, None
    yield "examples", float(examples), None, None
    tests = iterate_tests(samples.double().numpy())
    for name in ("samples", "trend_p_value", "autocorrelation", "autocorrelation_p_value", "normal_p_value", "idle"):
        yield name, float(getattr(tests, name)), None, None


def energy(workload: Workload, step: Tensor, batch: Any) -> Interval:
    """tr(H C) of the gradient of one example, for a diagonal H `[d]`; a t interval over the examples."""
    model = workload.model().to(workload.device).eval()
    loss = under_autocast(workload.loss, workload)
    total, each, weights = torch.zeros_like(step, dtype=torch.float64), [], 0.0
    with RandomStreams(0).active():
        for rows, weight in gradient_rows(model, loss, batch):
            wide = rows.double()
            total += wide.sum(0)
            each.append((wide.square() @ step.double()).cpu().numpy())
            weights += float(weight.sum())
    squares = np.concatenate(each)
    n = len(squares)
    if n < 2:
        raise InputError(f"The covariance of gradients needs at least 2 examples, got {n}. Take more noise_examples.")
    # The gradient of example i is n c_i, with c_i its contribution to the mean: see gradients.exact.
    squares = squares * (n / weights) ** 2
    mean = float((total / weights).square() @ step.double())
    found = (float(squares.mean()) - mean) * n / (n - 1)
    half = t_quantile(0.5 + LEVEL / 2, n - 1) * float(squares.std(ddof=1)) / math.sqrt(n)
    return Interval(found, max(0.0, found - half), found + half, LEVEL)


def seen_temperature(workload: Workload, samples: Tensor, examples: int, judge: int | None) -> float:
    """The energy of samples over d / 2: how much higher the training loss is there than at their mean, times N.

    Batch normalisation keeps the averages that the run ended with: those of the weights along the way are not samples.
    """
    source = workload.source("data")
    evaluator = Evaluator(replace(workload, evaluation_examples=min(judge or examples, examples)), source)
    model = workload.model().to(workload.device).eval()
    parameters = list(trained(model).values())

    def loss(weights: Tensor) -> float:
        with torch.no_grad(), RandomStreams(0).active():
            nn.utils.vector_to_parameters(weights.to(parameters[0]), parameters)
            return evaluator(model)[0]

    k, d = samples.shape
    at_samples = [loss(sample) for sample in samples]
    rise = float(np.mean(at_samples)) - loss(samples.double().mean(0).to(samples.dtype))
    return 2 * examples * rise / d * k / (k - 1)  # the mean of k samples has 1/k of their energy itself
