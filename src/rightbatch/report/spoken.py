"""What an answer says in sentences, beside those of the terminal: what to change, and what being wrong costs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rightbatch.answer import Recommendation
from rightbatch.question import Objective
from rightbatch.report import terminal, units
from rightbatch.report.figures.sweet_spot import law_data


def change_text(answer: Recommendation) -> str:
    """The one line to change in a training."""
    new = f"batch_size={answer.batch_size}, learning_rate={units.rate(answer.learning_rate)}"
    present = answer.present
    if present is None:
        return new
    return f"batch_size={present.batch_size}, learning_rate={units.rate(present.learning_rate)}  ->  {new}"


def sure_text(answer: Recommendation) -> str:
    """How sure the choice is: of which sizes, from which runs."""
    chosen = next(row for row in answer.sizes if row.batch_size == answer.batch_size)
    said = terminal.as_good_text(answer)
    runs = f"{chosen.seeds} seeds" if chosen.seeds != 1 else "one seed"
    at_all = sum(row.seeds > 0 and row.cost is not None for row in answer.sizes)
    done = "run" if answer.objective is Objective.METRIC else "trained to the target"
    among = f"; {at_all} of {len(answer.sizes)} sizes were" if len(answer.sizes) > 1 else ", the only size tried"
    return f"{said}. The choice was {done} with {runs}{among}."


Source = Literal["measured", "predicted by the search", "by the sizes beside it", "by the laws"]


def factor_of_two(answer: Recommendation) -> tuple[tuple[float, float | None, Source], ...]:
    """Half and twice the chosen size: each with its cost over that of the choice, and where that is from."""
    known = [(r.batch_size, r.cost.estimate) for r in answer.sizes if r.cost is not None]
    seeds = {r.batch_size: r.seeds for r in answer.sizes if r.cost is not None}
    law = [(row["batch_size"], row["cost"]) for row in law_data(answer)]
    found: list[tuple[float, float | None, Source]] = []
    for size in (answer.batch_size / 2, answer.batch_size * 2):
        inside = known[0][0] <= size <= known[-1][0]
        path = known if inside else law
        source: Source = "by the sizes beside it" if inside else "by the laws"
        if size in seeds:
            source = "measured" if seeds[int(size)] else "predicted by the search"
        cost = None
        if path and path[0][0] <= size <= path[-1][0]:
            sizes, costs = zip(*path, strict=True)
            cost = float(np.exp(np.interp(np.log(size), np.log(sizes), np.log(costs))))
        found.append((size, cost / answer.cost.estimate if cost is not None else None, source))
    return tuple(found)


def factor_of_two_text(answer: Recommendation) -> str:
    """What a factor of two either way costs."""
    said = []
    for (size, factor, source), name in zip(factor_of_two(answer), ("Half", "Twice"), strict=True):
        if size < 1:
            continue
        if factor is None:
            said.append(f"{name} that size ({size:g}) was not measured.")
        else:
            how = "" if source == "measured" else f" ({source})"
            costs = (
                f"falls {units.cost(factor * answer.cost.estimate, answer.objective)} of the gain short"
                if answer.objective is Objective.METRIC
                else f"costs {units.times(factor)} as much"
            )
            said.append(f"{name} that size ({size:g}) {costs}{how}.")
    return " ".join(said)
