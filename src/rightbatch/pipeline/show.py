"""`show`: the answer of a study as it stands, computed anew from its curves. Needs no torch and trains nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.growth import fixed_plan, growth_of
from rightbatch.pipeline.asking import Ask, asked_before
from rightbatch.pipeline.other_settings import beside_other_settings
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.setting_up import facts_as_asked, gather, question, stated_target
from rightbatch.recommend import recommend
from rightbatch.store import Study


def evidence_of(study: Study, ask: Ask) -> Evidence:
    """The evidence of an open study for the question asked, and where that says nothing, for the last one."""
    ask = ask.over(asked_before(study))
    target = stated_target(study, ask)
    if target is None:
        raise InsufficientEvidence(
            f"{study.path} has no target yet: its workload names none, and the present choice has not been run. "
            f"Give --target, or run `rightbatch find` on it."
        )
    return gather(study, facts_as_asked(study.facts, ask), question(ask, target), ask=ask)


def show(path: str | Path, **asked: Any) -> tuple[Recommendation, Evidence]:
    """The answer of a study and the evidence that it rests on, for its last question or the one `asked`.

    `asked` are fields of `Ask`: `objective`, `target`, `present` ...

    Raises `InsufficientEvidence` when the study supports none, `StudyError` when it cannot be opened.
    """
    with Study.open(path) as study:
        evidence = evidence_of(study, Ask(**asked))
        answers = study.answers()
        protocol = answers[-1]["protocol"] if answers else "the runs of this study, as they are"
        answer = recommend(evidence, protocol=protocol, spent_seconds=study.costs(), forecast=forecast_of(evidence))
        answer = replace(answer, growth=growth_of(evidence, fixed_plan(answer.batch_size, answer.learning_rate)))
        return beside_other_settings(answer, evidence), evidence
