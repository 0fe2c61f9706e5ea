"""The rule book: published rules for batch size and learning rate, each stated, cited, and judged by a study.

A rule is a record (`rule.Rule`) with two functions: what it predicts for a workload, and what a study shows of it. The
table below registers them. `judge_all` is the whole of judging: effects against tolerances, corrected for the number of
rules. Formulas are plain functions: `rightbatch.rules.learning_rate.square_root(0.1, 4)`.
"""

from __future__ import annotations

from rightbatch.rules import (
    critical,
    learning_rate,
    optimizers,
    quality,
    schedules,
    shape,
    size,
    size_laws,
    temperature,
)
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Effect, Finding, Unit, Untold, Verdict
from rightbatch.rules.rule import FAMILIES, Prediction, Rule, Source
from rightbatch.rules.verdicts import Judgement, Verdicts, judge_all, verdicts_of

RULES: dict[str, Rule] = {
    rule.name: rule
    for room in (size, size_laws, critical, learning_rate, temperature, shape, quality, schedules, optimizers)
    for rule in room.RULES
}
"""Every rule by name, families together."""

__all__ = [
    "FAMILIES",
    "RULES",
    "Case",
    "Effect",
    "Finding",
    "Judgement",
    "Prediction",
    "Rule",
    "Source",
    "Unit",
    "Untold",
    "Verdict",
    "Verdicts",
    "judge_all",
    "learning_rate",
    "quality",
    "shape",
    "size",
    "size_laws",
    "verdicts_of",
]
