"""Controllers that follow the gradients: the noise scale, goodput, the norm and the inner-product test, CABS.

All use the unbiased |G|^2, from which the noise of the batch itself is taken off. With the squared norm of the batch's
gradient in its place, as the practical norm test has it, the size at which the test is content is
noise scale (1 - theta^2) / theta^2: for a theta of 1 or more it never grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rightbatch.controllers.averages import MEMORY_EXAMPLES, NOTHING, means, noise_scale, with_seen
from rightbatch.controllers.contract import Choice, Limits, Need, Seen, State

GRADIENTS: frozenset[Need] = frozenset({"gradients"})


@dataclass(frozen=True)
class NoiseFollowing:
    """A multiple of the simple noise scale tr(Sigma) / |G|^2 (McCandlish et al. 2018, arXiv 1812.06162, section 2.2).

    The rate follows equation 2.6, eps(B) = eps_max / (1 + noise scale / B), from the first one on.
    """

    ratio: float = 1.0
    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=GRADIENTS, init=False)

    def begin(self) -> State:
        return NOTHING

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = with_seen(state, seen, self.memory_examples)
        noise = noise_scale(state)
        size = self.limits.within(self.ratio * noise, seen.batch_size)
        return Choice(size, gain(size, seen.first_batch_size, noise)), state


@dataclass(frozen=True)
class Goodput:
    """The most progress per second: examples per second times what an example is worth (Qiao et al. 2021, Pollux).

    B / (alpha + beta B) examples per second, each worth (noise scale + B_0) / (noise scale + B): the most is at
    sqrt(alpha noise scale / beta). The rate is multiplied by the gain (AdaScale SGD, Johnson et al. 2020).
    """

    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=frozenset({"gradients", "seconds"}), init=False)

    def begin(self) -> State:
        return NOTHING

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = with_seen(state, seen, self.memory_examples)
        noise = noise_scale(state)
        size = self.limits.within(fastest(noise, seen), seen.batch_size)
        return Choice(size, gain(size, seen.first_batch_size, noise)), state


@dataclass(frozen=True)
class NormTest:
    """Grows until the noise of a batch is below a share of its gradient: tr(Sigma) / B <= theta^2 |G|^2.

    Byrd et al. 2012, equation 3.9, with the unbiased |G|^2: the smallest size that passes is the noise scale over
    theta^2. It never shrinks, and leaves the rate alone.
    """

    theta: float = 1.0
    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=GRADIENTS, init=False)

    def begin(self) -> State:
        return NOTHING

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = with_seen(state, seen, self.memory_examples)
        return Choice(grown(self.limits, [noise_scale(state) / self.theta**2], seen)), state


@dataclass(frozen=True)
class InnerProductTest:
    """Grows until a batch's gradient is sure to point downhill: var <g_i, G> / B <= theta^2 |G|^4.

    Bollapragada, Byrd and Nocedal 2018 (arXiv 1710.11258), equation 2.6, with unbiased G^T Sigma G and |G|^4 in place
    of sample values of the batch: it is the norm test of the noise along the gradient alone. With `nu` their
    orthogonality test (3.3) of the noise across it is passed too: (tr(Sigma) - G^T Sigma G / |G|^2) / B <= nu^2 |G|^2.
    It never shrinks, and leaves the rate alone.
    """

    theta: float = 0.9
    nu: float | None = None
    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=frozenset({"gradients", "inner products"}), init=False)

    def begin(self) -> State:
        return {"plain": NOTHING, "along": NOTHING}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = {metric: with_seen(state[metric], seen, self.memory_examples, metric) for metric in state}
        passes = [noise_scale(state["along"]) / self.theta**2]
        if self.nu is not None:
            passes.append(across(state) / self.nu**2)
        return Choice(grown(self.limits, passes, seen)), state


@dataclass(frozen=True)
class CABS:
    """Rate times tr(Sigma) over the loss (Balles et al. 2017, arXiv 1612.05086, equation 22), for plain SGD.

    The least loss is taken to be 0. The published tr(Sigma) divides by B in place of B - 1.
    """

    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=frozenset({"gradients", "loss"}), init=False)

    def begin(self) -> State:
        return {**NOTHING, "loss": None}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = with_seen(state, seen, self.memory_examples)
        if seen.loss is not None:
            state = {**state, "loss": seen.loss}
        found, loss = means(state), state["loss"]
        wanted = (
            seen.learning_rate * found[1] / loss if found is not None and loss is not None and loss > 0 else math.nan
        )
        return Choice(self.limits.within(wanted, seen.batch_size)), state


def fastest(noise: float, seen: Seen) -> float:
    """Where progress per second is most: sqrt(alpha noise scale / beta). NaN where either is not known."""
    alpha, beta = seen.alpha_seconds, seen.beta_seconds
    return math.sqrt(alpha * noise / beta) if alpha is not None and beta else math.nan


def grown(limits: Limits, passes: Sequence[float], seen: Seen) -> int:
    """The smallest size that is not below any of these; NaN asks for nothing."""
    asked = [math.ceil(min(size, 2**53)) for size in passes if not math.isnan(size)]
    return limits.within(max([seen.batch_size, *asked]), seen.batch_size)


def across(state: State) -> float:
    """(tr(Sigma) - G^T Sigma G / |G|^2) / |G|^2, of what is at right angles to the gradient; NaN as `noise_scale`."""
    plain, along = means(state["plain"]), means(state["along"])
    if plain is None or along is None:
        return math.nan
    (gradient, trace), (_, variance) = plain, along
    return max(0.0, trace - variance / gradient) / gradient if gradient > 0 else math.inf


def gain(size: int, first: int, noise: float) -> float:
    """How many steps of the first size one step of another is worth: (1 + noise / B_0) / (1 + noise / B).

    1 while the noise scale is not known, B / B_0 where it is infinite.
    """
    if math.isnan(noise):
        return 1.0
    return size / first if math.isinf(noise) else (1 + noise / first) / (1 + noise / size)
