"""The gradient noise weighed by the curvature of the loss, tr(H Sigma) / G^T H G: dear, and closer to the question.

It is the batch size at which noise and gradient contribute alike to the second-order term of the loss after one step
(McCandlish et al. 2018, arXiv 1812.06162, equation 2.7: B_noise). The simple noise scale puts the identity for H.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch.gradients.hessian import gradient_of, hessian_products, twice_differentiable
from rightbatch.losses import examples_in, mean_loss, summed_loss
from rightbatch.records import GradientSample
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams


class Curvature:
    """Samples steps of a training by Hessian-vector products.

    H is that of another batch of the training data, drawn apart, so that it has no noise in common with the gradients
    that it multiplies. The training does not notice: random streams and `.grad` are as they were.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._others = self._other_batches()

    def sample(self, batch: Any, micro_batches: Sequence[Any]) -> GradientSample:
        """c^T H c for the contributions c of the micro-batches, and for the gradient that they add up to.

        Costs for each micro-batch one gradient and one Hessian-vector product.
        """
        stepper = self._stepper
        parameters = trained_by(stepper.optimizer)
        with RandomStreams(stepper.step).active(), twice_differentiable():
            losses = [summed_loss(stepper.workload.loss(stepper.model, p), examples_in(p)) for p in micro_batches]
            whole = sum(weight for _, weight in losses)
            contributions = [gradient_of(summed / whole, parameters) for summed, _ in losses]
            other = next(self._others)
            loss = mean_loss(stepper.workload.loss(stepper.model, other), examples_in(other))
            products = hessian_products(loss, parameters, contributions)
        added, product = _sum(contributions), _sum(products)
        return GradientSample(
            step=stepper.step,
            batch_size=examples_in(batch) or stepper.trial.batch_size,
            learning_rate=float(stepper.optimizer.param_groups[0]["lr"]),
            batch_squared=_dot(added, product),
            parts_squared=sum(_dot(c, hc) for c, hc in zip(contributions, products, strict=True)),
            shares_squared=sum((weight / whole) ** 2 for _, weight in losses),
            metric="curvature",
        )

    def _other_batches(self) -> Iterator[Any]:
        order = torch.Generator().manual_seed(self._stepper.trial.seed + 1)
        while True:
            yield from self._stepper.source.epoch(self._stepper.trial.batch_size, order)


def trained_by(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that an optimizer changes."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _sum(vectors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(tensors).sum(0) for tensors in zip(*vectors, strict=True)]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float(torch.dot(a.reshape(-1), b.reshape(-1))) for a, b in zip(left, right, strict=True))
