"""Runs of any program: its command line has places for batch size and rate, and it prints its curve as it goes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rightbatch.commands import template
from rightbatch.commands.lines import CurveReader, check_pattern
from rightbatch.commands.run import CommandRun
from rightbatch.commands.step_times import time_steps
from rightbatch.errors import InputError, WorkloadError
from rightbatch.fit.step_time import unsteady
from rightbatch.machine import processor, thread_variables
from rightbatch.raised import tell_left_out
from rightbatch.records import (
    Direction,
    Environment,
    Setting,
    Settings,
    StepTime,
    Trial,
    WorkloadFacts,
)
from rightbatch.runner import completed, suits

OF_TRIALS = ("batch_size", "learning_rate", "seed", "planned_examples", "planned_steps")
"""Placeholders that every command line may have."""

STEP_TIME_SECONDS = 10.0
"""A size is timed for so long at most, or for as long as one interval between evaluations takes."""

ROUNDS_OF_TWO_PASSES = 6
"""From so many repeats on, half of them are of a second start: of another time, after all other sizes."""

SMALL_RATE = 0.001
"""Where nobody says what they train with, step times are measured at this rate."""

SCRIPTS = frozenset({".py", ".sh", ".bash", ".jl", ".r", ".R", ".lua", ".pl", ".rb", ".js", ".ts", ".m"})


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program that trains, given by its command line.

    The program prints one JSON object a line at each evaluation: `step` (optimizer steps made) and any of `train_loss`,
    `valid_loss`, `valid_metric`, `test_metric`, `examples`, `seconds`, `batch_size`, `learning_rate`, all as in
    `rightbatch.Point`. What is left out is filled in: the metric by the loss unless `direction` is "max", seconds by
    the clock. A first line at step 0, before training, is welcome. Everything else that it prints is passed over.

    Parameters
    ----------
    argv: The program and its arguments, with placeholders in braces: {batch_size}, {learning_rate}, {seed},
        {planned_examples}, {planned_steps}, {metrics} and every setting; {{ and }} are braces themselves.
    metrics: A file to which the program appends its lines, instead of printing them. May hold placeholders, so that
        each run has its own. What the file holds before a run is passed over.
    pattern: A regular expression that is searched in each line printed, instead of JSON; its named groups are `step`
        and any of the names above.
    name: How studies and pages call it. None: the name of the script among the arguments.
    direction: Whether a better `valid_metric` is larger ("max") or smaller ("min"). None: the program prints no
        `valid_metric`, and is judged by its loss; one that does is refused at its first such line.
    train_examples, planned_examples: Examples of training data, and of a run's planned length; 0: not known.
    target, target_quantity, present: As of a `Workload`.
    settings: Named numbers or strings that a trial may change, with their defaults.
    length_bound: Whether the rate follows a schedule to the end of the planned length, as a cosine does: only the ends
        of runs count then, and runs of several lengths are made. The command line must have {planned_steps} or
        {planned_examples} in it.
    threads: How many threads numerical libraries in the program are told to use, by environment variables.
    timeout_seconds: A run that takes longer (all of it, not only training) is ended. None: it may take any time.
    grace_seconds: How long a program that is told to end (SIGTERM) may take before it is killed.

    Raises
    ------
    InputError: When the command line cannot be filled in, or the pattern not be used.
    """

    argv: tuple[str, ...]
    metrics: str | None = None
    pattern: str | None = None
    name: str | None = None
    direction: Direction | None = None
    train_examples: int = 0
    planned_examples: int = 0
    target: float | None = None
    target_quantity: Literal["valid_metric", "valid_loss"] = "valid_metric"
    present: tuple[int, float] | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    length_bound: bool = False
    threads: int | None = None
    timeout_seconds: float | None = None
    grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "argv", tuple(self.argv))
        if not self.argv:
            raise InputError("There is no command to run. Give a program and its arguments.")
        if self.direction not in (None, "min", "max"):
            raise InputError(f"direction is 'min' or 'max', got {self.direction!r}.")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < math.inf:
            raise InputError(f"A timeout is a positive number of seconds, got {self.timeout_seconds}.")
        if not 0 <= self.grace_seconds < math.inf:
            raise InputError(f"A time of grace is a number of seconds, 0 or more, got {self.grace_seconds}.")
        if self.pattern is not None:
            if self.metrics is not None:
                raise InputError("A pattern reads what is printed, metrics are read from a file. Give one of the two.")
            check_pattern(self.pattern, self.direction)
        _check_placeholders(self)

    @property
    def takes_seed(self) -> bool:
        """Whether the command line has a place for the seed."""
        return "seed" in template.placeholders(self.argv)

    def complete(self, trial: Trial) -> Trial:
        """A trial with every declared setting and, where one is known, a planned length.

        Raises `WorkloadError` for an unknown setting.
        """
        return completed(trial, self.settings, self.planned_examples, "command")

    def fill(self, trial: Trial) -> tuple[tuple[str, ...], Path | None]:
        """The command line of a complete trial, and the path of its metrics file if there is one.

        Numbers read back exactly. Raises `InputError` where a planned length is needed and the trial has none.
        """
        values: dict[str, Setting] = {
            "batch_size": trial.batch_size,
            "learning_rate": trial.learning_rate,
            "seed": trial.seed,
            **trial.settings,
        }
        if trial.planned_examples is not None and trial.planned_steps is not None:
            values |= {"planned_examples": trial.planned_examples, "planned_steps": trial.planned_steps}
        if self.metrics is not None:
            values["metrics"] = template.fill(self.metrics, values)
        argv = tuple(template.fill(argument, values) for argument in self.argv)
        return argv, Path(str(values["metrics"])) if self.metrics is not None else None


