"""What the calls of a layer add to the gradient of a parameter, in factors, and its squared norm for each example.

The contribution of an example to the gradient of a weight is a sum of outer products over positions (tokens, pixels).
Its squared norm needs only inner products of the factors (Goodfellow 2015, arXiv 1510.01799; for sequences Li et al.
2022, arXiv 2110.05679, section 4), or the sum itself where that is cheaper. What all calls that share a parameter add
is summed before the norm is taken.

The same factors tell what the gradient of all examples must be. It is compared with the gradient that arrives, along
one random direction: a use of the parameter that no factor stands for shows there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SLICE_NUMBERS_CPU, SLICE_NUMBERS_GPU = 1 << 18, 1 << 26
"""Examples are taken in slices of about so many numbers: a slice stays near the cache, and in memory."""

TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-2}
"""Differences from the gradient up to this share of it are rounding (float32 may be multiplied as TF32)."""

TOLERANCE_HALF = 5e-2


@dataclass(frozen=True)
class Vectors:
    """For a vector: the sum of `values`, shape [examples, features, positions], over positions.

    Two dimensions: there is one position.
    """

    values: Tensor


@dataclass(frozen=True)
class Outer:
    """For a matrix: the sum over positions of left (outer) right; of a convolution one matrix for each group.

    `left` has the shape [examples, groups, m, positions], `right` one that can be reshaped to
    [examples, groups, n, positions]: it may be a view of overlapping windows, which is copied a slice at a time. Both
    have two dimensions where there is one group and one position.
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Rows:
    """For a table with so many rows: `right`, [examples, positions, n], is added to the rows `index`.

    This is an outer product whose left factor is one-hot, [examples, positions, rows], and never made.
    """

    index: Tensor
    right: Tensor
    rows: int


Factors = Vectors | Outer | Rows


@dataclass(frozen=True)
class Found:
    """Squared norms, shape [examples], and what shows whether the factors make up all of the gradient.

    `checks`, all scalars: the gradient along the random direction, the same from the factors, and the squared scales of
    both. They stay on the device until somebody reads them.
    """

    squared: Tensor
    checks: tuple[Tensor, Tensor, Tensor, Tensor]
    tolerance: float

    def adds_up(self) -> bool:
        """Whether the factors make up the gradient, but for rounding."""
        # One by one is faster on a CPU; elsewhere each would wait for the device.
        numbers = map(float, self.checks) if self.squared.is_cpu else torch.stack(self.checks).tolist()
        gradient, factors, gradient_scale, factors_scale = numbers
        # Contributions may cancel: rounding is a share of them, and not only of their sum.
        allowed = self.tolerance * (math.sqrt(gradient_scale) + math.sqrt(factors_scale))
        return not abs(gradient - factors) > allowed  # nor where they are not finite: then the norms show it


def combinable(parts: Sequence[Factors]) -> bool:
    """Whether the contributions of several calls can be added in factors."""
    kinds = {type(part) for part in parts}
    groups = {_groups(part) for part in parts if isinstance(part, Outer)}
    if kinds == {Rows, Outer}:
        return groups == {1}
    return len(kinds) == 1 and len(groups) <= 1


def measure(parts: Sequence[Factors], gradient: Tensor) -> Found:
    """The squared norms of what all `parts` add up to, for each example; `gradient` is that of all examples.

    The parts must be `combinable`. Half precision is widened to float32 first.
    """
    tolerance = max(TOLERANCES.get(part.dtype, TOLERANCE_HALF) for part in _tensors(parts, gradient))
    gradient = wide(gradient.detach())
    gradient = gradient.reshape(-1) if isinstance(parts[0], Vectors) else gradient
    u = _direction(len(gradient), 0, gradient.dtype, gradient.device)
    if isinstance(parts[0], Vectors):
        along = gradient
        squared, factors, scale = _vectors([part for part in parts if isinstance(part, Vectors)], u)
    else:
        v = _direction(gradient[0].numel(), 1, gradient.dtype, gradient.device)
        along = gradient.reshape(len(gradient), -1) @ v
        squared, factors, scale = _matrices(parts, u, v)
    return Found(squared, (along.dot(u), factors, along.dot(along), scale), tolerance)


