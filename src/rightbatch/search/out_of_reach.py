"""When a search ends although nothing reached the target: its runs have stopped coming nearer to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rightbatch import curves
from rightbatch.curves import Curve, until_target
from rightbatch.directions import of_another_unit
from rightbatch.evidence import Evidence
from rightbatch.lattice import snap
from rightbatch.question import Objective
from rightbatch.records import Run, StopReason
from rightbatch.search.progress import at_rest, start_value
from rightbatch.search.strategy import Action, Advance, Done, Strategy, Wait

IN_VAIN, IN_VAIN_FAR = 8, 3
"""So many whole runs in a row that come no nearer are enough; so many where they end a world away."""

NEARER = 0.1
"""To come nearer is to make the way that is left shorter by this share."""

LASTING = 8
"""A run rests for good if it gained next to nothing while its steps grew so many times, to as many as others have."""

NO_MORE = (StopReason.DIVERGED, StopReason.OUT_OF_MEMORY, StopReason.FAILED)
"""A run that ended so does not go on."""

DECADE = 0.99
"""So many powers of ten apart are rates that differ tenfold, whatever the last digits of a float."""


def while_nearer(strategy: Strategy, sizes: Collection[int]) -> Strategy:
    """The strategy, ended where whole runs do not come nearer to the target any more, and none has reached it.

    What came nearest, if it is at rest and could go on, is trained on first: a plateau may look like the end. So is
    what is trained with now, if it is one of the `sizes`, to its planned length (without one, half as far): a person
    knows what that comes to.
    """

    def asked(evidence: Evidence) -> Action:
        action = strategy(evidence)
        short = _in_vain(evidence) if isinstance(action, Advance) else None
        if short is None:
            return action
        if evidence.pending:
            return Wait()
        if short.may_move:
            return _on(short.run, evidence)
        return _present(short.run, evidence, sizes) or Done("the target is out of reach")

    return asked


def out_of_reach(evidence: Evidence) -> bool:
    """Whether the last whole runs came no nearer to the target, and others at lower or higher rates would not."""
    short = _in_vain(evidence)
    return short is not None and not short.may_move


@dataclass(frozen=True)
class _Short:
    """A run short of the target: the way that is left, its best value; whether it is over, rests, or rests for good.

    Over is one that came to its planned length, if no longer one is asked for by now. Without one it is whole when it
    has come to rest.
    """

    run: Run
    way: float
    best: float
    over: bool
    rests: bool
    for_good: bool

    @property
    def whole(self) -> bool:
        return self.over or self.rests

    @property
    def may_move(self) -> bool:
        return not self.over and not self.for_good

    @property
    def rate(self) -> float:
        return self.run.trial.learning_rate


def _in_vain(evidence: Evidence) -> _Short | None:
    """The nearest run, if the last whole ones came no nearer to the target and no rate would; else None."""
    if evidence.question.objective is Objective.METRIC or any(evidence.crossing(run) for run in evidence.relevant):
        return None
    short = _short(evidence)
    whole = [one for one in short if one.whole]
    in_vain = IN_VAIN_FAR if of_another_unit(evidence.question.target.value, (one.best for one in whole)) else IN_VAIN
    if len(whole) <= in_vain:
        return None
    nearest = min(whole, key=lambda one: one.way)
    if nearest.way <= (1 - NEARER) * min(one.way for one in whole[:-in_vain]):
        return None
    diverged = (run for run in evidence.relevant if run.stop and run.stop.reason is StopReason.DIVERGED)
    rates = [run.trial.learning_rate for run in diverged]
    rates += [one.rate for one in whole]
    if not min(rates) < nearest.rate < max(rates) and not _at_any_rate(whole, nearest):
        return None
    return min(short, key=lambda one: one.way)


def _short(evidence: Evidence) -> list[_Short]:
    """Runs in the order in which they were begun: those that are over, and those that could go on without end."""
    target, start = evidence.question.target, start_value(evidence.runs, evidence.question.target)
    steps = sum(run.points[-1].step for run in evidence.relevant if run.points)
    found = []
    for run in sorted(evidence.relevant, key=lambda run: run.identifier):
        best = curves.best_value(run.points, target.quantity, target.direction)
        over = run.stop is not None and run.stop.reason is StopReason.FINISHED and evidence.conclusive(run)
        goes_on = run.trial.planned_examples is None and not (run.stop and run.stop.reason in NO_MORE)
        if best is None or start is None or not (over or goes_on):
            continue
        rests = not over and at_rest(run, start, target)
        for_good = rests and 2 * run.points[-1].step >= steps and at_rest(run, start, target, LASTING)
        found.append(_Short(run, abs(target.value - best), best, over, rests, for_good))
    return found


def _at_any_rate(whole: Sequence[_Short], nearest: _Short) -> bool:
    """Whether runs at rates a decade apart come to rest as near: what is left is then not the noise of the rate."""
    apart = [one for one in whole if one.rests and abs(math.log10(one.rate / nearest.rate)) > DECADE]
    return nearest.rests and any(nearest.way > (1 - NEARER) * one.way for one in apart)


def _present(nearest: Run, evidence: Evidence, sizes: Collection[int]) -> Advance | None:
    """What is trained with now, to its planned length; without one for half as many steps as what came nearest.

    Not for as many: what came nearest goes on until it has as many as all others together, this run among them. None
    where it came as far.
    """
    if evidence.facts.present is None or evidence.facts.present[0] not in sizes:
        return None
    size, rate = evidence.facts.present[0], snap(evidence.facts.present[1])
    enough = nearest.points[-1].step / 2

    def as_far(curve: Curve) -> str | None:
        return "half as far as what came nearest" if curve and curve[-1].step >= enough else None

    pause = as_far if nearest.trial.planned_examples is None else None
    runs = evidence.runs_at(size, rate)
    for run in runs:
        if evidence.conclusive(run) or (run.stop and run.stop.reason in NO_MORE) or (pause and pause(run.points)):
            return None
    trial = replace(nearest.trial, batch_size=size, learning_rate=rate, seed=runs[0].trial.seed if runs else 0)
    return Advance(trial, until_target(evidence.question.target), "does what is trained with now reach it?", pause)


def _on(run: Run, evidence: Evidence) -> Advance:
    """A run goes on to twice its length."""
    until = 2 * run.points[-1].step

    def pause(curve: Curve) -> str | None:
        return "twice as long" if curve[-1].step >= until else None

    return Advance(run.trial, until_target(evidence.question.target), "is what came nearest at rest?", pause)