class CommandRunner:
    """Starts runs of a `Command`, each a process group of its own.

    Raises
    ------
    InputError: When there is no such program.
    """

    def __init__(self, command: Command, settings: Mapping[str, Setting] | None = None) -> None:
        self._settings = Settings(settings).other_than(command.settings)
        program = command.argv[0]
        if not template.placeholders([program]) and shutil.which(program) is None:
            raise InputError(
                f"There is no program {program!r} that can be run. Give its path, or install it where PATH leads."
            )
        self.command = command
        self._pattern = re.compile(command.pattern) if command.pattern is not None else None
        self._facts = WorkloadFacts(
            name=command.name or _script_name(command.argv),
            train_examples=command.train_examples,
            valid_examples=0,
            planned_examples=command.planned_examples,
            metric="valid_metric",
            direction=command.direction or "min",
            optimizer="unknown",
            target=command.target,
            target_quantity=command.target_quantity,
            present=command.present,
            settings=Settings(command.settings),
            source=_source_hash(command),
            length_bound=command.length_bound,
            lacks=_lacks(command),
        )
        self._environment = Environment(
            device="command",
            threads=self.command.threads or 0,
            precision="unknown",
            processor=processor(),
            python=platform.python_version(),
            torch="unknown",
            rightbatch=version("rightbatch"),
            settings=self._settings,
        )

    @property
    def facts(self) -> WorkloadFacts:
        return self._facts

    @property
    def environment(self) -> Environment:
        return self._environment

    def offers(self, trial: Trial) -> bool:
        return suits(trial, self.command.train_examples, self.command.settings)

    def start(self, trial: Trial, state: bytes | None = None) -> CommandRun:
        if state is not None:
            raise InputError("A run of a command has no state that it could go on from. Start it anew.")
        complete = self.command.complete(trial)
        if not self.offers(trial):
            raise InputError(
                f"The batch size {trial.batch_size} is larger than the {self.command.train_examples} training examples."
            )
        argv, metrics = self.command.fill(complete)
        return CommandRun(
            argv,
            CurveReader(complete, self.command.direction, self._pattern),
            pattern=self.command.pattern,
            metrics=metrics,
            variables=thread_variables(self.command.threads) if self.command.threads else {},
            timeout_seconds=self.command.timeout_seconds,
            grace_seconds=self.command.grace_seconds,
        )

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        """Run each size at a small rate, and take the intervals between its evaluations: see `step_times.Repeats`.

        Sizes take turns, in two passes with half of the repeats each where there are many: what else the machine does
        then touches all alike, and is seen. A size that does not fit into memory gets no record. Raises `WorkloadError`
        when no size gets one and one failed otherwise.
        """
        rate = self.command.present[1] / 100 if self.command.present else SMALL_RATE
        passes = (rounds - rounds // 2, rounds // 2) if rounds >= ROUNDS_OF_TWO_PASSES else (rounds,)
        found: dict[int, list[float]] = {size: [] for size in batch_sizes}
        short: dict[int, list[int]] = {size: [] for size in batch_sizes}
        failures: dict[int, str] = {}
        for number, repeats in enumerate(passes, start=1):
            for size in list(found):
                run = self.start(Trial(size, rate, 0, settings=self._settings))
                timed, failure = time_steps(run, repeats, STEP_TIME_SECONDS / len(passes))
                if timed.short:
                    short[size] += range(len(found[size]), len(found[size]) + len(timed.seconds))
                found[size] += timed.seconds
                if not timed.seconds and failure is not None:
                    failures.setdefault(size, failure)
                if not found[size]:
                    del found[size]
                    continue
                seconds, unfinished = tuple(found[size]), number < len(passes)
                flagged = tuple(sorted({*unsteady(seconds), *short[size]}))
                yield StepTime(size, seconds, (0.0,) * len(seconds), flagged, unfinished)
        if failures and not found:
            size, failure = next(iter(failures.items()))
            raise WorkloadError(
                f"No step time could be measured: it takes two evaluations of a run. At batch size {size}: {failure}"
            )
        tell_left_out({size: failure for size, failure in failures.items() if size not in found})


# ---------------------------------------------------------------------------------------------------------- checks


def _check_placeholders(command: Command) -> None:
    for name in command.settings:
        if not name.isidentifier() or name in (*OF_TRIALS, "metrics"):
            raise InputError(
                f"A setting cannot be called {name!r}: that is taken, or no plain name. Call it otherwise."
            )
    known = (*OF_TRIALS, *command.settings)
    known_to_program = known if command.metrics is None else (*known, "metrics")
    template.check(command.argv, known=known_to_program, needed=("batch_size", "learning_rate", *command.settings))
    template.check([command.metrics or ""], known=known)
    if command.length_bound and not template.placeholders(command.argv) & {"planned_steps", "planned_examples"}:
        raise InputError(
            "Where the rate follows a schedule only the ends of runs count, and runs of several lengths are made; but "
            "the command has no place for their length. Put {planned_steps} or {planned_examples} into an argument."
        )
    command.fill(command.complete(Trial(1, 0.1, 0, 1)))  # formats that do not suit are told now


# ------------------------------------------------------------------------------------------------ what is known of it


def _script_name(argv: Sequence[str]) -> str:
    scripts = [item for item in argv if Path(item).suffix in SCRIPTS and not item.startswith("-")]
    return Path(scripts[0] if scripts else argv[0]).stem


def _source_hash(command: Command) -> str:
    """A hash of the command line and of the files it names, so that a study notices when the program has changed."""
    digest = hashlib.sha256(repr((command.argv, command.pattern)).encode())
    for item in command.argv:
        # A program may be there to be run and not to be read; `isfile` keeps us from waiting for a pipe.
        with contextlib.suppress(OSError):
            if os.path.isfile(item):
                with open(item, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _lacks(command: Command) -> tuple[str, ...]:
    of_chance = "the command takes no {seed}: its runs differ by chance alone and cannot be repeated"
    return (
        "seconds of a command are those between its lines, its own evaluation included, unless it prints `seconds`; "
        "without a line at step 0, what it does before training is included too",
        "a killed run is repeated, not continued: a command has no state that can be saved",
        *(() if command.takes_seed else (of_chance,)),
        "gradient noise, memory and sharpness cannot be measured: they need the model itself (a `Workload`)",
    )