def wide(tensor: Tensor) -> Tensor:
    """At least float32: squares of half precision would underflow, and sums of them stall."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


# ------------------------------------------------------------------------------------------------- by kind of factors
# Each returns the squared norms, [examples], the gradient of all examples along u (and v), and its squared scale.

_Measured = tuple[Tensor, Tensor, Tensor]


def _vectors(parts: Sequence[Vectors], u: Tensor) -> _Measured:
    values = [wide(part.values) for part in parts]
    summed = functools.reduce(torch.add, [value if value.ndim == 2 else value.sum(2) for value in values])
    squared = torch.linalg.vector_norm(summed, dim=1).square()
    if len(values) == 1 and values[0].ndim == 2:
        return squared, (summed @ u).sum(), squared.sum()
    scales = [torch.linalg.vector_norm(value).square() for value in values]
    return squared, (summed @ u).sum(), functools.reduce(torch.add, scales)


def _matrices(parts: Sequence[Factors], u: Tensor, v: Tensor) -> _Measured:
    outers = [part for part in parts if isinstance(part, Outer)]
    rows = [part for part in parts if isinstance(part, Rows)]
    found = ([_outers(outers, u, v)] if outers else []) + ([_rows(rows, u, v)] if rows else [])
    if len(found) == 1:
        return found[0]
    squared, along, scale = (functools.reduce(torch.add, same) for same in zip(*found, strict=True))
    return (squared + 2 * _cross(outers, rows)).clamp_min(0), along, scale


def _outers(parts: Sequence[Outer], u: Tensor, v: Tensor) -> _Measured:
    if len(parts) == 1 and parts[0].left.ndim == 2:
        left, right = wide(parts[0].left), wide(parts[0].right)
        terms = (left @ u) * (right @ v)
        squared = (torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)).square()
        return squared, terms.sum(), terms.dot(terms)
    examples, groups, n = len(parts[0].left), _groups(parts[0]), len(v)
    m, positions = len(u) // groups, sum(part.left[0].numel() * groups // len(u) for part in parts)
    # Multiplications for an example: positions^2 (m + n) by inner products of positions, positions m n by the sum.
    by_inner_products = positions * (m + n) < m * n
    numbers = groups * (positions * (m + n) + (2 * positions**2 if by_inner_products else m * n))
    squares: list[Tensor] = []
    along: list[Tensor] = []
    for chosen in _slices(examples, numbers, u.device):
        left, right = _left_and_right(parts, n, chosen)
        if by_inner_products:
            inner = torch.bmm(left.mT, left).mul_(torch.bmm(right.mT, right))
            squares.append(inner.flatten(1).sum(1).clamp_min(0))
            directions = u.reshape(groups, 1, m).repeat(len(left) // groups, 1, 1)
            along.append((torch.bmm(directions, left) * (v @ right).unsqueeze(1)).flatten())
        else:
            summed = torch.bmm(left, right.mT)
            squares.append(torch.linalg.vector_norm(summed.flatten(1), dim=1).square())
            along.append((summed @ v).reshape(-1, groups * m) @ u)
    terms = torch.cat(along)
    return torch.cat(squares).reshape(examples, groups).sum(1), terms.sum(), terms.dot(terms)


def _rows(parts: Sequence[Rows], u: Tensor, v: Tensor) -> _Measured:
    index, right = _index_and_right(parts, slice(None))
    terms = (u[index] * (right @ v)).flatten()
    along, scale = terms.sum(), terms.dot(terms)
    examples, positions = index.shape
    if positions == 1:
        return _squares(right), along, scale
    # Positions of an example with the same index share a slot; there are never more slots than positions.
    ordered, order = index.sort(dim=1)
    slots = torch.zeros_like(index)
    slots[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
    slots = torch.empty_like(index).scatter_(1, order, slots)
    slots += positions * torch.arange(examples, device=index.device).unsqueeze(1)
    summed = right.new_zeros(examples * positions, right.shape[2])
    summed.index_add_(0, slots.flatten(), right.flatten(0, 1))
    return _squares(summed.reshape(examples, -1)), along, scale


def _cross(outers: Sequence[Outer], rows: Sequence[Rows]) -> Tensor:
    """Inner products of what the two kinds add, [examples]: a one-hot factor picks a row of the other left factor."""
    index, _ = _index_and_right(rows, slice(None))
    n, found = rows[0].right.shape[2], []
    numbers = sum(outer.left[0].numel() for outer in outers) * (rows[0].rows + 2 * index.shape[1]) // rows[0].rows
    for chosen in _slices(len(index), numbers, index.device):
        left, right = _left_and_right(outers, n, chosen)
        index, values = _index_and_right(rows, chosen)
        picked = left.gather(1, index.unsqueeze(2).expand(-1, -1, left.shape[2]))
        found.append((picked * (values @ right)).flatten(1).sum(1))
    return torch.cat(found)


# ------------------------------------------------------------------------------------------------------------- helpers


def _left_and_right(parts: Sequence[Outer], n: int, chosen: slice) -> tuple[Tensor, Tensor]:
    """The factors of some examples, [examples x groups, features, positions]."""
    groups = _groups(parts[0])
    m = parts[0].left.shape[1 if parts[0].left.ndim == 2 else 2]
    lefts, rights = [], []
    for part in parts:
        left, right = wide(part.left[chosen]), wide(part.right[chosen])
        lefts.append(left.reshape(len(left) * groups, m, -1))
        rights.append(right.reshape(len(right) * groups, n, -1))
    return (lefts[0], rights[0]) if len(parts) == 1 else (torch.cat(lefts, 2), torch.cat(rights, 2))


def _groups(part: Outer) -> int:
    return 1 if part.left.ndim == 2 else part.left.shape[1]


def _index_and_right(parts: Sequence[Rows], chosen: slice) -> tuple[Tensor, Tensor]:
    index, right = [part.index[chosen] for part in parts], [wide(part.right[chosen]) for part in parts]
    return torch.cat(index, 1), torch.cat(right, 1)


def _squares(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.square()


def _slices(examples: int, numbers: int, device: torch.device) -> Iterator[slice]:
    limit = SLICE_NUMBERS_CPU if device.type == "cpu" else SLICE_NUMBERS_GPU
    step = max(1, limit // max(1, numbers))
    return (slice(start, start + step) for start in range(0, examples, step))


def _tensors(parts: Sequence[Factors], gradient: Tensor) -> list[Tensor]:
    found = [gradient]
    for part in parts:
        found += [part.values] if isinstance(part, Vectors) else [part.right]
        found += [part.left] if isinstance(part, Outer) else []
    return found


@functools.lru_cache(maxsize=256)
def _direction(length: int, which: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A random direction, always the same; from a generator of its own, so that no draw of a training changes."""
    return torch.randn(length, generator=torch.Generator().manual_seed(which), dtype=torch.float64).to(device, dtype)
