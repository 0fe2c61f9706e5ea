"""A batch size that changes while training, planned by examples seen: the arithmetic of it, without a model.

In text, as settings and commands have it: "1024@50000" is 1024 from 50,000 examples on; "512@20000, 1024@50000*2" is
512 from 20,000 on, then 1024 at twice the rate. What comes before is the batch size of the trial, at its rate.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, zip_longest

from rightbatch.errors import InputError
from rightbatch.records import Setting, Trial

SETTING = "batch_schedule"
"""The setting of a trial that says it."""

WRITTEN = re.compile(r"(\d+)@(\d+)(?:\*((?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?))?")


@dataclass(frozen=True)
class Phase:
    """From so many examples on, batches of this size at this multiple of the trial's rate."""

    begins_examples: int
    batch_size: int
    rate_factor: float = 1.0


@dataclass(frozen=True)
class BatchSchedule:
    """Phases in the order in which they begin, the first at 0. A step belongs to the phase in which it begins.

    Raises `InputError` where they do not begin one after the other, or a size or a factor is not positive.
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        begins = [phase.begins_examples for phase in self.phases]
        if not begins or begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
            raise InputError(f"Phases begin one after the other, the first at 0 examples; got {begins}.")
        for phase in self.phases:
            if phase.batch_size < 1 or not phase.rate_factor > 0:
                raise InputError(f"A phase has a batch size of at least 1 and a positive rate factor, got {phase}.")

    @property
    def fixed(self) -> bool:
        """Whether there is one phase alone."""
        return len(self.phases) == 1

    def at(self, examples: float) -> Phase:
        """The phase of the step that begins after so many examples."""
        return next(phase for phase in reversed(self.phases) if phase.begins_examples <= examples)

    def steps_in(self, examples: int, most_steps: int) -> int:
        """How many of the next steps, at most `most_steps`, are of the same phase: at least one."""
        ends = [phase.begins_examples for phase in self.phases if phase.begins_examples > examples]
        if not ends:
            return most_steps
        return min(most_steps, -(-(ends[0] - examples) // self.at(examples).batch_size))

    def steps_near(self, marks: Sequence[float]) -> tuple[int, ...]:
        """The whole numbers of steps that come nearest to so many examples each, at least 1: increasing, each once.

        As `curves.rungs_in_steps` rounds for one batch size, also in a tie: to the even number of steps.
        """
        found: set[int] = set()
        step = examples = 0
        for mark in sorted(marks):
            # On to the last step boundary at or before the mark, phase by phase.
            while examples < mark:
                size = self.at(examples).batch_size
                within = min(int((mark - examples) // size), self.steps_in(examples, 2**62))
                if within == 0:
                    break
                step, examples = step + within, examples + within * size
            past = (mark - examples) / self.at(examples).batch_size
            found.add(max(1, step + round(past) if past != 0.5 else step + step % 2))
        return tuple(sorted(found))

    def rungs(self, marks: Iterable[float]) -> Iterator[int]:
        """As `steps_near`, one by one, of increasing marks that may have no end."""
        steps = (self.steps_near((mark,))[0] for mark in marks)
        return (step for step, _ in groupby(steps))

    def spans(self, examples: float) -> Iterator[tuple[Phase, float]]:
        """The phases of a training of so many examples, each with its examples: as planned, to the step."""
        begun = 0
        while begun < examples:
            phase = self.at(begun)
            ends = begun + self.steps_in(begun, 2**62) * phase.batch_size
            yield phase, min(ends, examples) - begun
            begun = ends

    def steps_of(self, examples: float) -> float:
        """How many steps so many examples take, in shares of a step."""
        return sum(within / phase.batch_size for phase, within in self.spans(examples))

    def examples_after(self, steps: float) -> float:
        """How many examples so many steps take, the inverse of `steps_of`; whole for a whole number of steps."""
        examples: float = 0
        for phase, within in self.spans(math.inf):
            here = min(steps, within // phase.batch_size)
            examples, steps = examples + here * phase.batch_size, steps - here
            if steps <= 0:
                break
        return examples

    def alike_until(self, other: BatchSchedule) -> float:
        """After how many examples they are to differ; infinite where they are the same."""
        pairs = zip_longest(self.phases, other.phases)
        unlike = next((pair for pair in pairs if pair[0] != pair[1]), ())
        return min((phase.begins_examples for phase in unlike if phase is not None), default=math.inf)

    def __str__(self) -> str:
        """Of all phases but the first, as `parsed` reads it."""
        return ", ".join(
            f"{phase.batch_size}@{phase.begins_examples}"
            + (f"*{_exactly(phase.rate_factor)}" if phase.rate_factor != 1 else "")
            for phase in self.phases[1:]
        )


def _exactly(factor: float) -> str:
    """In six digits where these are all."""
    return f"{factor:g}" if float(f"{factor:g}") == factor else repr(factor)


@functools.lru_cache(maxsize=256)  # every cost of every run asks for it
def parsed(first_batch_size: int, text: str) -> BatchSchedule:
    """The schedule that begins with a batch size and goes on as the text says; an empty text: it does not change.

    Raises `InputError` for what is not of this form.
    """
    phases = [Phase(0, first_batch_size)]
    for part in text.replace(" ", "").split(",") if text.strip() else ():
        found = WRITTEN.fullmatch(part)
        if found is None:
            raise InputError(
                f"A batch schedule is written as 1024@50000 (1024 from 50,000 examples on), several with commas, a "
                f"factor of the rate behind a star (1024@50000*2); got {part!r} in {text!r}."
            )
        phases.append(Phase(int(found[2]), int(found[1]), float(found[3] or 1)))
    return BatchSchedule(tuple(phases))


def schedule_of(trial: Trial) -> BatchSchedule:
    """The schedule of a trial: one phase where it has none. Raises `InputError` for a text that is none."""
    return parsed(trial.batch_size, str(trial.settings.get(SETTING, "")))


def sizes_of(first_batch_size: int, settings: Mapping[str, Setting]) -> tuple[int, ...]:
    """Every batch size of a trial with these settings."""
    schedule = parsed(first_batch_size, str(settings.get(SETTING, "")))
    return tuple(dict.fromkeys(phase.batch_size for phase in schedule.phases))
