"""The local critical batch size from the losses of short branches of one training.

Branches of one checkpoint train on the same examples in the same order, at k times the batch size of the trunk. The
local critical batch size is the largest k B whose loss keeps up with that of k = 1, for it and all smaller k (Merrill
et al. 2025, arXiv 2505.23971, section 3). Here every loss has several seeds (orders of the data), and what is judged
are paired differences: the branches of one seed share their start and their data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.errors import InputError
from rightbatch.fit.quantiles import t_interval
from rightbatch.records import Interval

RULES: Mapping[str, Callable[[float], float]] = {"linear": lambda k: k, "sqrt": math.sqrt, "constant": lambda k: 1.0}
"""By how much each rule multiplies the rate when the batch grows by k. A rule more is a function more."""

BEST = "best"
"""What the answer by the best rule at each size is called; no rule may be."""

TOLERANCE = 0.01
"""Share of the loss that a branch may be worse by. Merrill et al.: 0.01 nats, at losses of about 2.6."""

LEVEL = 0.9

OWN_RATE = 1.0
"""The trunk's own rate, as a factor."""


def base_rate(rule: str, factor: int) -> float:
    """The rate at the trunk's batch size that weighs an example as the rule does at `factor` times that size.

    A factor of the trunk's rate. Any rule but the linear one gives an example less weight, which also averages noise
    away, as a falling rate would. Against the trunk's own rate a larger batch could win by that alone.
    """
    return round(RULES[rule](factor) / factor, 12)  # rounded: what is the same for two sizes is trained once


@dataclass(frozen=True)
class LocalCriticalSize:
    """The largest batch size that keeps up, by one rule for the rate, in examples.

    size: From the largest size that surely keeps up with all smaller ones to the smallest that surely does not. The
        upper bound is infinite where none surely fails, the estimate where the mean of none does. The lower bound is at
        least the batch size of the trunk, with which all are compared: of smaller sizes nothing is known.
    largest_tried: The largest batch size of a branch by this rule.
    gain: By how much the best branches that it is compared with lower the loss, in the mean.
    telling: Whether that is more than the tolerance. If not, a branch that stands still keeps up too.
    """

    rule: str
    size: Interval
    largest_tried: int
    gain: float
    telling: bool


@dataclass(frozen=True)
class Fork:
    """One checkpoint of the trunk, the losses of the branches that begin there, and what they say.

    loss: On the validation set, at the checkpoint itself. `learning_rate` is the one in force there.
    base_losses: Of the branches with the trunk's own batch size, by factor of its rate (`base_rate`); one a seed.
    losses: Of the other branches, by rule, then by factor; one a seed.
    tolerance: By how much the loss of a branch may be worse.
    sizes: By each rule, against the trunk's own rate. Then by the best rule at each size, against the best of the
        trunk's own rate and those with the same weight of an example as the rules: tuned alike on both sides.
    """

    step: int
    learning_rate: float
    loss: float
    base_losses: Mapping[float, tuple[float, ...]]
    losses: Mapping[str, Mapping[int, tuple[float, ...]]]
    tolerance: float
    sizes: tuple[LocalCriticalSize, ...]

    @property
    def best(self) -> LocalCriticalSize:
        """By the best rule at each size."""
        return self.sizes[-1]

    @property
    def rate_too_high(self) -> bool:
        """Whether branches of the trunk's own size are surely better, beyond the tolerance, at a lower rate."""
        own = self.base_losses[OWN_RATE]
        lower = (losses for rate, losses in self.base_losses.items() if rate < OWN_RATE)
        return any(surely_fails(one, own, self.tolerance) for one in lower if np.all(np.isfinite(one)))


def tolerance_of(base: Sequence[float], tolerance: float | None = None) -> float:
    """The tolerance in units of the loss: as given, else 1 % of the mean loss of the base branches.

    Raises `InputError` where that is no positive number.
    """
    found = TOLERANCE * float(np.mean(base)) if tolerance is None else tolerance
    if not 0 < found < math.inf:
        origin = f" (1 % of the mean loss {np.mean(base):g})" if tolerance is None else ""
        raise InputError(
            f"A tolerance is a positive difference of losses, got {found:g}{origin}. Give one, for instance "
            f"--tolerance 0.01."
        )
    return found


