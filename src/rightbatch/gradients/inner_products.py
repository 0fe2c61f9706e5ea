"""Inner products of gradients of single examples: how much noise there is along the gradient itself.

The inner-product test asks for G^T Sigma G, the variance of <g_i, G>, and for |G|^4. With the gradient g of the batch
in place of G both come out too large: g holds g_i itself, and its own noise. So the examples are dealt into three
groups, and each has its inner products with the sums of the two groups that it is not in. These have no noise in
common: their covariance over examples is G^T Sigma G, the product of their means |G|^4, both without bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rightbatch.gradients.factors import (
    Factors,
    Outer,
    Rows,
    Vectors,
    features_of,
    groups_of,
    left_and_right,
    slices,
    wide,
)

GROUPS = 3
FEWEST_EXAMPLES = 2 * GROUPS
"""A covariance is had from two."""


class InnerProducts:
    """Of one backward pass over so many examples, taken as the gradients of the parameters arrive."""

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._groups = [slice(k, None, GROUPS) for k in range(GROUPS)]
        self._products: dict[str, list[Tensor]] = {}  # of each group [2, its examples]: with either of the others

    def take(self, name: str, shape: torch.Size, factors: Callable[[slice], Sequence[Factors]]) -> None:
        """Those of one parameter: `factors` says what some of the examples add to its gradient."""
        parts = [factors(group) for group in self._groups]
        sums = [summed(of_group, shape) for of_group in parts]
        self._products[name] = [
            torch.stack([along(parts[k], sums[other]) for other in range(GROUPS) if other != k]) for k in range(GROUPS)
        ]

    def terms(self, names: Sequence[str]) -> tuple[float, float]:
        """|G|^4 and G^T Sigma G over these parameters; g_i is what example i adds times the number of examples."""
        by_group = ([self._products[name][k] for name in names] for k in range(GROUPS))
        found = [torch.stack([each.to(of[0].device) for each in of]).cpu().double().sum(0) for of in by_group]
        sizes = [of_group.shape[1] for of_group in found]
        fourth = variance = 0.0
        for size, (one, other) in zip(sizes, found, strict=True):
            pairs = sizes[0] * sizes[1] * sizes[2] / size  # of an example of one group and one of the other
            covariance = float((one - one.mean()) @ (other - other.mean())) / (size - 1)
            variance += covariance / pairs / GROUPS
            fourth += (float(one.mean() * other.mean()) - covariance / size) / pairs / GROUPS
        return fourth * self._examples**4, variance * self._examples**4


def summed(parts: Sequence[Factors], shape: torch.Size) -> Tensor:
    """What all examples together add to the gradient of a parameter of this shape: [features] or [rows, n]."""
    total: Tensor | None = None
    for part in parts:
        if isinstance(part, Vectors):
            values = wide(part.values)
            added = [values.sum(0) if values.ndim == 2 else values.sum((0, 2))]
        elif isinstance(part, Outer):
            added = [torch.einsum("egmt,egnt->gmn", left, right) for left, right in _matrices(part)]
        else:
            right = wide(part.right).flatten(0, 1)
            added = [right.new_zeros(part.rows, right.shape[1]).index_add_(0, part.index.flatten(), right)]
        for more in added:
            more = more.reshape(-1) if isinstance(part, Vectors) else more.reshape(shape[0], -1)
            total = more if total is None else total + more
    assert total is not None, "a parameter that some call uses"
    return total


def along(parts: Sequence[Factors], direction: Tensor) -> Tensor:
    """The inner product of what each example adds with a direction, as `summed` has it: [examples]."""
    return torch.stack([_along(part, direction) for part in parts]).sum(0)


def _along(part: Factors, direction: Tensor) -> Tensor:
    if isinstance(part, Vectors):
        values = wide(part.values)
        return (values if values.ndim == 2 else values.sum(2)) @ direction
    if isinstance(part, Rows):
        return (direction[part.index] * wide(part.right)).flatten(1).sum(1)
    of_groups = direction.reshape(groups_of(part), -1, direction.shape[1])
    forward = (left * torch.einsum("gmn,egnt->egmt", of_groups, right) for left, right in _matrices(part))
    return torch.cat([products.flatten(1).sum(1) for products in forward])


def _matrices(part: Outer) -> Iterator[tuple[Tensor, Tensor]]:
    """Both factors, [examples, groups, features, positions], of a slice of the examples after the other."""
    groups, n = groups_of(part), features_of(part)
    numbers = part.left[0].numel() + part.right[0].numel()
    for chosen in slices(len(part.left), numbers, part.left.device):
        left, right = left_and_right([part], n, chosen)
        yield left.reshape(-1, groups, *left.shape[1:]), right.reshape(-1, groups, *right.shape[1:])
