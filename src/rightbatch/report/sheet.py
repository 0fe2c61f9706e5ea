"""What a page is written from: an answer, the evidence that it rests on, and what else its study knows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence
from rightbatch.records import Environment
from rightbatch.rules import Verdicts
from rightbatch.typed import command


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

    @property
    def file(self) -> str:
        """The study's file, or what it would be called."""
        return self.study or f"{self.evidence.facts.name}.study.db"

    def command(self, verb: str, *more: str, study: str = "") -> str:
        """The command that does something of this workload, into its study or another; `find` with what was asked."""
        facts, options = self.evidence.facts, self.evidence.options if verb == "find" else ()
        return command(verb, facts, *options, *more, f"--study {shlex.quote(study or self.file)}")
