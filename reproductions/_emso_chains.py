"""Runs of EMSO and of mini-batch SGD, which is EMSO with one inner step: many seeds at once, and what tunes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _emso_problems import Logistic
from torch import Tensor, nn

from rightbatch.optim import EMSO


@dataclass(frozen=True)
class Way:
    """What is tuned: how far a batch may take the weights, and how fast."""

    boldness: float
    rate: float = 1.0


@dataclass(frozen=True)
class Method:
    """At most so many inner steps, with the proximal term or without, on the batches of so many workers."""

    inner_steps: int
    proximal: bool
    workers: int = 1

    def ways(self) -> list[Way]:
        """What is tried: boldnesses a factor 2 apart, and with a proximal term also 4 and 16 times the rate."""
        if not self.proximal:
            return [Way(2.0**k) for k in range(-8, 7)]
        usual = [Way(2.0**k) for k in (*range(-4, 5), 6, 8, 10)]
        return usual + [Way(2.0**k, rate) for k in (2, 4, 6, 8, 10) for rate in (4.0, 16.0) if 2**k >= rate]

    def at_edge(self, way: Way) -> bool:
        """Whether a bolder or a more timid way might be better; boldest with a proximal term is hardly any of it."""
        if not self.proximal:
            return way.boldness in (2.0**-8, 2.0**6)
        return way.boldness == 2.0**-4 or way.rate == 16.0

    def options(self, problem: Logistic, batch_size: int, way: Way) -> Mapping[str, float]:
        """Of EMSO. Without a proximal term the rate is boldness / smoothness, with one gamma is smoothness / boldness.

        Then the rate is what the subproblem's smoothness asks for, times `way.rate`.
        """
        smoothness = problem.smoothness(batch_size)
        if not self.proximal:
            return {"lr": way.boldness / smoothness, "gamma": 0.0, "inner_steps": self.inner_steps}
        gamma = smoothness / way.boldness
        return {"lr": way.rate / (smoothness + gamma), "gamma": gamma, "inner_steps": self.inner_steps}


METHODS: Mapping[str, Method] = {
    "SGD": Method(1, False),
    "EMSO, 1 step": Method(1, True),
    "EMSO, 5 steps": Method(5, True),
    "EMSO, 20 steps": Method(20, True),
    "5 steps, no proximal term": Method(5, False),
    "20 steps, no proximal term": Method(20, False),
    "four workers": Method(20, True, 4),
}

KEPT = ("last", "mean")
"""What is judged: the last iterate, or the mean of all, weighted by their number. Tuned like the rest."""


@dataclass(frozen=True)
class Course:
    """How much above the least loss each seed was after so many steps: `above[kept][k][seed]`."""

    steps: tuple[int, ...]
    evaluations: tuple[int, ...]
    above: Mapping[str, list[list[float]]]


def run(
    problem: Logistic,
    *,
    batch_size: int,
    steps: int,
    seeds: Sequence[int],
    at: Sequence[int],
    workers: int = 1,
    rate_of: Callable[[int], float] | None = None,
    average: Any = "linear",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Course:
    """Runs from zero on rows drawn with replacement. `rate_of`: the rate of a step, where it changes."""
    with_loss = options.get("inner") == "l-bfgs"
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    weights = nn.Parameter(torch.zeros(len(seeds), problem.size, dtype=dtype))
    optimizer = EMSO([weights], average=average, **options)
    above: dict[str, list[list[float]]] = {kept: [] for kept in KEPT}
    evaluations, looked = [], sorted(at)
    for step in range(1, steps + 1):
        if rate_of is not None:
            optimizer.param_groups[0]["lr"] = rate_of(step)
        batches = [closure(problem, weights, draws, batch_size, with_loss) for _ in range(workers)]
        optimizer.step_of_workers(batches)
        if step in looked:
            evaluations.append(optimizer.evaluations // workers)
            above["last"].append(problem.above(weights.detach()))
            with optimizer.averaged():
                above["mean"].append(problem.above(weights.detach()))
    return Course(tuple(looked), tuple(evaluations), above)


def closure(
    problem: Logistic, weights: nn.Parameter, draws: Sequence[torch.Generator], batch_size: int, with_loss: bool
) -> Callable[[], Tensor]:
    """Leaves the gradients of one batch for each row of weights; written out, for autograd takes twice as long.

    The sum of all losses where it is asked for.
    """
    chosen = torch.stack([torch.randint(len(problem.labels), (batch_size,), generator=draw) for draw in draws])
    inputs, labels = problem.inputs[chosen].to(weights.dtype), problem.labels[chosen].to(weights.dtype)
    nothing = torch.zeros((), dtype=weights.dtype)

    @torch.no_grad()
    def gradients() -> Tensor:
        scores = torch.bmm(inputs, weights.unsqueeze(2)).squeeze(2)
        errors = scores.sigmoid().sub_(labels).div_(batch_size)
        weights.grad = torch.bmm(errors.unsqueeze(1), inputs).squeeze(1).add_(weights, alpha=problem.ridge)
        if not with_loss:  # gradient descent does not ask for it
            return nothing
        losses = torch.nn.functional.softplus(scores) - labels * scores
        return losses.mean(1).sum() + 0.5 * problem.ridge * weights.square().sum()

    return gradients
