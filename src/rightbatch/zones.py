"""Which sizes are as good as the best, and where "very small" and "huge" begin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.cells import SizeEvidence
from rightbatch.evidence import Evidence
from rightbatch.fit.step_time import StepTimeFit
from rightbatch.question import EQUIVALENT_FACTOR
from rightbatch.records import Interval

ZONE_FACTOR = 2.0
"""Beyond twice the best cost a size is very small or huge."""

SURE = 0.9
"""Probability from which a size counts as good as the best."""

DRAWS = 20_000


@dataclass(frozen=True)
class Likelihood:
    """How sure it is that a size costs at most 1.1 times the best, with the noise of seeds and of step times."""

    batch_size: int
    as_good: float


@dataclass(frozen=True)
class ZoneEdge:
    """Where the tuned cost passes twice the best, between two measured sizes.

    `batch_size` is None where that is not seen among the sizes tried. `throughput_share`: examples per second there, as
    a share of the best measured; `critical_ratio`: that size over the critical batch size.
    """

    batch_size: float | None
    throughput_share: float | None = None
    critical_ratio: float | None = None


@dataclass(frozen=True)
class Zones:
    """Very small below the lower edge, huge above the upper one, normal between."""

    very_small_below: ZoneEdge
    huge_above: ZoneEdge


def likelihoods(evidence: Evidence) -> tuple[Likelihood, ...] | None:
    """Probability of each size that its cost is within 1.1 times the best, by simulation; None without two seeds.

    Log costs are drawn about their means: one variance for the study (its own uncertainty by chi-squared), each mean
    with the error of its seeds, of its rungs and of its median step time.
    """
    reached = [size for size in evidence.sizes if size.best is not None]
    noise = evidence.seed_noise
    if not reached or noise.deviation is None:
        return None
    generator = np.random.default_rng(0)
    deviation = noise.deviation * np.sqrt(noise.freedom / generator.chisquare(noise.freedom, size=DRAWS))
    columns = []
    for size in reached:
        assert size.cost is not None
        fixed = math.hypot(size.other_error, evidence.seconds_error(size.batch_size))
        error = np.hypot(deviation * size.leverage, fixed)
        columns.append(math.log(size.cost.estimate) + error * generator.standard_normal(DRAWS))
    costs = np.column_stack(columns)
    within = costs <= costs.min(axis=1, keepdims=True) + math.log(EQUIVALENT_FACTOR)
    return tuple(
        Likelihood(size.batch_size, float(share)) for size, share in zip(reached, within.mean(axis=0), strict=True)
    )


def find_zones(
    sizes: Sequence[SizeEvidence],
    best: SizeEvidence,
    *,
    speeds: Mapping[int, float],
    step_time: StepTimeFit | None,
    critical_batch_size: Interval | None,
) -> Zones:
    """The edges of the zones; `speeds` are measured examples per second by size, for the reasons beside each edge."""
    assert best.cost is not None
    limit = ZONE_FACTOR * best.cost.estimate
    # A size that no rate brought to the target costs more than anything: it bounds a zone without a number of its own.
    costs = [(s.batch_size, s.cost.estimate if s.cost else math.inf) for s in sizes]
    below = [pair for pair in reversed(costs) if pair[0] <= best.batch_size]
    above = [pair for pair in costs if pair[0] >= best.batch_size]

    def edge(path: list[tuple[int, float]]) -> ZoneEdge:
        size = _passes(path, limit)
        if size is None:
            return ZoneEdge(None)
        speed = size / step_time.predict(size) if step_time else None
        share = min(1.0, speed / max(speeds.values())) if speed is not None and speeds else None
        ratio = size / critical_batch_size.estimate if critical_batch_size else None
        return ZoneEdge(size, share, ratio)

    return Zones(edge(below), edge(above))


def _passes(path: Sequence[tuple[int, float]], limit: float) -> float | None:
    """The size at which cost passes the limit, going away from the best; interpolated in logs between two sizes."""
    for (near, near_cost), (far, far_cost) in itertools.pairwise(path):
        if far_cost >= limit:
            if math.isinf(far_cost):  # never reached there: the edge lies somewhere before it
                return math.sqrt(near * far)
            share = math.log(limit / near_cost) / math.log(far_cost / near_cost)
            return math.exp((1 - share) * math.log(near) + share * math.log(far))
    return None
