"""From measured effects to a verdict: one-sided tests against a tolerance, corrected for the number of rules."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rightbatch.fit.quantiles import t_probability

LEVEL = 0.05
"""A verdict is given where it is wrong in at most this share of studies, over all rules of a table."""


class Verdict(enum.Enum):
    """What a study says of a rule. The value is what people read."""

    HOLDS = "holds"
    FAILS = "fails"
    CANNOT_TELL = "cannot tell"
    DOES_NOT_APPLY = "does not apply"


class Unit(enum.Enum):
    """What the value of an effect is: the log of a ratio, a share of the gain, or a number of its own."""

    LOG_RATIO = enum.auto()
    SHARE = enum.auto()
    NUMBER = enum.auto()


@dataclass(frozen=True)
class Effect:
    """One measured number, and the range in which a rule says that it lies.

    `error` is the standard error of `value`, with `freedom` degrees of freedom; `low` and `high` end the range, an
    infinite one being no end. `batch_size` is the size that it was measured at, where there is one.
    """

    name: str
    value: float
    error: float
    freedom: int
    low: float = -math.inf
    high: float = math.inf
    unit: Unit = Unit.LOG_RATIO
    batch_size: int | None = None

    @property
    def within(self) -> bool:
        """Whether the estimate lies in the range."""
        return self.low <= self.value <= self.high

    def against_outside(self) -> float:
        """p-value of "it lies outside the range": the larger of two one-sided tests (TOST, Schuirmann 1987)."""
        return max(self._below(self.low), 1 - self._below(self.high))

    def against_inside(self) -> float:
        """p-value of "it lies in the range": that of the end which it is furthest beyond."""
        return min(1 - self._below(self.low), self._below(self.high))

    def _below(self, bound: float) -> float:
        """The probability of a value as large as this one, or a larger one, if the truth were the bound."""
        if math.isinf(bound) or math.isinf(self.value):
            return 0.0 if bound < self.value else 1.0
        if self.error == 0:
            return 0.0 if bound < self.value else 1.0 if bound > self.value else 0.5
        return 1 - t_probability((self.value - bound) / self.error, self.freedom)


@dataclass(frozen=True)
class Finding:
    """What a study shows of a rule: the effects that it speaks of.

    The rule says that all of them lie in their range; `one_is_enough`: that at least one does. `says` puts what was
    seen in a sentence. `only_holds`: why effects out of range say nothing against it (what it speaks of may lie beyond
    the sizes tried), and the command that would tell. `command`: what would measure the same better, where that is not
    more seeds. `best_of`: of so many findings, any of which would do, this is the one that looked best.
    """

    effects: tuple[Effect, ...]
    says: str = ""
    one_is_enough: bool = False
    only_holds: Untold | None = None
    command: str = ""
    best_of: int = 1

    @property
    def holds_p(self) -> float:
        """p-value of "the rule does not hold". Of all effects: the intersection-union test needs no correction."""
        found = [effect.against_outside() for effect in self.effects]
        return min(1.0, self.best_of * (len(found) * min(found) if self.one_is_enough else max(found)))

    @property
    def fails_p(self) -> float:
        """p-value of "the rule holds". Of several effects any of which would do, Bonferroni's."""
        if self.only_holds:
            return 1.0
        found = [effect.against_inside() for effect in self.effects]
        return max(found) if self.one_is_enough else min(1.0, len(found) * min(found))


@dataclass(frozen=True)
class Untold:
    """Why a study does not tell whether a rule holds, and the command that would (empty where there is none)."""

    why: str
    command: str = ""


def verdict_of(finding: Finding, limit: float) -> Verdict:
    """The verdict of one finding where a p-value of at most `limit` is enough."""
    if finding.holds_p <= limit:
        return Verdict.HOLDS
    return Verdict.FAILS if finding.fails_p <= limit else Verdict.CANNOT_TELL


def holm(findings: Sequence[Finding], level: float = LEVEL) -> tuple[Verdict, ...]:
    """Verdicts of the findings of one table, such that hardly any of them is wrong: Holm 1979, over the rules.

    Of a rule, at most one of the two verdicts can be wrong; so each counts once, with the smaller of its p-values. The
    smallest of m is held against level / m, the next against level / (m - 1), until one is too large.
    """
    order = sorted(range(len(findings)), key=lambda k: min(findings[k].holds_p, findings[k].fails_p))
    verdicts = [Verdict.CANNOT_TELL] * len(findings)
    for left, k in zip(range(len(order), 0, -1), order, strict=True):
        verdicts[k] = verdict_of(findings[k], level / left)
        if verdicts[k] is Verdict.CANNOT_TELL:
            break
    return tuple(verdicts)