def difference(base: Sequence[float], losses: Sequence[float]) -> Interval:
    """By how much the mean loss of branches exceeds that of the base branches of the same seeds: the paired t interval.

    Infinite, without doubt, where one of the branches diverged. Raises `InputError` for fewer than two seeds.
    """
    if not len(base) == len(losses) >= 2:
        raise InputError(
            f"Branches are compared seed by seed, for at least 2 seeds; got {len(base)} losses of the trunk's own "
            f"batch size and {len(losses)} of the other one."
        )
    if not np.all(np.isfinite(losses)):
        return Interval(math.inf, math.inf, math.inf, LEVEL)
    paired = np.asarray(losses, float) - np.asarray(base, float)
    error = float(paired.std(ddof=1)) / math.sqrt(len(paired))
    return t_interval(float(paired.mean()), error, len(paired) - 1, LEVEL)


def surely_fails(base: Sequence[float], losses: Sequence[float], tolerance: float) -> bool:
    """Whether branches are worse than the base ones by more than the tolerance, beyond what seeds explain."""
    low = difference(base, losses).low
    return low is not None and low > tolerance


def local_critical_size(
    rule: str, batch_size: int, differences: Mapping[int, Interval], tolerance: float, gain: float
) -> LocalCriticalSize:
    """The largest k B whose loss keeps up, with its interval; `batch_size` is B, `differences` are by k.

    A size keeps up if the difference of its loss is at most the tolerance, for it and all smaller sizes. The estimate
    is where the mean difference, interpolated in log k from 0 at k = 1, crosses the tolerance.
    """
    found = {1: Interval(0.0, 0.0, 0.0, LEVEL), **dict(sorted(differences.items()))}
    estimate = math.inf
    for (before, last), (factor, now) in itertools.pairwise(found.items()):
        if now.estimate > tolerance:
            share = (tolerance - last.estimate) / (now.estimate - last.estimate)
            estimate = before * (factor / before) ** share
            break
    kept = itertools.takewhile(lambda k: (found[k].high or 0.0) <= tolerance, found)
    failed = (k for k, one in found.items() if (one.low or 0.0) > tolerance)
    size = Interval(batch_size * estimate, batch_size * max(kept), batch_size * next(failed, math.inf), LEVEL)
    return LocalCriticalSize(rule, size, batch_size * max(found), gain, gain > tolerance)


def best_of(cells: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The losses of one batch size by the best of several rates, one number a seed; `cells` are `[rates][seeds]`.

    For each seed the rate is the one with the lowest mean over the *other* seeds: the lowest of three noisy means would
    look better than any of the three is. A rate at which a branch diverged is chosen only where one did at each.
    """
    losses = np.asarray(cells, float)
    whole = np.isfinite(losses).all(axis=1)
    losses = losses[whole] if whole.any() else losses
    others = [np.delete(losses, seed, axis=1).mean(axis=1).argmin() for seed in range(losses.shape[1])]
    return tuple(float(losses[rate, seed]) for seed, rate in enumerate(others))


def fork_of(
    *,
    step: int,
    learning_rate: float,
    loss: float,
    batch_size: int,
    base: Mapping[float, tuple[float, ...]],
    losses: Mapping[str, Mapping[int, tuple[float, ...]]],
    tolerance: float | None,
) -> Fork:
    """What the branches of one checkpoint say.

    `base` are the losses at the trunk's own batch size by `base_rate`, `losses` those at larger ones by rule and
    factor. `tolerance` is in units of the loss; None: 1 % of the loss of the branches at the trunk's own size and rate.
    """
    own = base[OWN_RATE]
    allowed = tolerance_of(own, tolerance)
    sizes = []
    for rule, of_rule in losses.items():
        differences = {factor: difference(own, cell) for factor, cell in of_rule.items()}
        sizes.append(local_critical_size(rule, batch_size, differences, allowed, loss - float(np.mean(own))))
    tuned = {}
    for factor in sorted({factor for of_rule in losses.values() for factor in of_rule}):
        rates = dict.fromkeys((OWN_RATE, *(base_rate(rule, factor) for rule in losses)))
        tried = [of_rule[factor] for of_rule in losses.values() if factor in of_rule]
        tuned[factor] = difference(best_of([base[rate] for rate in rates]), best_of(tried))
    lowest = min(float(np.mean(cell)) for cell in base.values())
    sizes.append(local_critical_size(BEST, batch_size, tuned, allowed, loss - lowest))
    return Fork(step, learning_rate, loss, base, losses, allowed, tuple(sizes))
