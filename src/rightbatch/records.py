"""The nouns: small frozen records that cross from one room to another.

Units are in the names. A record never holds a fit, a crossing or a verdict of a run: those are computed from curves.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rightbatch.errors import InputError

Direction = Literal["min", "max"]
Quantity = Literal["valid_metric", "valid_loss", "train_loss"]
Setting = float | int | str


class Settings(Mapping[str, Setting]):
    """Named numbers or strings of a trial: an immutable, hashable mapping, ordered by name."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Setting] | None = None) -> None:
        self._items = dict(sorted((items or {}).items()))

    def __getitem__(self, name: str) -> Setting:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def other_than(self, declared: Mapping[str, Setting]) -> Settings:
        """Those that are declared with another value."""
        return Settings({name: value for name, value in self._items.items() if declared.get(name, value) != value})

    def __repr__(self) -> str:
        return f"Settings({self._items!r})"


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty, the only type for it.

    `low` and `high` are None where there is no interval; `note` then says why. An infinite bound means that the data
    do not bound the quantity on that side.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    note: str = ""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise InputError(f"An interval has both bounds or none, got low={self.low}, high={self.high}.")

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return self.low is not None

    def __contains__(self, value: float) -> bool:
        return self.low is not None and self.high is not None and self.low <= value <= self.high


class StopReason(enum.Enum):
    """Why a run ended. The value is the sentence that people read; the name is what is stored."""

    FINISHED = "ran to its planned length"
    STOPPED_BY_RULE = "stopped by a rule before its planned length"
    DIVERGED = "diverged: the loss is not finite or grew tenfold"
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_BUDGET = "the budget ended before the run did"
    INTERRUPTED = "interrupted before it ended"
    FAILED = "failed with an error"


@dataclass(frozen=True)
class Trial:
    """One training run to be made. `planned_examples` is its planned length in examples seen."""

    batch_size: int
    learning_rate: float
    seed: int
    planned_examples: int | None = None
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"A batch size is at least 1, got {self.batch_size}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"A learning rate is a positive number, got {self.learning_rate}.")
        if not isinstance(self.settings, Settings):
            object.__setattr__(self, "settings", Settings(self.settings))

    @property
    def planned_steps(self) -> int | None:
        """The planned length in optimizer steps, at least one; None where no length is planned."""
        return None if self.planned_examples is None else max(1, round(self.planned_examples / self.batch_size))


@dataclass(frozen=True)
class Point:
    """One evaluation of a run. `seconds` counts training only: no evaluation, checkpoints or warm-up.

    `batch_size` and `learning_rate` are those in force at this point, `examples` those seen so far. `train_loss` is the
    mean over the steps since the point before. A loop of one's own that yields points may leave `examples`, `seconds`,
    `batch_size` and `learning_rate` at 0: they are then filled in from the trial and the clock.
    """

    step: int
    examples: int = 0
    seconds: float = 0.0
    train_loss: float | None = None
    valid_loss: float | None = None
    valid_metric: float | None = None
    batch_size: int = 0
    learning_rate: float = 0.0
    test_metric: float | None = None


@dataclass(frozen=True)
class Stop:
    """The end of a run as its runner tells it."""

    reason: StopReason
    message: str = ""


