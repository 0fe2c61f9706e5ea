"""What a person asks of a study, and what they asked of it before."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rightbatch.errors import InputError
from rightbatch.records import Direction, Setting, Target, check_present, to_json
from rightbatch.store import Study

COMPARED_AT = ("at_seconds", "at_examples")
LENGTHS = ("planned_examples", "epochs")


@dataclass(frozen=True)
class Ask:
    """What a person may say about the question beyond the workload; None leaves it to the workload or the study.

    `objective`: None is "time". `direction`, `train_examples` and `length_bound` are for a loop or a command, which
    does not say them itself.

    Raises `InputError` for a present choice that is none, and for a target or a cost that is no finite number.
    """

    objective: str | None = None
    target: float | None = None
    target_on: str | None = None
    first_touch: bool | None = None
    at_seconds: float | None = None
    at_examples: float | None = None
    present: tuple[int, float] | None = None
    planned_examples: int | None = None
    epochs: float | None = None
    settings: Mapping[str, Setting] | None = None
    direction: Direction | None = None
    train_examples: int | None = None
    length_bound: bool | None = None

    def __post_init__(self) -> None:
        check_present(self.present)
        for name in ("target", "at_seconds", "at_examples"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} is a finite number, got {value}.")

    def length_of_run(self, train_examples: int) -> int:
        """The planned length that is asked for, in examples; 0 where none is.

        Raises `InputError` for passes over nobody knows how many examples.
        """
        if self.epochs and not self.planned_examples and not train_examples:
            raise InputError(
                f"How many examples a pass has is not known, so epochs={self.epochs:g} says nothing. Give "
                f"--train-examples."
            )
        return self.planned_examples or round((self.epochs or 0) * train_examples)

    def said(self) -> dict[str, Any]:
        """What is said at all, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value != {}}

    def over(self, before: Ask) -> Ask:
        """This question, and where it says nothing, the one `before`."""
        said, left = self.said(), before.said()
        another = self.objective is not None and self.objective.lower() != (before.objective or "time").lower()
        for names, dropped in ((COMPARED_AT, another), (LENGTHS, False)):
            if dropped or said.keys() & set(names):  # one of them stands in for the other
                left = {name: value for name, value in left.items() if name not in names}
        return Ask(**{**left, **said})

    def options(self) -> tuple[str, ...]:
        """The question as options of the command line, one a text."""
        options: list[str] = []
        for name, value in self.said().items():
            option = "--" + name.replace("_", "-")
            if name == "settings":
                options += [f"--set {shlex.quote(f'{key}={one}')}" for key, one in value.items()]
            elif isinstance(value, bool):
                options += [option] if value else []
            else:
                options.append(f"{option} {_typed(value)}")
        return tuple(options)


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def keep_asked(study: Study, ask: Ask) -> None:
    """Keep the question in the study, for whoever reads it later."""
    study.add_asked(to_json(ask.said()))


def asked_before(study: Study) -> Ask:
    """The last question of a study; of one that does not keep them yet, the target of its last answer."""
    if study.asked is not None:
        asked = dict(study.asked)
        if "present" in asked:
            asked["present"] = tuple(asked["present"])
        return Ask(**asked)
    answers = study.answers()
    if not answers:
        return Ask()
    target = Target(**answers[-1]["target"])
    first_touch = target.rule == "first_touch"
    if target.origin != "given":  # the study or its workload has it
        return Ask(first_touch=first_touch)
    return Ask(target=target.value, target_on=target.quantity.removeprefix("valid_"), first_touch=first_touch)
