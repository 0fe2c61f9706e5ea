"""Batches of generalised linear models: closures that tell what coordinate descent needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rightbatch.errors import InputError


@dataclass(frozen=True)
class Family:
    """An exponential family with its canonical link: -log p(y | s) = A(s) - y s, but for what s does not change.

    `cumulant` is A of the scores s, `mean` its derivative, `variance` the second.
    """

    cumulant: Callable[[Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    variance: Callable[[Tensor], Tensor]


def _bernoulli_variance(scores: Tensor) -> Tensor:
    mean = scores.sigmoid()
    return mean * (1 - mean)


FAMILIES: Mapping[str, Family] = {
    "normal": Family(lambda s: 0.5 * s.square(), lambda s: s, torch.ones_like),
    "bernoulli": Family(functional.softplus, torch.sigmoid, _bernoulli_variance),
    "poisson": Family(torch.exp, torch.exp, torch.exp),
}
"""Linear, logistic (labels 0 and 1) and Poisson regression."""


class LinearBatch:
    """A batch of a generalised linear model; called, it leaves the gradients and returns the loss, as any closure.

    The loss is the mean of A(s) - y s with scores s = x w + c, and ridge / 2 |w|^2.

    Parameters
    ----------
    model: With one output.
    inputs, labels: `[b, d]`, `[b]`.
    family: One of `FAMILIES`.
    ridge: Of the weights, not of the bias.

    Raises
    ------
    InputError: For a model with several outputs, shapes that do not fit, another family or a negative ridge.
    """

    def __init__(self, model: nn.Linear, inputs: Tensor, labels: Tensor, family: str, ridge: float = 0.0) -> None:
        if family not in FAMILIES:
            raise InputError(f"family is one of {', '.join(FAMILIES)}; got {family!r}.")
        if model.out_features != 1:
            raise InputError(f"A generalised linear model here has one output, got {model.out_features}.")
        if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or inputs.shape[1] != model.in_features:
            raise InputError(
                f"Inputs are [b, {model.in_features}] and labels [b], got {list(inputs.shape)} and "
                f"{list(labels.shape)}."
            )
        if ridge < 0:
            raise InputError(f"ridge is at least 0, got {ridge:g}.")
        self.model, self.inputs, self.ridge = model, inputs, ridge
        self.labels, self.family = labels.to(inputs.dtype), FAMILIES[family]

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """Weights, and the bias where there is one."""
        return list(self.model.parameters())

    def scores(self) -> Tensor:
        """x w + c, shape `[b]`."""
        scores: Tensor = self.model(self.inputs)[:, 0]
        return scores

    def losses(self, scores: Tensor) -> Tensor:
        """Of each example, without the ridge."""
        return self.family.cumulant(scores) - self.labels * scores

    def loss(self) -> Tensor:
        """The mean over the batch, with the ridge."""
        return self.losses(self.scores()).mean() + 0.5 * self.ridge * self.model.weight.square().sum()

    def __call__(self) -> Tensor:
        """The loss, its gradients left in the parameters."""
        self.model.zero_grad()
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def coordinates(self, start: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Callable[[int], Tensor], float]]:
        """Of weights and bias: their values, where they started, the column of the inputs of each, their ridge."""
        yield self.model.weight.detach()[0], start[0][0], lambda j: self.inputs[:, j], self.ridge
        if self.model.bias is not None:
            yield self.model.bias.detach(), start[1], lambda j: torch.ones_like(self.labels), 0.0
