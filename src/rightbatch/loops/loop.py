"""What a person brings: a function that trains and yields points, and what it is given."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rightbatch import curves
from rightbatch.batch_schedule import SETTING, schedule_of
from rightbatch.errors import WorkloadError
from rightbatch.loops.clock import PAUSED, Clock
from rightbatch.loops.points import whole
from rightbatch.records import Direction, Point, Setting, Settings, Trial, WorkloadFacts
from rightbatch.runner import completed

FIRST_RUNG_BATCHES = 10
"""Without a planned length, the first evaluation is after this many batches of the present size."""

USUAL_BATCH_SIZE = 32
"""Stands for the present batch size where nobody says it."""

LACKS = (
    "a killed run is repeated, not continued: the state of a generator cannot be saved",
    "waiting for data is part of the seconds of a step: from outside it cannot be told apart",
    "gradient noise, memory and sharpness cannot be measured: bring a rightbatch.Workload for these",
)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A training loop, complete but for batch size, learning rate and seed.

        def train(trial):
            model, optimizer = build(trial.seed, lr=trial.learning_rate)
            for step, batch in enumerate(loader(trial.batch_size, trial.seed), start=1):
                loss = model.loss(batch); loss.backward(); optimizer.step(); optimizer.zero_grad()
                if trial.due(step):
                    yield rightbatch.Point(step, train_loss=float(loss), valid_metric=validate(model))

    Parameters
    ----------
    train: A generator function `(trial) -> points`; `trial` is a `LoopTrial`. It trains from scratch each time it is
        called, and yields a `Point` when `trial.due(step)` says so. `valid_metric` may be left out where `valid_loss`
        is given and the direction is not "max"; what else is left at 0 is filled in. A point at step 0, before
        training, is welcome: it tells where the run started from.
    name: How studies and pages call it; None: file and function, as "my:train".
    train_examples: How many training examples there are; 0: not known.
    planned_examples: Planned length of a run in examples seen; 0: the loop ends when it likes.
    direction: Whether a better metric is larger ("max") or smaller ("min"). None: no metric but the loss is yielded.
    target: The value to be reached, of `target_quantity`.
    present: The batch size and learning rate that the person trains with now.
    settings: Named numbers or strings that a trial may change, with their defaults. With `{"batch_schedule": ""}` the
        loop says that it takes the size and the rate of every step from `trial.at(examples)`, so that `find --schedule`
        can have its batches grow; its points then tell their `examples`.
    length_bound: Whether the rate follows a schedule to the end of the planned length (`trial.planned_steps`), as a
        cosine does: only the ends of runs count then, and runs of several lengths are made.

    Raises
    ------
    WorkloadError: When a field has a value that it cannot have.
    """

    train: Callable[[LoopTrial], Iterator[Point]] = field(kw_only=False)
    name: str | None = None
    train_examples: int = 0
    planned_examples: int = 0
    direction: Direction | None = None
    target: float | None = None
    target_quantity: Literal["valid_metric", "valid_loss"] = "valid_metric"
    present: tuple[int, float] | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    length_bound: bool = False

    def __post_init__(self) -> None:
        if not callable(self.train):
            raise WorkloadError(
                f"train is a {type(self.train).__name__}, expected a generator function: `def train(trial)` with a "
                f"`yield` in it. Give the function itself, not what it returns."
            )
        for name, allowed in (("direction", (None, "min", "max")), ("target_quantity", ("valid_metric", "valid_loss"))):
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(value) for value in allowed if value)
                raise WorkloadError(f"{name} is {choices}, got {getattr(self, name)!r}.")
        for name in ("train_examples", "planned_examples"):
            if getattr(self, name) < 0:
                raise WorkloadError(
                    f"{name} is a number of examples, got {getattr(self, name)}. Leave it out (0) if unknown."
                )

    @property
    def called(self) -> str:
        """The name given, else that of the file and the function."""
        code = code_of(self.train)
        file = source_file(code)
        return self.name or (f"{file.stem}:{code.__name__}" if file else str(code.__name__))

    def complete(self, trial: Trial) -> Trial:
        """A trial with every declared setting and the planned length. Raises `WorkloadError` for an unknown setting."""
        return completed(trial, self.settings, self.planned_examples, f"loop {self.called!r}")

    @property
    def follows_schedule(self) -> bool:
        """Whether it says that it takes sizes and rates from `LoopTrial.at`."""
        return SETTING in self.settings

    def facts(self) -> WorkloadFacts:
        """What is known of the loop without running it. A batch schedule is no setting of which steps take longer."""
        return WorkloadFacts(
            name=self.called,
            train_examples=self.train_examples,
            valid_examples=0,
            planned_examples=self.planned_examples,
            metric="valid_metric",
            direction=self.direction or "min",
            optimizer="unknown",
            target=self.target,
            target_quantity=self.target_quantity,
            present=self.present,
            settings=Settings({name: value for name, value in self.settings.items() if name != SETTING}),
            source=source_hash(self.train),
            length_bound=self.length_bound,
            lacks=LACKS,
        )


