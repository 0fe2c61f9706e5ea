"""What is said where no run reached the target, so that there is no answer yet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rightbatch import curves
from rightbatch.evidence import Evidence, Objective
from rightbatch.records import Point, Run, Target
from rightbatch.search.forecast import Forecast


def nothing_reached(evidence: Evidence, forecast: Forecast | None, in_budget: bool) -> str:
    """How near the runs came, what is believed of the best size, what more would buy, and a table at equal cost."""
    nearest = _nearest(evidence)
    if nearest is None:
        if in_budget:
            return "No run gave a value to judge. Run `rightbatch find` or `rightbatch sweep` first."
        return "The budget ended before any run gave a value to judge. The same command with a larger --budget goes on."
    after = (
        f" {'Choose' if in_budget else 'Give a larger --budget, choose'} an easier --target, or plan longer runs with "
        f"--epochs."
        if forecast is None
        else f"\n{_best_guess(forecast, evidence.question.objective)}"
    )
    return "\n".join([nearest + after, *_at_equal_cost(evidence)])


def _best_guess(forecast: Forecast, objective: Objective) -> str:
    """What is believed before anything has reached the target."""
    guess, cost = forecast.guess, forecast.costs[forecast.guess.batch_size, forecast.guess.learning_rate]
    low, high = guess.sizes or (guess.batch_size, guess.batch_size)
    text = (
        f"By the runs so far, none of which got there, the best batch size lies from {low} to {high} (90 % sure), most "
        f"likely {guess.batch_size} at rate {guess.learning_rate:g}, which is expected to cost "
        f"{_said(cost.estimate, objective)} [{_said(cost.low, objective)}, {_said(cost.high, objective)}]."
    )
    if forecast.gain_cost:
        text += (
            f" The next {_said(forecast.gain_cost, objective)} are expected to make the answer "
            f"{100 * forecast.gain:.0f} % cheaper: the same command with a larger --budget goes on."
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
    return f"Best {target.quantity} after {_said(limit, objective)} of each run, which is not the target:", *rows


def _nearest(evidence: Evidence) -> str | None:
    """How near the runs came to the target; None where none gave a value."""
    target = evidence.question.target
    tried = [
        (value, run)
        for run in evidence.runs
        if (value := curves.best_value(run.points, target.quantity, target.direction)) is not None
    ]
    if not tried:
        return None
    value, run = (max if target.direction == "max" else min)(tried, key=lambda pair: pair[0])
    return (
        f"No batch size and rate reached the target ({target.quantity} {target.value:g}) in all of its runs. "
        f"The nearest came to {value:.4g}: batch size {run.trial.batch_size}, rate {run.trial.learning_rate:g}, "
        f"{run.points[-1].examples:,} examples."
    )
