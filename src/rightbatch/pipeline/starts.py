"""What is refused at the first point of a run."""

from __future__ import annotations

from rightbatch import curves
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.question import Objective
from rightbatch.records import Point


def check_start(evidence: Evidence, point: Point) -> None:
    """Refuse a target that the weights reach as they are before any step: nothing could be told by it."""
    target = evidence.question.target
    if point.step or evidence.question.objective is Objective.METRIC:
        return
    value = getattr(point, target.quantity)
    if target.reached_by(value):
        raise InputError(
            f"The target {target.value:g} is reached before any training: the "
            f"{curves.called([point], target.quantity)} of {evidence.facts.name!r} is {value:.6g} at the start. Give a "
            f"harder --target."
        )
