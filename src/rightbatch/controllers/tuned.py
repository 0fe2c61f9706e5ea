"""The controller of `rightbatch.train`: the most progress per second from a first choice that was tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rightbatch.controllers.averages import MEMORY_EXAMPLES, NOTHING, noise_scale, with_seen
from rightbatch.controllers.by_noise import fastest
from rightbatch.controllers.contract import Choice, Limits, Need, Seen, State
from rightbatch.fit.noise import CRITICAL_OVER_NOISE_BEFORE


@dataclass(frozen=True)
class TunedGoodput:
    """Goodput, with a rate for the noise of the moment, where the first rate is that for the noise of all so far.

    As in `Goodput` the batch size is sqrt(alpha noise scale / beta). The best rate of a step is eps_max / (1 + noise
    scale / B) (McCandlish et al. 2018, equation 2.6). A rate that was tuned for whole trainings with batches of B_0 is
    best for what noise these meet in the mean, so that eps_max is the first rate times the geometric mean of
    1 + noise scale / B_0 over all examples so far. As the noise grows, the rate falls, as under a schedule.

    `ratio`: The noise scale is taken that many times, as batches before a target save steps up to a multiple of it.
    `caution`: Standard errors by which |G|^2 is taken to be larger than it was seen. A few samples tell little, and
    what seems to be no gradient would send the batch to its limit.
    """

    ratio: float = CRITICAL_OVER_NOISE_BEFORE[0]
    caution: float = 1.0
    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=frozenset({"gradients", "seconds"}), init=False)

    def begin(self) -> State:
        return {**NOTHING, "log_sum": 0.0, "log_examples": 0, "asked": 0, "rate_factor": 1.0}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        since = seen.examples - state["asked"]
        state = {**with_seen(state, seen, self.memory_examples), "asked": seen.examples}
        noise, first = self.ratio * noise_scale(state, self.caution), seen.first_batch_size
        wanted = fastest(noise, seen)
        if not math.isfinite(wanted):
            return Choice(self.limits.within(math.nan, seen.batch_size), state["rate_factor"]), state
        size = self.limits.within(wanted, seen.batch_size)
        log_sum, log_examples = state["log_sum"] + since * math.log1p(noise / first), state["log_examples"] + since
        mean = math.exp(log_sum / log_examples) if log_examples else 1 + noise / first
        factor = mean / (1 + noise / size)
        told = {"log_sum": log_sum, "log_examples": log_examples, "rate_factor": factor}
        return Choice(size, factor), {**state, **told}
