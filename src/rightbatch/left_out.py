"""Batch sizes whose runs ended at a target before the cost at which metrics are compared: they are left out."""

from __future__ import annotations

from rightbatch import curves
from rightbatch.batch_schedule import schedule_of
from rightbatch.evidence import Evidence
from rightbatch.question import Objective
from rightbatch.records import Run


def left_out(evidence: Evidence, *, wholly: bool = False) -> tuple[int, ...]:
    """Sizes with runs that ended at a target before; `wholly`: those without any other run. None but with METRIC."""
    if evidence.question.objective is not Objective.METRIC:
        return ()
    ended = [
        run.trial
        for run in evidence.relevant
        if run.stop and run.stop.message == curves.REACHED and run.points[-1].examples < _examples(evidence, run)
    ]
    others = {cell.batch_size for cell in evidence.cells if cell.costs}
    known = {(cell.batch_size, cell.learning_rate) for cell in evidence.cells if cell.costs}
    sizes = {t.batch_size for t in ended if (t.batch_size, t.learning_rate) not in known}
    return tuple(sorted(sizes - others if wholly else sizes))


def _examples(evidence: Evidence, run: Run) -> float:
    """After how many examples a run is compared; 0 where that is not known."""
    if evidence.question.at_examples is not None:
        return evidence.question.at_examples
    return evidence.seconds.examples_at(schedule_of(run.trial), evidence.question.at_seconds or 0.0) or 0.0


def compared_at(evidence: Evidence) -> str:
    """The cost at which metrics are compared, in words: "0.03 s", "5,000 examples"."""
    seconds, examples = evidence.question.at_seconds, evidence.question.at_examples
    return f"{seconds:g} s" if seconds is not None else f"{examples:,.0f} examples"
