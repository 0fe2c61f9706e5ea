"""`judge`: the rule book held against a study. Needs no torch and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.setting_up import Ask
from rightbatch.pipeline.show import evidence_of
from rightbatch.records import Interval, MemoryProbe
from rightbatch.rules import RULES, Case, Judgement, Untold, Verdict, judge_all
from rightbatch.rules.readings import Reading, readings
from rightbatch.store import Study

KNOWN = ("compute", "tokens_per_example")
"""What a person may say beside what a study holds."""

EXAMPLE = Path(__file__).parent.parent / "rules" / "digits.study.db"
"""A recorded study of the digits workload, by which every rule is explained."""


@dataclass(frozen=True)
class Verdicts:
    """Every rule judged by one study, the most useful first; and what becomes of "larger is worse" by protocol."""

    case: Case
    judgements: tuple[Judgement, ...]
    readings: tuple[Reading, ...] | Untold

    def of(self, name: str) -> Judgement:
        """One rule's. Raises `InputError` for a name that is not in the book."""
        check_rule(name)
        return next(one for one in self.judgements if one.rule.name == name)


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
        probes = [probe for one in kept.environments().values() for probe in kept.memory_probes(one)]
    case = case_of(evidence, study=str(study), fits=largest_that_fits(probes), known=known)
    found = judge_all(case, RULES.values())
    return Verdicts(case, tuple(sorted(found, key=_usefulness)), readings(evidence))


def case_of(
    evidence: Evidence, *, study: str = "STUDY", fits: int | None = None, known: Mapping[str, float] | None = None
) -> Case:
    """A study as the rules see it: with the costs that its search forecasts, where it was one of few runs."""
    forecast = forecast_of(evidence)
    expected: dict[int, Interval] = {}
    if forecast is not None:
        expected = {size.batch_size: size.cost for size in forecast.sizes if size.cost is not None}
    return Case(evidence, study, expected, fits, known=known or {})


def largest_that_fits(probes: list[MemoryProbe]) -> int | None:
    """The largest batch that was seen to fit into memory in one pass; None where none was tried."""
    return max((p.batch_size for p in probes if p.fits and p.accumulation_steps == 1), default=None)


def check_rule(name: str) -> None:
    """Raises `InputError` for a name that is not in the book."""
    if name not in RULES:
        raise InputError(f"There is no rule {name!r}. `rightbatch rules` lists them: {', '.join(RULES)}.")


def _usefulness(judgement: Judgement) -> tuple[int, bool]:
    """What fails first, of that what people follow unmeasured; then what holds; last what does not apply."""
    order = [Verdict.FAILS, Verdict.HOLDS, Verdict.CANNOT_TELL, Verdict.DOES_NOT_APPLY]
    return order.index(judgement.verdict), not judgement.rule.popular
