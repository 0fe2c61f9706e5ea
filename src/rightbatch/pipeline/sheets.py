"""What a study's page is written from, gathered: the answer, the same at easier targets, memory, machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.advice import case_of
from rightbatch.answer import Recommendation
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.show import show
from rightbatch.recommend import recommend
from rightbatch.report.sheet import Sheet
from rightbatch.rules import RULES, verdicts_of
from rightbatch.store import Study


def sheet_of(study: str | Path, *, easier: bool = True, **asked: Any) -> Sheet:
    """The sheet of a study, for its last question or the one `asked` (fields of `Ask`); `easier`: with easier targets.

    Raises `InsufficientEvidence` when the study supports no answer, `StudyError` when it cannot be opened.
    """
    answer, evidence = show(study, **asked)
    with Study.open(study) as kept:
        environments = tuple(kept.environments().values())
        probes = [probe for one in environments for probe in kept.memory_probes(one) if probe.accumulation_steps == 1]
    own = Sheet(
        answer,
        evidence,
        str(study),
        fits=evidence.fits,
        verdicts=verdicts_of(case_of(evidence, forecast_of(evidence), study=str(study)), RULES.values()),
        does_not_fit=min((probe.batch_size for probe in probes if not probe.fits), default=None),
        environments=environments,
    )
    if not easier:
        return own
    others = (_at(own, row.target, row.share_of_gain) for row in answer.targets if row.share_of_gain < 1)
    return replace(own, easier=tuple(sheet for sheet in others if sheet is not None))


def _at(sheet: Sheet, target: float, share: float) -> Sheet | None:
    """The same study asked for an easier target; None where that has no answer."""
    evidence: Evidence = sheet.evidence
    question = replace(evidence.question, target=replace(evidence.question.target, value=target))
    easier = replace(evidence, question=question)
    try:
        answer: Recommendation = recommend(
            easier, protocol=sheet.answer.protocol, spent_seconds={}, forecast=forecast_of(easier), advised=False
        )
    except InsufficientEvidence:
        return None
    return replace(sheet, answer=answer, evidence=easier, share=share)
