"""What a page is written from: an answer, the evidence that it rests on, and what else its study knows."""

from __future__ import annotations

from dataclasses import dataclass

from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence
from rightbatch.records import Environment
from rightbatch.rules import Verdicts


@dataclass(frozen=True)
class Sheet:
    """An answer with all that is shown beside it.

    study: The study's file, for the commands that are named.
    share: The target's share of the gain from the start to the target that was asked for.
    easier: The same at easier targets, the easiest first.
    fits, does_not_fit: The largest batch that was seen to fit in one pass, and the smallest that did not; None where
        memory was not looked at, or all fitted.
    environments: Where there were measurements.
    verdicts: The rule book judged by the study.
    """

    answer: Recommendation
    evidence: Evidence
    study: str = ""
    share: float = 1.0
    easier: tuple[Sheet, ...] = ()
    fits: int | None = None
    does_not_fit: int | None = None
    environments: tuple[Environment, ...] = ()
    verdicts: Verdicts | None = None
