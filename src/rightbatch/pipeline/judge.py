"""`judge`: the rule book held against a study. Needs no torch and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.advice import case_of
from rightbatch.errors import InputError
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.show import evidence_of
from rightbatch.rules import RULES, Verdicts, verdicts_of
from rightbatch.store import Study

KNOWN = ("compute", "tokens_per_example")
"""What a person may say beside what a study holds."""

EXAMPLE = Path(__file__).parent.parent / "rules" / "digits.study.db"
"""A recorded study of the digits workload, by which every rule is explained."""


def judge(study: str | Path, *, known: Mapping[str, float] | None = None, **asked: Any) -> Verdicts:
    """Judge every rule of the book by a study.

    known: What the study does not hold: `compute` in FLOPs, `tokens_per_example`.
    asked: The question, where it differs from the study's own: the fields of `Ask`.

    Raises `InsufficientEvidence` when the study has no target, `StudyError` when it cannot be opened, `InputError` for
    an unknown fact.
    """
    for name in known or {}:
        if name not in KNOWN:
            raise InputError(f"Nothing is known by the name {name!r}; there are {', '.join(KNOWN)}.")
    with Study.open(study) as kept:
        evidence = evidence_of(kept, Ask(**asked))
    return verdicts_of(case_of(evidence, forecast_of(evidence), study=str(study), known=known), RULES.values())


def example() -> Verdicts:
    """The rule book judged by the study that comes with the package; commands name it as a file of one's own."""
    case = judge(EXAMPLE).case
    return verdicts_of(replace(case, study=EXAMPLE.name), RULES.values())


def check_rule(name: str) -> None:
    """Raises `InputError` for a name that is not in the book."""
    if name not in RULES:
        raise InputError(f"There is no rule {name!r}. `rightbatch rules` lists them: {', '.join(RULES)}.")