class LoopTrial:
    """What a person's loop is given: what to train with, when to evaluate, and how to stop the clock meanwhile.

    `LoopTrial(Trial(batch_size, learning_rate, seed))` makes one by hand, so that a loop can be tried without a study:
    `for point in train(LoopTrial(Trial(32, 0.1, 0))): print(point)`.

    Parameters
    ----------
    trial: The training run to be made.
    first_examples: Examples seen at the first evaluation of a run without a planned length.
    ratio: How far apart evaluations are, in examples, of a run with one.

    Attributes
    ----------
    batch_size, learning_rate, seed: What to train with.
    planned_examples, planned_steps: The planned length in examples seen and in optimizer steps; None if there is none.
    settings: Every declared setting by name.
    batch_schedule: The batch sizes as they are planned to change; one phase where they do not.
    """

    def __init__(
        self,
        trial: Trial,
        *,
        first_examples: int = FIRST_RUNG_BATCHES * USUAL_BATCH_SIZE,
        ratio: float = curves.RATIO,
    ) -> None:
        self.batch_size = trial.batch_size
        self.learning_rate = trial.learning_rate
        self.seed = trial.seed
        self.planned_examples = trial.planned_examples or None
        self.settings: Mapping[str, Setting] = trial.settings
        self.batch_schedule = schedule_of(trial)
        self.clock = Clock()
        planned = self.planned_examples
        self.planned_steps = self.batch_schedule.steps_near([planned])[0] if planned else None
        marks = curves.ladder(planned, ratio=ratio) if planned else curves.open_ladder(first_examples)
        self._rungs = self.batch_schedule.rungs(marks)
        self._next = next(self._rungs)

    def at(self, examples: int) -> tuple[int, float]:
        """Batch size and learning rate of the step that begins after so many examples.

        Those of the trial, unless it has a batch schedule.
        """
        phase = self.batch_schedule.at(examples)
        return phase.batch_size, self.learning_rate * phase.rate_factor

    def due(self, step: int) -> bool:
        """Whether to evaluate and yield a point now that `step` optimizer steps were made, counted from 1.

        True once for each rung of the ladder, at the first step asked about that is at or beyond it; it may be asked
        every step or every few. When it is true, the clock stops until the point was yielded, so that the evaluation
        is not counted as training.

        Raises `WorkloadError` for a step that is not a positive whole number.
        """
        if 0 < step < self._next:  # nearly always: all that a step costs
            return False
        step = whole(step, "step that trial.due() was asked about", least=1)
        while self._next <= step:
            self._next = next(self._rungs, sys.maxsize)
        self.clock.hold(PAUSED)
        return True

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The block is not training: its seconds are not counted. For evaluation that `due` did not ask for, for
        checkpoints, for making model and data."""
        block = object()  # one of its own, so that blocks may be nested
        self.clock.hold(block)
        try:
            yield
        finally:
            self.clock.release(block)


def code_of(train: Any) -> Any:
    """What has the name and the source: the function inside a partial, a decorator; the class of a callable object."""
    while isinstance(train, functools.partial):
        train = train.func
    train = inspect.unwrap(train)
    return train if inspect.isroutine(train) or inspect.isclass(train) else type(train)


def source_file(code: Any) -> Path | None:
    """The file that a function stands in; None for one that was typed in, or compiled."""
    try:
        name = inspect.getsourcefile(code)
    except (OSError, TypeError):
        return None
    return Path(name) if name and Path(name).is_file() else None


def source_hash(train: Any) -> str:
    """A hash of the whole file, since helpers live there; of the function where there is no file; "" without either."""
    code = code_of(train)
    try:
        file = source_file(code)
        source = file.read_bytes() if file else inspect.getsource(code).encode()
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source).hexdigest()[:16]