@dataclass(frozen=True)
class Run:
    """What is stored of a run: its curve and why it stopped (None: still running)."""

    trial: Trial
    points: tuple[Point, ...]
    stop: Stop | None = None
    wall_seconds: float = 0.0
    identifier: int = 0


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step at one batch size, every repeat kept; `wait_seconds` of them waiting for data.

    `unsteady` lists the repeats (by position) that stand out from the others (modified z-score above 3.5, Iglewicz and
    Hoaglin 1993). They are flagged, never dropped: the median does not need it. `unfinished`: more were to come.
    """

    batch_size: int
    seconds: tuple[float, ...]
    wait_seconds: tuple[float, ...]
    unsteady: tuple[int, ...] = ()
    unfinished: bool = False


@dataclass(frozen=True)
class GradientSample:
    """Squared norms at one optimizer step, from which the gradient noise is estimated.

    The batch of `batch_size` examples has parts (its examples, or micro-batches) with shares p_i of its loss. Its
    gradient g is the sum of their contributions c_i: `batch_squared` is |g|^2, `parts_squared` the sum of |c_i|^2,
    `shares_squared` the sum of p_i^2 (1 / B for B examples that count alike).

    `metric`: What |v|^2 stands for. "plain": the sum of squares. "preconditioned": v^T P v, P being what the optimizer
    multiplies the gradient by. "curvature": v^T H v, H being the Hessian of the loss. "along": (v^T G)^2, what lies
    along the gradient.
    """

    step: int
    batch_size: int
    learning_rate: float
    batch_squared: float
    parts_squared: float
    shares_squared: float
    metric: str = "plain"


@dataclass(frozen=True)
class MemoryParts:
    """What can be counted of the memory of a training, in bytes.

    `model_bytes` (parameters and buffers), `gradient_bytes` and `optimizer_bytes` are the same at every batch size.
    The others are per example, of what a forward pass keeps for the backward pass: all of it, what it would keep under
    bfloat16 autocast, and what it would keep if every block of the model were recomputed (activation checkpointing).
    None where the model did not let itself be looked at. `normalising` names the modules that normalise over a batch.
    `difference` is what these make of accumulation: by how much the gradient of half a pass differs, relative to its
    norm, from that of the same examples in as many parts as the batch has passes; None without such modules.
    """

    model_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    kept_bytes: float | None = None
    kept_in_bfloat16_bytes: float | None = None
    kept_with_checkpoints_bytes: float | None = None
    normalising: tuple[str, ...] = ()
    difference: float | None = None


@dataclass(frozen=True)
class MemoryProbe:
    """Training steps and an evaluation that were made, in a process of their own, to see what memory they take.

    micro_batch_size: Examples of one pass, forward and backward, at most.
    batch_size: Examples of one update of the weights: more of them are accumulated.
    limit_bytes: What it could have; it was ended when it took more.
    before_bytes: What was held before the model was made: the program, its libraries, the data.
    training_bytes: The most that was held in training; None of one that was ended.
    peak_bytes: The most that was held, evaluation and all.
    why: Of one that did not fit, what happened.
    """

    micro_batch_size: int
    batch_size: int
    limit_bytes: int
    before_bytes: int
    training_bytes: int | None
    peak_bytes: int | None
    seconds: float
    why: str = ""
    parts: MemoryParts | None = None

    @property
    def accumulation_steps(self) -> int:
        """Passes for one update of the weights."""
        return -(-self.batch_size // self.micro_batch_size)

    @property
    def fits(self) -> bool:
        """Whether it ran to its end within its limit."""
        return self.peak_bytes is not None and self.peak_bytes <= self.limit_bytes


@dataclass(frozen=True)
class Environment:
    """Where seconds were measured. Seconds of two environments are never mixed in a fit.

    `micro_batch_size`: Larger batches are accumulated from parts of at most so many examples; None: none are.
    `settings`: Those that were asked for and are not as declared, for a step may take longer with them; None: all are.
    """

    device: str
    threads: int
    precision: str
    processor: str
    python: str
    torch: str
    rightbatch: str
    micro_batch_size: int | None = None
    settings: Settings | None = None

    def __post_init__(self) -> None:
        if self.settings is not None:
            object.__setattr__(self, "settings", Settings(self.settings) if self.settings else None)


@dataclass(frozen=True)
class Target:
    """A value of one curve to be reached, and where it came from.

    `rule` says when it counts as reached: "confirmed" at the first of two consecutive evaluations at or beyond it, so
    that one lucky evaluation does not count; "first_touch" at the first.
    """

    value: float
    quantity: Quantity
    direction: Direction
    origin: str = "given"
    rule: Literal["confirmed", "first_touch"] = "confirmed"

    def reached_by(self, value: float | None) -> bool:
        """Whether a value is at or beyond the target."""
        if value is None or not math.isfinite(value):
            return False
        return value >= self.value if self.direction == "max" else value <= self.value


@dataclass(frozen=True)
class WorkloadFacts:
    """What is known of a workload without training it; stored once in each study.

    `train_examples` and `planned_examples` are 0 where they are not known: a loop or a command that ends when it likes.
    `length_bound`: its rate changes after warm-up, so that only the ends of runs count. `lacks` says in sentences what
    cannot be had of such a workload. `earlier_sources` are those of the code before it was changed, where a person
    chose to go on nevertheless. `given` is how the workload was named on the command line: one word, or options, `--`
    and the words of a program; none of an object of Python.
    """

    name: str
    train_examples: int
    valid_examples: int
    planned_examples: int
    metric: str
    direction: Direction
    optimizer: str
    target: float | None = None
    target_quantity: Literal["valid_metric", "valid_loss"] = "valid_metric"
    present: tuple[int, float] | None = None
    settings: Settings = field(default_factory=Settings)
    source: str = ""
    length_bound: bool = False
    lacks: tuple[str, ...] = ()
    earlier_sources: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_present(self.present)

    def quantity_direction(self, quantity: str) -> Direction:
        """Losses go down; the metric goes where the workload says."""
        return self.direction if quantity == "valid_metric" else "min"


def check_present(present: Any) -> None:
    """Raise `InputError` for what is not what a person trains with now: a batch size and a learning rate, or None."""
    if present is None:
        return
    try:
        size, rate = present
        sound = size >= 1 and size == int(size) and math.isfinite(rate) and rate > 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"The present choice is a batch size of at least 1 and a positive learning rate, as 32, 0.1; got {present}."
        )


def to_json(record: Any) -> Any:
    """A record as plain JSON values: names of enumerations, None for what is not finite."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, enum.Enum):
        return record.name.lower()
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record
