"""What other values of a setting do to the answer, where a study has tried some: do they move the useful batch size?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rightbatch.answer import Recommendation
from rightbatch.batch_schedule import SETTING
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.pipeline.searching import forecast_of
from rightbatch.recommend import recommend
from rightbatch.records import Setting
from rightbatch.report import units


def beside_other_settings(answer: Recommendation, evidence: Evidence) -> Recommendation:
    """The answer with a reason more for every other value of a setting that the study has an answer for.

    But for the schedules of a search of growing batches, which the answer has already.
    """
    others = (one for one in _others(evidence) if one[0] != SETTING or answer.growth is None)
    said = [_compared(answer, evidence, name, value) for name, value in others]
    return replace(answer, reasons=(*answer.reasons, *filter(None, said)))


def _others(evidence: Evidence) -> Iterator[tuple[str, Setting]]:
    own = {**evidence.declared, **evidence.settings}
    for name in own:
        tried = dict.fromkeys({**evidence.declared, **run.trial.settings}[name] for run in evidence.runs)
        yield from ((name, value) for value in tried if value != own[name])


def _compared(answer: Recommendation, evidence: Evidence, name: str, value: Setting) -> str | None:
    other = evidence.with_setting(name, value)
    try:
        found = recommend(other, protocol="", spent_seconds={}, forecast=forecast_of(other), advised=False)
    except InsufficientEvidence:
        return None
    own = {**evidence.declared, **evidence.settings}[name]
    possible, here = set(found.not_excluded), set(answer.not_excluded)
    if possible and here and not possible & here:
        moved = "larger" if answer.batch_size > found.batch_size else "smaller"
        told = f"the useful batch size is {moved} with {name} {_said(own)}"
    else:
        told = "the useful batch sizes cannot be told apart"
    span = f" (cannot be excluded: {units.sizes(found.not_excluded)})" if found.not_excluded else ""
    said = f"with {name} {_said(value)} instead of {_said(own)} it is batch size {found.batch_size}{span}"
    if evidence.question.at_seconds is None:  # at equal seconds each has a scale of its own
        said += f", at {units.times(found.cost.estimate / answer.cost.estimate)} the cost"
    return f"{said}: {told}"


def _said(value: Setting) -> Setting:
    return "none" if value == "" else value
