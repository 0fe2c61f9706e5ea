"""What is said where no run reached the target, so that there is no answer yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rightbatch import curves
from rightbatch.evidence import Evidence
from rightbatch.question import Objective
from rightbatch.records import Point, Run, StopReason, Target
from rightbatch.search.forecast import Forecast
from rightbatch.search.out_of_reach import out_of_reach
from rightbatch.wording import counted, of_percent

ENDS_EARLY = 0.8
"""A run that made less than this share of what was planned ended by itself."""


def nothing_reached(
    evidence: Evidence, forecast: Forecast | None, in_budget: bool, spent_seconds: Mapping[str, float] | None = None
) -> str:
    """How near the runs came, what is believed of the best size, what more would buy, and a table at equal cost.

    `spent_seconds` is what a budget went into, by activity: of programs and loops most of it is not training.
    """
    spent = [f"{name} {seconds:.3g} s" for name, seconds in (spent_seconds or {}).items() if seconds]
    nearest = _nearest(evidence)
    if nearest is None:
        if in_budget:
            kept = " Seconds per step are known already." if evidence.step_times else ""
            return f"No run gave a value to judge.{kept} Run `rightbatch find` or `rightbatch sweep` first."
        return "The budget ended before any run gave a value to judge. The same command with a larger --budget goes on."
    if forecast is None or out_of_reach(evidence):
        choose = "Choose" if in_budget else "Give a larger --budget, choose"
        after = f" {choose} an easier --target{_longer(evidence)}."
    else:
        after = f"\n{_best_guess(forecast, evidence.question.objective, in_budget)}"
    told = [f"The budget went into: {', '.join(spent)}."] if spent and not in_budget else []
    return "\n".join([nearest + after, *told, *_at_equal_cost(evidence)])


def _longer(evidence: Evidence) -> str:
    """What would make runs longer; they may have ended by themselves, or come to rest, whatever was planned."""
    if all(run.trial.planned_examples is None for run in evidence.relevant):
        return ": the runs, of no planned length, have come to rest short of this one" if out_of_reach(evidence) else ""
    finished = [run for run in evidence.relevant if run.stop and run.stop.reason is StopReason.FINISHED]
    lengths = [(run.points[-1].examples, run.trial.planned_examples or 0) for run in finished if run.points]
    if lengths and all(made < ENDS_EARLY * planned for made, planned in lengths):
        made, planned = max(lengths)
        return (
            f", or let the training go on: it ended by itself after {made:,} examples, and {planned:,} are planned "
            f"(trial.planned_examples says how many)"
        )
    return ", or plan longer runs with --epochs"


def _best_guess(forecast: Forecast, objective: Objective, in_budget: bool) -> str:
    """What is believed before anything has reached the target."""
    guess, cost = forecast.guess, forecast.costs[forecast.guess.batch_size, forecast.guess.learning_rate]
    low, high = guess.sizes or (guess.batch_size, guess.batch_size)
    text = (
        f"By the runs so far the best batch size lies from {low} to {high} (90 % sure), most "
        f"likely {guess.batch_size} at rate {guess.learning_rate:g}, which is expected to cost "
        f"{_said(cost.estimate, objective)} [{_said(cost.low, objective)}, {_said(cost.high, objective)}]."
    )
    if forecast.gain_cost:
        goes_on = "`rightbatch find`" if in_budget else "the same command with a larger --budget"
        cheaper = f"{100 * forecast.gain:.0f} % cheaper" if forecast.gain >= 0.005 else "hardly cheaper"
        text += (
            f" The next {_said(forecast.gain_cost, objective)} are expected to make the answer {cheaper}: {goes_on} "
            "goes on."
        )
    return text


def _said(cost: float | None, objective: Objective) -> str:
    unit = {Objective.TIME: "s", Objective.STEPS: "steps", Objective.EXAMPLES: "examples"}.get(objective, "")
    return f"{cost:.3g} {unit}" if cost is not None else "-"


def _at_equal_cost(evidence: Evidence) -> tuple[str, ...]:
    """The best value of each batch size at one cost, which at least half of the runs have come to; in lines."""
    target, objective = evidence.question.target, evidence.question.objective
    if objective is Objective.METRIC:
        return ()

    def cost(run: Run, point: Point) -> float:
        return evidence.cost_of_steps(run.trial.batch_size, point.step, point.examples) or 0.0

    runs = [run for run in evidence.relevant if any(point.step > 0 for point in run.points)]
    if not runs:
        return ()
    limit = float(np.median([cost(run, run.points[-1]) for run in runs]))
    found: dict[int, tuple[float, float]] = {}
    for run in runs:
        if cost(run, run.points[-1]) < limit:
            continue
        upto = [point for point in run.points if cost(run, point) <= limit * (1 + 1e-9)]
        value = curves.best_value(upto, target.quantity, target.direction)
        size = run.trial.batch_size
        if value is not None and (size not in found or Target.reached_by(replace(target, value=found[size][0]), value)):
            found[size] = (value, run.trial.learning_rate)
    rows = (f"  batch size {size:>6}: {value:.4g} at rate {rate:g}" for size, (value, rate) in sorted(found.items()))
    return f"Best {evidence.judged_by} at equal cost, after {_said(limit, objective)} of each run:", *rows


def _nearest(evidence: Evidence) -> str | None:
    """How near the runs came to the target; None where none gave a value."""
    target = evidence.question.target
    tried = [
        (value, run)
        for run in evidence.relevant
        if (value := curves.best_value(run.points, target.quantity, target.direction)) is not None
    ]
    if not tried:
        return None
    if evidence.question.objective is Objective.METRIC:
        return "No run was trained as far as it is to be compared at."
    bound = "at least" if target.direction == "max" else "at most"
    said = (
        f"No batch size and rate reached the target ({evidence.judged_by} {bound} {target.value:g}) in all of its runs."
    )
    if beyond := [run for value, run in tried if target.reached_by(value)]:
        return f"{said} {_beyond(evidence, beyond)}"
    value, run = (max if target.direction == "max" else min)(tried, key=lambda pair: pair[0])
    unit = of_percent(target.value) if 0 < value <= 1 else ""
    question = f" Is the target in the unit of what is judged{unit}?" if unit else ""
    return f"{said} The nearest came to {value:.4g}: {_called(run)}, {run.points[-1].examples:,} examples.{question}"


def _beyond(evidence: Evidence, beyond: Sequence[Run]) -> str:
    """Why runs with a value beyond the target do not count as an answer."""
    crossed = [run for run in beyond if evidence.crossing(run) is not None]
    if not crossed:
        return (
            f"But {_called(beyond[0])} was beyond it at one evaluation, and not at the next, or was not evaluated "
            f"again: a target counts as reached at the first of two in a row (--first-touch takes one)."
        )
    run = crossed[0]
    if evidence.cost(run) is None:
        return (
            f"But {_called(run)} got there, and what a step takes at that size is not known: `rightbatch profile` "
            f"measures it, --objective examples or steps does without."
        )
    runs = evidence.runs_at(run.trial.batch_size, run.trial.learning_rate)
    there = sum(evidence.crossing(other) is not None for other in runs)
    return f"But {_called(run)} did with {there} of {counted(len(runs), 'seed')}."


def _called(run: Run) -> str:
    return f"batch size {run.trial.batch_size}, rate {run.trial.learning_rate:g}"
