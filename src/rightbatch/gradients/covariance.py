"""The covariance of the gradients of single examples: whole, its diagonal, or its largest directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.exact import Loss, count_examples
from rightbatch.gradients.rows import gradient_rows

Form = Literal["full", "diagonal", "low-rank"]

LARGEST = 8192
"""Parameters of which the whole covariance is made: half a gigabyte."""

ROUNDS = 3
"""Times that the data is gone through for the largest directions (subspace iteration)."""


@dataclass(frozen=True, eq=False)
class GradientCovariance:
    """Of the gradients of all examples, in double precision, parameters as in `model.named_parameters()`.

    mean: The gradient of the mean loss, shape `[d]`.
    diagonal: The variance of each entry, shape `[d]`.
    matrix: The covariance, shape `[d, d]`, where all of it was asked for.
    directions, variances: Its largest eigenvectors as rows, `[k, d]`, and eigenvalues, `[k]`, where these were.
    """

    examples: int
    mean: Tensor
    diagonal: Tensor
    matrix: Tensor | None = None
    directions: Tensor | None = None
    variances: Tensor | None = None

    @property
    def trace(self) -> float:
        """The sum of all variances: the gradient noise tr(Sigma)."""
        return float(self.diagonal.sum())


def gradient_covariance(
    model: nn.Module, loss: Loss, data: Any, *, form: Form = "full", rank: int = 16, seed: int = 0
) -> GradientCovariance:
    """The covariance of the gradient of one example over a data set, at the present weights; divisor N - 1.

    `data` has the form of a batch, `loss` is that of a `Workload`. The gradient of example i is N times its
    contribution to that of `losses.mean_loss`: its own gradient where all examples count alike. "low-rank" goes through
    the data three times more (N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM
    Review 53, 2011, algorithm 4.4) and holds `rank` + 8 vectors.

    Raises `InputError` for a model that mixes examples, for fewer than two of them, and for a whole covariance of more
    than 8,192 parameters.
    """
    examples = count_examples(data)
    if examples < 2:
        raise InputError(f"The covariance of gradients needs at least 2 examples, got {examples}. Give more data.")
    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if form == "full" and size > LARGEST:
        raise InputError(
            f"The whole covariance of {size:,} parameters has {size:,}^2 entries; it is made of up to {LARGEST:,}. Ask "
            f'for form="diagonal" or "low-rank".'
        )
    if form == "low-rank" and not 1 <= rank <= size:
        raise InputError(f"The rank is from 1 to the number of parameters, {size:,}; got {rank}.")
    like = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    total, squares = (torch.zeros(size, dtype=torch.float64, device=like.device) for _ in range(2))
    products = torch.zeros((size, size) if form == "full" else (), dtype=torch.float64, device=like.device)
    whole = 0.0
    for rows, weights in gradient_rows(model, loss, data):
        wide = rows.double()
        total += wide.sum(0)
        squares += wide.square().sum(0)
        whole += float(weights.sum())
        if form == "full":
            products += wide.T @ wide
    scale = examples / whole
    mean = total / whole

    def centred(sums: Tensor, mean_product: Tensor) -> Tensor:
        found: Tensor = (scale**2 * sums - examples * mean_product) / (examples - 1)
        return found

    diagonal = centred(squares, mean.square()).clamp(min=0)
    if form == "full":
        return GradientCovariance(examples, mean, diagonal, centred(products, torch.outer(mean, mean)))
    if form == "diagonal":
        return GradientCovariance(examples, mean, diagonal)

    def times(vectors: Tensor) -> Tensor:
        """The covariance times columns `[d, k]`."""
        sums = torch.zeros_like(vectors)
        for rows, _ in gradient_rows(model, loss, data):
            sums += rows.double().T @ (rows.double() @ vectors)
        return centred(sums, torch.outer(mean, mean @ vectors))

    columns = min(size, rank + 8)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(size, columns, generator=generator, dtype=torch.float64).to(mean.device)
    for _ in range(ROUNDS - 1):
        basis = torch.linalg.qr(times(basis))[0]
    inside = basis.T @ times(basis)
    variances, turned = torch.linalg.eigh((inside + inside.T) / 2)
    directions = (basis @ turned).T.flip(0)[:rank]
    return GradientCovariance(examples, mean, diagonal, None, directions, variances.flip(0)[:rank].clamp(min=0))
