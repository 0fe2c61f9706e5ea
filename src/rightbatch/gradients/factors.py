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

_NOTHING = torch.zeros(())


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
    groups = {groups_of(part) for part in parts if isinstance(part, Outer)}
    if kinds == {Rows, Outer}:
        return groups == {1}
    return len(kinds) == 1 and len(groups) <= 1


def measure(parts: Sequence[Factors], gradient: Tensor) -> Found:
    """The squared norms of what all `parts` add up to, for each example; `gradient` is that of all examples.

    The parts must be `combinable`. Half precision is widened to float32 first.
    """
    tolerance = max(TOLERANCES.get(part.dtype, TOLERANCE_HALF) for part in _tensors(parts, gradient))
    gradient = wide(gradient.detach())
    gradient = gradient.reshape(-1) if isinstance(parts[0], Vectors) else gradient.reshape(len(gradient), -1)
    u = _direction(len(gradient), 0, gradient.dtype, gradient.device)
    v = _direction(gradient[0].numel(), 1, gradient.dtype, gradient.device)
    along = gradient if gradient.ndim == 1 else gradient @ v
    squared, factors, scale = _measured(parts, (u, v))
    return Found(squared, (along.dot(u), factors, along.dot(along), scale), tolerance)


def squared_norms(parts: Sequence[Factors], metric: Tensor | None = None) -> Tensor:
    """What `measure` has, unchecked: shape [1, examples].

    With a `metric`, a tensor P of the parameter's shape, [2, examples]: sum_k P_k c_k^2 in the second row.
    """
    if metric is not None:
        metric = wide(metric.detach())
        metric = metric.reshape(-1) if isinstance(parts[0], Vectors) else metric.reshape(len(metric), -1)
    squared, _, _ = _measured(parts, None, metric)
    return squared if metric is not None else squared.unsqueeze(0)


def squared(tensor: Tensor) -> Tensor:
    """The sum of the squares of all its numbers, at least float32: one pass over them and nothing in between."""
    flat = wide(tensor.detach().reshape(-1))
    return torch.dot(flat, flat)


