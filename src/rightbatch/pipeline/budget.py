"""How long a search may take: wall seconds, or multiples of one training run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rightbatch.errors import InputError
from rightbatch.fit.step_time import median_seconds
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_trial
from rightbatch.pipeline.profile import HASTY_ROUNDS, measure_step_times
from rightbatch.pipeline.setting_up import facts_as_asked
from rightbatch.runner import Runner
from rightbatch.store import Study

SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
WRITTEN = re.compile(r"(\d+\.?\d*|\.\d+)\s*(x|s|m|h|)")


@dataclass(frozen=True)
class Budget:
    """Either wall seconds or multiples of one training run; the other one is None.

    Raises `InputError` unless exactly one is given, a positive number.
    """

    wall_seconds: float | None = None
    runs: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.wall_seconds, self.runs) if value is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise InputError(
                f"A budget is a positive number of wall seconds or of training runs, one of the two; got "
                f"wall_seconds={self.wall_seconds}, runs={self.runs}."
            )

    def seconds(self, run_seconds: float | None = None) -> float:
        """Wall seconds, where one training run takes `run_seconds`. Raises `InputError` where that is needed."""
        if self.wall_seconds is not None:
            return self.wall_seconds
        assert self.runs is not None
        if run_seconds is None:
            raise InputError(f"A budget of {self.runs:g}x needs to know how long one run takes. Give it in seconds.")
        return self.runs * run_seconds


def parse_budget(text: str | float) -> Budget:
    """A budget as people write it: 90, 90s, 10m, 2h, or 3x and 0.02x for multiples of one training run.

    Raises `InputError` for anything else.
    """
    found = WRITTEN.fullmatch(str(text).strip().lower())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise InputError(
            f"A budget is a positive number of seconds (90 or 90s), minutes (10m), hours (2h) or training runs (3x, "
            f"0.02x); got {str(text)!r}."
        )
    number, unit = float(found[1]), found[2]
    return Budget(runs=number) if unit == "x" else Budget(wall_seconds=number * SECONDS[unit])


def run_seconds(study: Study, runner: Runner, ask: Ask) -> float:
    """Training seconds of one run of the present choice: its planned steps x its seconds per step.

    The seconds per step are measured now, before any other size, where the study does not have them. Evaluation is not
    in them. Raises `InputError` where no length is planned, or no step of that size can be timed.
    """
    facts = facts_as_asked(runner.facts, ask)
    trial = first_trial(facts, ask)
    size, steps = trial.batch_size, trial.planned_steps
    if steps is None:
        raise InputError(
            f"A budget in multiples of one run needs its length, and how long a run of {facts.name!r} is planned to be "
            f"is not known. Give --planned-examples, or the budget in seconds (90, 10m, 2h)."
        )
    times = measure_step_times(study, runner, [size], rounds=HASTY_ROUNDS)
    record = next((record for record in times if record.batch_size == size), None)
    if record is None:
        raise InputError(
            f"A budget in multiples of one run needs the seconds per step at the present batch size {size}, which "
            f"could not be measured. Give another --present, or the budget in seconds (90, 10m, 2h)."
        )
    return steps * median_seconds(record)
