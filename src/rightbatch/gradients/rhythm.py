"""Which steps to sample, so that sampling takes a stated share of the time of training."""

from __future__ import annotations

import math
import statistics
from collections import deque

FIRST_STEP = 5
"""Steps before this one only show how long a step takes; the very first ones take longer than those to come."""

BORROWED, APART = 6, 1.5
"""So many samples are not paid for in advance, each step of them so many times as far into the training as the last."""

REMEMBERED_PLAIN, REMEMBERED_SAMPLED = 64, 32


class Rhythm:
    """Says which steps are due, from how long plain steps and sampled ones took.

    `overhead` is the share of training time that sampling may add: 0.02 for one fiftieth; `math.inf` for every step.
    What was added so far counts, so that the share holds over all of the training and not only from sample to sample;
    a few samples near the start are borrowed, and paid back by those to come.
    """

    def __init__(self, overhead: float) -> None:
        self.overhead = overhead
        self._plain: deque[float] = deque(maxlen=REMEMBERED_PLAIN)
        self._sampled: deque[float] = deque(maxlen=REMEMBERED_SAMPLED)
        self._elapsed = self._added = 0.0
        self.extra_seconds = 0.0  # what sampling adds to one step, as far as is known
        self._last_sampled = False
        self._steps = self._samples = 0
        self._next_borrowed = FIRST_STEP

    @property
    def share(self) -> float:
        """What sampling has added so far, as a share of the time without it."""
        plain = self._elapsed - self._added
        return max(0.0, self._added) / plain if plain > 0 else 0.0

    def due(self) -> bool:
        """Whether the step that begins now is to be sampled."""
        if math.isinf(self.overhead):
            return True
        # Never twice in a row: what a plain step takes would not be known any more.
        if len(self._plain) < FIRST_STEP or self._last_sampled:
            return False
        # |G|^2 may fall by orders of magnitude in the first steps: a monitor that saved up would not see them.
        if self._samples < BORROWED and self._steps >= self._next_borrowed:
            return True
        return self._added + self.extra_seconds <= self.overhead * (self._elapsed - self._added)

    def took(self, seconds: float, *, sampled: bool) -> None:
        """Take note of how long a step took, from its beginning to that of the next."""
        self._last_sampled = sampled
        self._steps += 1
        if sampled:
            self._samples += 1
            self._next_borrowed = math.ceil(self._steps * APART)
            self._sampled.append(seconds)
            plain = statistics.median(self._plain) if self._plain else seconds
            self.extra_seconds = max(0.0, statistics.median(self._sampled) - plain)
            # Times vary, and so this may be negative. What made one step very long was not the sampling.
            self._added += min(seconds, plain + 3 * max(plain, self.extra_seconds)) - plain
        else:
            self._plain.append(seconds)
        self._elapsed += seconds