def wide(tensor: Tensor) -> Tensor:
    """At least float32: squares of half precision would underflow, and sums of them stall."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


# ------------------------------------------------------------------------------------------------- by kind of factors
# Each returns the squared norms, [examples], the gradient of all examples along u (and v), and its squared scale.

_Measured = tuple[Tensor, Tensor, Tensor]
_Directions = tuple[Tensor, Tensor] | None


def _measured(parts: Sequence[Factors], directions: _Directions, metric: Tensor | None = None) -> _Measured:
    if isinstance(parts[0], Vectors):
        return _vectors([part for part in parts if isinstance(part, Vectors)], directions, metric)
    outers = [part for part in parts if isinstance(part, Outer)]
    rows = [part for part in parts if isinstance(part, Rows)]
    found = [_outers(outers, directions, metric)] if outers else []
    found += [_rows(rows, directions, metric)] if rows else []
    if len(found) == 1:
        return found[0]
    squared, along, scale = (functools.reduce(torch.add, same) for same in zip(*found, strict=True))
    return (squared + 2 * _cross(outers, rows, metric)).clamp_min(0), along, scale


def _vectors(parts: Sequence[Vectors], directions: _Directions, metric: Tensor | None) -> _Measured:
    values = [wide(part.values) for part in parts]
    summed = functools.reduce(torch.add, [value if value.ndim == 2 else value.sum(2) for value in values])
    squared = squares_of_examples(summed, metric)
    if directions is None:
        return squared, _NOTHING, _NOTHING
    along = (summed @ directions[0]).sum()
    if len(values) == 1 and values[0].ndim == 2:
        return squared, along, squared.sum()
    return squared, along, functools.reduce(torch.add, [torch.linalg.vector_norm(value).square() for value in values])


def _outers(parts: Sequence[Outer], directions: _Directions, metric: Tensor | None) -> _Measured:
    if len(parts) == 1 and parts[0].left.ndim == 2:
        return _outers_of_one_position(wide(parts[0].left), wide(parts[0].right), directions, metric)
    groups, examples = groups_of(parts[0]), len(parts[0].left)
    m, n = parts[0].left.shape[1 if parts[0].left.ndim == 2 else 2], features_of(parts[0])
    positions = sum(part.left[0].numel() // (m * groups) for part in parts)
    # Multiplications for an example: positions^2 (m + n) by inner products of positions, positions m n by the sum.
    by_inner_products = metric is None and positions * (m + n) < m * n
    numbers = groups * (positions * (m + n) + (2 * positions**2 if by_inner_products else m * n))
    squares: list[Tensor] = []
    along: list[Tensor] = []
    for chosen in slices(examples, numbers, parts[0].left.device):
        left, right = left_and_right(parts, n, chosen)
        if by_inner_products:
            inner = torch.bmm(left.mT, left).mul_(torch.bmm(right.mT, right))
            squares.append(inner.flatten(1).sum(1).reshape(-1, groups).sum(1).clamp_min(0))
            if directions is not None:
                u, v = directions[0].reshape(groups, 1, m).repeat(len(left) // groups, 1, 1), directions[1]
                along.append((torch.bmm(u, left) * (v @ right).unsqueeze(1)).flatten())
        else:
            summed = torch.bmm(left, right.mT)
            squares.append(squares_of_examples(summed.reshape(-1, groups * m, n), metric))
            if directions is not None:
                along.append((summed @ directions[1]).reshape(-1, groups * m) @ directions[0])
    squared = torch.cat(squares, dim=-1)
    if directions is None:
        return squared, _NOTHING, _NOTHING
    terms = torch.cat(along)
    return squared, terms.sum(), terms.dot(terms)


def _outers_of_one_position(left: Tensor, right: Tensor, directions: _Directions, metric: Tensor | None) -> _Measured:
    squared = (torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)).square()
    if metric is not None:
        squared = torch.stack([squared, ((left.square() @ metric) * right.square()).sum(1)])
    if directions is None:
        return squared, _NOTHING, _NOTHING
    terms = (left @ directions[0]) * (right @ directions[1])
    return squared, terms.sum(), terms.dot(terms)


def _rows(parts: Sequence[Rows], directions: _Directions, metric: Tensor | None) -> _Measured:
    index, right = _index_and_right(parts, slice(None))
    along = scale = _NOTHING
    if directions is not None:
        terms = (directions[0][index] * (right @ directions[1])).flatten()
        along, scale = terms.sum(), terms.dot(terms)
    examples, positions = index.shape
    if positions == 1:
        return squares_of_examples(right, None if metric is None else metric[index]), along, scale
    # Positions of an example with the same index share a slot; there are never more slots than positions.
    ordered, order = index.sort(dim=1)
    slots = torch.zeros_like(index)
    slots[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
    rows_of_slots = torch.zeros_like(index).scatter_(1, slots, ordered)
    slots = torch.empty_like(index).scatter_(1, order, slots)
    slots += positions * torch.arange(examples, device=index.device).unsqueeze(1)
    summed = right.new_zeros(examples * positions, right.shape[2])
    summed.index_add_(0, slots.flatten(), right.flatten(0, 1))
    metric_of_slots = None if metric is None else metric[rows_of_slots]
    return squares_of_examples(summed.reshape(right.shape), metric_of_slots), along, scale


def _cross(outers: Sequence[Outer], rows: Sequence[Rows], metric: Tensor | None) -> Tensor:
    """Inner products of what the two kinds add, as squares: a one-hot factor picks a row of the other left factor."""
    n, found = rows[0].right.shape[2], []
    numbers = sum(outer.left[0].numel() for outer in outers) * (rows[0].rows + 2 * rows[0].index.shape[1])
    for chosen in slices(len(rows[0].index), numbers // rows[0].rows, rows[0].index.device):
        left, right = left_and_right(outers, n, chosen)
        index, values = _index_and_right(rows, chosen)
        picked = left.gather(1, index.unsqueeze(2).expand(-1, -1, left.shape[2]))
        plain = (picked * (values @ right)).flatten(1).sum(1)
        if metric is not None:
            plain = torch.stack([plain, (picked * ((values * metric[index]) @ right)).flatten(1).sum(1)])
        found.append(plain)
    return torch.cat(found, dim=-1)


# ------------------------------------------------------------------------------------------------------------- helpers


def left_and_right(parts: Sequence[Outer], n: int, chosen: slice) -> tuple[Tensor, Tensor]:
    """The factors of some examples, [examples x groups, features, positions]."""
    groups = groups_of(parts[0])
    m = parts[0].left.shape[1 if parts[0].left.ndim == 2 else 2]
    lefts, rights = [], []
    for part in parts:
        left, right = wide(part.left[chosen]), wide(part.right[chosen])
        lefts.append(left.reshape(len(left) * groups, m, -1))
        rights.append(right.reshape(len(right) * groups, n, -1))
    return (lefts[0], rights[0]) if len(parts) == 1 else (torch.cat(lefts, 2), torch.cat(rights, 2))


def groups_of(part: Outer) -> int:
    return 1 if part.left.ndim == 2 else part.left.shape[1]


def features_of(part: Outer) -> int:
    """n: how many features the right factor has, for each group."""
    positions = 1 if part.left.ndim == 2 else part.left.shape[3]
    return part.right[0].numel() // (groups_of(part) * positions)


def _index_and_right(parts: Sequence[Rows], chosen: slice) -> tuple[Tensor, Tensor]:
    index, right = [part.index[chosen] for part in parts], [wide(part.right[chosen]) for part in parts]
    return torch.cat(index, 1), torch.cat(right, 1)


def squares_of_examples(values: Tensor, metric: Tensor | None = None) -> Tensor:
    """Squared norms for each example, [examples], or [2, examples] with those in a metric."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).square()
    if metric is None:
        return norms
    return torch.stack([norms, (values.square() * metric).flatten(1).sum(1)])


def slices(examples: int, numbers: int, device: torch.device) -> Iterator[slice]:
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
