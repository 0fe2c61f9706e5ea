"""A strategy that can say at any moment what it would train with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rightbatch.evidence import Evidence
from rightbatch.records import Interval
from rightbatch.search.strategy import Action


@dataclass(frozen=True)
class Guess:
    """The batch size and rate that a search would train with if it were stopped now.

    `seconds`: a 90 % prediction interval for the training seconds to the target of one more seed there; None where the
    search states none. `sizes`: the smallest and the largest batch size that may be the best one, with 90 %.
    """

    batch_size: int
    learning_rate: float
    seconds: Interval | None = None
    sizes: tuple[int, int] | None = None


class Searcher(Protocol):
    """A strategy with a guess. Both are pure functions of the evidence; the guess before any run is its prior's."""

    def __call__(self, evidence: Evidence) -> Action:
        """What to do next."""

    def guess(self, evidence: Evidence) -> Guess:
        """What to train with, by what is known now."""
