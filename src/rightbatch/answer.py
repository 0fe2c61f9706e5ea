"""The records of an answer: what `recommend` gives, a study keeps as a snapshot, and `report` shows."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from rightbatch.fit.learning_rate import RateLawFit
from rightbatch.fit.step_time import StepTimeFit
from rightbatch.fit.tradeoff import TradeoffFit
from rightbatch.growth import Growth
from rightbatch.question import Objective
from rightbatch.records import Interval, Target
from rightbatch.zones import Zones


class Caution(enum.Enum):
    """What a reader must know before trusting the answer. The value says it; `{}` takes what was seen."""

    BEST_AT_EDGE = "the best rate at batch size {} is at the edge of the rates tried: it may not be the best"
    SIZE_AT_EDGE = "the best batch size is the {} one tried: a better one may lie beyond"
    OUT_OF_BUDGET = "the budget ended before the search did: the same command with a larger one goes on"
    NOT_REACHED_YET = (
        "batch size {} at rate {} is expected to cost {} % less, but has not been trained to the target: more budget "
        "would tell"
    )
    SEEDS_ASSUMED = "nothing was trained to the target with two seeds: that they differ by {} % is an assumption"
    ONE_SEED = "one seed everywhere: no interval, and differences may be luck"
    NOT_TIMED = "not tried: no step could be timed at batch size {}, where it failed or there was no time"
    MISSES = "no rate brought batch size {} to the target in the length that runs were planned for"
    PARTLY = "batch size {} has no cost: at no rate did all of its seeds reach the target, at {} {} of {} did"
    NOT_EXPECTED = "batch size {} is not expected to reach the target in the length that runs are planned for"
    GIVEN_UP = (
        "batch size {} was given up, at every rate, when it had cost several times the best: how bad is not known"
    )
    CUT_SHORT = (
        "batch size {} may be better than it looks: at rate {}, {} seeds got to the target for clearly less, and the "
        "others ended at their planned length. Longer runs (--epochs) would tell"
    )
    LEFT_OUT = (
        "runs at batch size {} ended at the target, before {}: they are left out, and their rates may be the best"
    )
    RATE_IGNORED = (
        "runs at different rates went the same way to the last digit: the learning rate of the trial is not used, and "
        "the rate that is named here means nothing"
    )
    SEED_IGNORED = (
        "runs with different seeds went the same way to the last digit: the seed of the trial is not used, and "
        "intervals know nothing of luck"
    )
    DIRECTION = (
        "the metric has the direction {!r}, and got worse by it in {} of {} runs while the loss fell. If it should be "
        "{!r}, what is said by it here is upside down"
    )
    TARGET_MOVES = "the best batch size depends on the target: {}"
    OPTIMISTIC = "quality is that of the validation data that choices were made on: optimistic"
    EARLY = (
        "at the choice, the target is reached by the first evaluation: how soon is not known. Give a harder target, or "
        "evaluate earlier"
    )
    EXAMPLES_UNKNOWN = (
        "how many training examples there are was not said (--train-examples): a batch larger than them goes unnoticed"
    )
    MIXED_CODE = "runs of {} versions of the training code are mixed in this study"
    LENGTH_BOUND = (
        "the rate changes along a run, so only the ends of runs count: plan the schedule for the length that is named "
        "here, which is known to a factor of 1.5"
    )
    UNSTEADY = "step times of batch size {} were unsteady: profile again on a quiet machine"
    FRESH_MISSED = (
        "the chosen run, made once more with a fresh seed, missed the target, as {} of the {} runs there did in all: "
        "the cost is that of those that reach it"
    )
    FRESH_SLOW = "the chosen run, made once more with a fresh seed, cost {}x what it did before"
    NOT_CHECKED = "the choice was not made once more with a fresh seed, as what seemed best before it was"


@dataclass(frozen=True)
class SizeRow:
    """One batch size in an answer: the cost of its best rate in every objective, with the mean over its seeds.

    With no seeds and a cost, the cost is predicted by a search of few runs, not measured.
    """

    batch_size: int
    learning_rate: float | None
    best_rate: Interval | None
    cost: Interval | None
    seconds: float | None
    examples: float | None
    steps: float | None
    step_seconds: float | None
    quality: Interval | None
    as_good: float | None
    at_edge: bool
    seeds: int


@dataclass(frozen=True)
class TargetRow:
    """The answer at an easier target."""

    target: float
    share_of_gain: float
    batch_size: int
    learning_rate: float
    cost: float


@dataclass(frozen=True)
class PresentChoice:
    """What the person trains with now, and its cost over the best (None: it did not reach the target).

    `predicted`: it was not trained to the target; what it costs over the best is what the search believes.
    """

    batch_size: int
    learning_rate: float
    cost: float | None
    times_the_best: float | None
    predicted: bool = False


@dataclass(frozen=True)
class Recommendation:
    """The answer to "which batch size, at which rate", with everything that it rests on."""

    workload: str
    objective: Objective
    target: Target
    protocol: str
    batch_size: int
    learning_rate: float
    best_rate: Interval
    cost: Interval
    seconds: float | None
    examples: float
    steps: float
    as_good: tuple[int, ...]
    not_excluded: tuple[int, ...]
    fresh_costs: tuple[float | None, ...]
    zones: Zones
    present: PresentChoice | None
    sizes: tuple[SizeRow, ...]
    targets: tuple[TargetRow, ...]
    step_time: StepTimeFit | None
    tradeoff: TradeoffFit | None
    rate_law: RateLawFit | None
    seed_deviation: float | None
    seed_freedom: int
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    spent_seconds: Mapping[str, float]
    model: str | None = None
    growth: Growth | None = None
