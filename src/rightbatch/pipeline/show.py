"""`show`: the answer of a study as it stands, computed anew from its curves. Needs no torch and trains nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.growth import fixed_plan, growth_of
from rightbatch.left_out import compared_at, left_out
from rightbatch.pipeline.asking import Ask, asked_before
from rightbatch.pipeline.other_settings import beside_other_settings
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.setting_up import facts_as_asked, gather, question, stated_target
from rightbatch.recommend import recommend
from rightbatch.store import Study
from rightbatch.typed import command


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
        _refuse_left_out(evidence, path)
        answers = study.answers()
        protocol = answers[-1]["protocol"] if answers else "the runs of this study, as they are"
        answer = recommend(evidence, protocol=protocol, spent_seconds=study.costs(), forecast=forecast_of(evidence))
        answer = replace(answer, growth=growth_of(evidence, fixed_plan(answer.batch_size, answer.learning_rate)))
        return beside_other_settings(answer, evidence), evidence


def _refuse_left_out(evidence: Evidence, path: str | Path) -> None:
    """Raise `InsufficientEvidence` where all runs of a size ended at a target: it may well be the best."""
    sizes = left_out(evidence, wholly=True)
    if not sizes:
        return
    tried = sorted({run.trial.batch_size for run in evidence.relevant})
    more = command(
        "sweep", evidence.facts, f"--batch-sizes {','.join(map(str, tried))}", *evidence.options, f"--study {path}"
    )
    raise InsufficientEvidence(
        f"All runs at batch size {', '.join(map(str, sizes))} ended when they reached the target, before "
        f"{compared_at(evidence)}: what they would have come to is not known, and it may be the best. Compare at less "
        f"(--at-seconds, --at-examples), or train whole runs: {more}"
    )
