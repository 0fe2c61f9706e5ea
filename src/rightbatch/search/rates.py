"""Which learning rate to try next at one batch size, on the lattice 10^(k/4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from rightbatch.cells import Cell
from rightbatch.lattice import index_of

SPAN = (0, 2, -2, 4, -4)
"""Five lattice points, half a decade apart, around the start; the middle first."""

WIDENINGS = 6


def next_index(
    cells: Sequence[Cell],
    start: int,
    offered: Callable[[int], bool] = lambda index: True,
    *,
    span: Sequence[int] = SPAN,
    pending: Collection[float] = (),
) -> int | None:
    """The lattice index of the next rate to try at a batch size, or None when its best rate is found.

    First the five of `SPAN` around `start`; then one more beyond while the best is at an edge, at most six times (a
    neighbour that diverged or never reached the target closes the edge); then the two points beside the best, which
    may be the nearest miss.

    `cells` are the complete cells of that size; `offered` tells which indices can be run at all. `pending` are rates
    that are being tried: None then means that what comes next depends on them.
    """
    costs = {index_of(cell.learning_rate): _merit(cell) for cell in cells}
    under_way = {index_of(rate) for rate in pending} - set(costs)
    for offset in span:
        if start + offset not in costs and start + offset not in under_way and offered(start + offset):
            return start + offset
    if not costs or under_way:
        return None
    beyond = _beyond(costs)
    outside = [index for index in costs if not start + min(span) <= index <= start + max(span)]
    if beyond is not None and len(outside) < WIDENINGS and offered(beyond):
        return beyond
    best = min(costs, key=lambda index: costs[index])
    if math.isfinite(costs[best][1]):  # also where none gets there: between two misses may lie a hit
        for index in (best - 1, best + 1):
            if index not in costs and offered(index) and min(costs) < index < max(costs):
                return index
    return None


def _merit(cell: Cell) -> tuple[float, float, bool, int]:
    """What the better of two rates is less in: cost; of those that miss the target, distance to it.

    Where even that says nothing, a rate that stays finite beats one that diverges; of those that stay finite without
    learning the higher is nearer to learning, of those that diverge the lower.
    """
    index = index_of(cell.learning_rate)
    return cell.mean, cell.shortfall, cell.diverged > 0, index if cell.diverged else -index


def _beyond(costs: Mapping[int, tuple[float, float, bool, int]]) -> int | None:
    """The point beyond the edge at which the best lies; None where it lies between others."""
    lowest, highest = min(costs), max(costs)
    best = min(costs, key=lambda index: costs[index])
    if best == lowest:
        return lowest - 2
    return highest + 2 if best == highest else None
