"""Marek et al. 2025: keep the half-life of Adam's second moment in tokens, and batches of one train as well as others.

A transformer on characters, batches of 1 to 256 windows of 64, as many tokens for all. With the half-life kept, beta2
rises from 0.95 at 64 windows to 0.9992 at 1; against it beta2 kept at 0.95 and at 0.9992, other half-lives at three
sizes, and SGD without momentum. Rates are tuned for each of these on two seeds; four other seeds judge.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _marek_page import figure, notes
from _marek_told import (
    BASE_SIZE,
    JUDGING,
    NEAR,
    TUNING,
    best_half_life_power,
    best_rate_power,
    beta2_of,
    costs,
    gap_shrinks,
    named,
    width_ratio,
)

import rightbatch
from rightbatch.lattice import index_of, rate_at
from rightbatch.records import Interval, StopReason
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held

NETS = Path(__file__).with_name("_marek_nets.py")

Cell = tuple[str, int, float]
"""Optimizer, batch size, and the half-life as a multiple of the rule's (0: the optimizer has none)."""

RULE: Sequence[Cell] = tuple(("adam", size, 1.0) for size in (1, 4, 16, 64, 256))
FIXED: Sequence[Cell] = tuple(("adam", size, size / BASE_SIZE) for size in (1, 4, 16, 256))
"""beta2 of 0.95 at every size: its half-life in tokens is in proportion to the size."""

USUAL: Sequence[Cell] = tuple(("adam", size, float(size)) for size in (4, 16, 64, 256))
"""beta2 of 0.9992, the rule's at 1, at every size: nearly the 0.999 that is usual."""

OTHERS: Sequence[Cell] = tuple(("adam", size, factor) for size in (1, 16, 64) for factor in (1 / 16, 1 / 4, 4.0, 16.0))
PLAIN: Sequence[Cell] = (("sgd", 1, 0.0), ("sgd", 64, 0.0))

PLANS: Mapping[Size, Mapping[str, Any]] = {
    "smoke": {
        "cells": (RULE[0], FIXED[0]),
        "examples": 128,
        "searched": False,
        "judging": 2,
        "workers": 1,
        "nets": "_smoke",
    },
    "small": {"cells": (*RULE, *FIXED, *USUAL, *OTHERS, *PLAIN), "examples": 48 * 256, "searched": True},
    "paper": {"cells": (*RULE, *FIXED, *USUAL, *OTHERS, *PLAIN), "examples": 200 * 256, "searched": True, "judging": 8},
}
"""`examples`: windows that a run sees. `searched`: whether the first rate of a cell is looked for, or given."""

FIRST = {"adam": 0.00562, "sgd": 0.316}
WIDENINGS = 6
"""So many rates are added beyond a best one that is the first or the last."""

read = partial(Claim, known_by="derived", tolerance=0.0, from_size="small")
as_good_as = partial(read, published=0.0, slack=NEAR, relation="at most")

CLAIMS = (
    Claim(
        "fixed",
        "Batch size 1: loss with beta2 kept at 0.95 less that with the half-life kept",
        published=0.0,
        tolerance=0.0,
        relation="at least",
        known_by="derived",
    ),
    as_good_as("as 64", f"Half-life kept: loss at batch size 1 less that at 64, at most {NEAR:g}"),
    as_good_as("as 16", f"Half-life kept: loss at batch size 1 less that at 16, at most {NEAR:g}"),
    as_good_as(
        "value",
        f"Batch size 256: loss with the rule's beta2 of 0.81 less that with 0.95, at most {NEAR:g}",
    ),
    read(
        "rate",
        "The power of the batch size by which the best rate grows from 1 to 64: nearer to 0.16, three times from 1 to "
        "1,024, than to the root",
        published=math.log(3) / math.log(1024),
        slack=(0.5 - math.log(3) / math.log(1024)) / 2,
        relation="at most",
    ),
    read(
        "width",
        f"Decades of rates within {NEAR:g} of the best loss, those at batch size 1 over those at 64",
        published=1.0,
        relation="at least",
    ),
    read(
        "half-life",
        "The power of the batch size by which the best half-life in tokens grows from 1 to 64: 0 where it is kept, 1 "
        "were it beta2 that should be",
        published=0.0,
        slack=0.25,
    ),
    read(
        "SGD",
        "By how much more SGD is behind Adam at batch size 64 than at 1, in loss",
        published=0.0,
        relation="at least",
    ),
    as_good_as("SGD at 1", f"SGD at batch size 1 less Adam at 64, in loss, at most {NEAR:g}"),
)


# ------------------------------------------------------------------------------------------------ what is measured


def run(size: Size, store: Store) -> Measured:
    """Every cell with its rate tuned; then what the rule book says of the study."""
    plan = {"judging": JUDGING, "workers": 2, "nets": "", **PLANS[size]}
    measured: dict[str, Any] = {"examples": plan["examples"], "cells": {}}
    for cell in dict.fromkeys(plan["cells"]):
        # The other half-lives begin at the best rate of the rule's.
        begun = measured["cells"].get(named(cell[0], cell[1], 1.0))
        measured["cells"][named(*cell)] = store.unit(named(*cell), partial(of_cell, store.folder, plan, cell, begun))
    return measured


def of_cell(folder: Path, plan: Mapping[str, Any], cell: Cell, begun: Mapping[str, Any] | None) -> dict[str, Any]:
    """Losses at the end of every run of a cell, by rate and seed."""
    optimizer, size, factor = cell
    losses_of = partial(trained, folder, plan, cell)
    if begun is not None:
        start = index_of(begun["chosen"])
    elif plan["searched"]:
        start = best_of(losses_of(None, 1))
    else:
        start = index_of(FIRST[optimizer])
    tuned = settle(partial(losses_of, seeds=TUNING), start)
    chosen = best_of(tuned)
    # With the rule's half-life the rates around it run with every seed: how flat is it, and where is the best?
    around = plan["searched"] and factor == 1
    near = spread(partial(losses_of, seeds=TUNING), chosen) if around else [chosen]
    losses_of(near, TUNING + plan["judging"])
    return {
        "batch_size": size,
        "chosen": rate_at(chosen),
        "at_edge": chosen in (min(tuned), max(tuned)),
        "losses": {f"{rate_at(k):g}": by_seed for k, by_seed in sorted(ends(folder, cell).items())},
    }


def trained(
    folder: Path, plan: Mapping[str, Any], cell: Cell, indices: Sequence[int] | None, seeds: int
) -> dict[int, float]:
    """Mean losses by rate over the first seeds, trained where they are not yet; None: rates that `sweep` looks for."""
    optimizer, size, _ = cell
    runs = ends(folder, cell)
    if indices is None or any(str(seed) not in runs.get(k, {}) for k in indices for seed in range(seeds)):
        with contextlib.suppress(rightbatch.InsufficientEvidence):  # losses are wanted here, not an answer
            rightbatch.sweep(
                f"{NETS}:{optimizer}{plan['nets']}",
                (size,),
                study=study_of(folder, cell),
                seeds=seeds,
                rates=None if indices is None else [rate_at(k) for k in indices],
                objective="metric",
                at_examples=plan["examples"],
                planned_examples=plan["examples"],
                present=(size, FIRST[optimizer]),
                settings=settings_of(cell),
                workers=plan["workers"],
                threads=1,
            )
        runs = ends(folder, cell)
    return {k: mean_loss(runs[k], seeds) for k in (indices or runs)}


def mean_loss(by_seed: Mapping[str, float | None], seeds: int) -> float:
    """Over the first seeds; infinite where one of them diverged."""
    losses = [by_seed[str(seed)] for seed in range(seeds)]
    return sum(loss if loss is not None else math.inf for loss in losses) / seeds


def settings_of(cell: Cell) -> dict[str, float]:
    """The beta2 of a cell."""
    optimizer, size, factor = cell
    return {"beta2": beta2_of(size, factor)} if optimizer == "adam" else {}


def study_of(folder: Path, cell: Cell) -> Path:
    """All cells of an optimizer are in one study."""
    return folder / f"{cell[0]}.study.db"


def ends(folder: Path, cell: Cell) -> dict[int, dict[str, float | None]]:
    """Validation losses at the end of the runs of a cell by rate and seed; None where a run diverged."""
    wanted: dict[str, float] = settings_of(cell)
    found: dict[int, dict[str, float | None]] = {}
    if not study_of(folder, cell).exists():
        return found
    with rightbatch.Study.open(study_of(folder, cell)) as study:
        for done in study.runs():
            trial = done.trial
            if trial.batch_size != cell[1] or dict(trial.settings) != wanted or done.stop is None:
                continue
            if done.stop.reason not in (StopReason.FINISHED, StopReason.DIVERGED):  # interrupted: it is run again
                continue
            loss = done.points[-1].valid_loss if done.stop.reason is StopReason.FINISHED else None
            told = loss if loss is not None and math.isfinite(loss) else None
            found.setdefault(index_of(trial.learning_rate), {})[str(trial.seed)] = told
    return found


def best_of(means: Mapping[int, float]) -> int:
    """The rate of the lowest loss."""
    return min(means, key=lambda k: means[k])


Losses = Callable[[Sequence[int]], Mapping[int, float]]
"""Mean losses at rates of the lattice."""


def settle(losses_of: Losses, start: int) -> Mapping[int, float]:
    """Losses at rates a quarter of a decade apart: so many that the best is neither the first nor the last."""
    tried = [start - 1, start, start + 1]
    means = losses_of(tried)
    for _ in range(WIDENINGS):
        best = best_of(means)
        if tried[0] < best < tried[-1]:
            break
        tried = [best - 1, *tried] if best == tried[0] else [*tried, best + 1]
        means = losses_of(tried)
    return means


def spread(losses_of: Losses, best: int) -> list[int]:
    """Rates about the best, two to each side at least, until those at both ends are clearly not near it."""
    tried = list(range(best - 2, best + 3))
    for _ in range(WIDENINGS):
        means = losses_of(tried)
        low, high = (means[end] - means[best] >= 1.5 * NEAR for end in (tried[0], tried[-1]))
        if low and high:
            break
        tried = [*([] if low else [tried[0] - 1]), *tried, *([] if high else [tried[-1] + 1])]
    return tried


# ---------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """With 95 % intervals over the seeds that judge."""
    cells = measured["cells"]
    found: dict[str, Interval | None] = {"fixed": costs(cells, FIXED[0], RULE[0])}
    if named(*PLAIN[0]) in cells:
        found |= {
            "as 64": costs(cells, RULE[0], RULE[3]),
            "as 16": costs(cells, RULE[0], RULE[2]),
            "value": costs(cells, RULE[4], FIXED[3]),
            "rate": best_rate_power(cells, (1, 4, 16, 64)),
            "width": width_ratio(cells, 1, 64),
            "half-life": best_half_life_power(cells, (1, 16, 64)),
            "SGD": gap_shrinks(cells, 1, 64),
            "SGD at 1": costs(cells, PLAIN[0], RULE[3]),
        }
    return held(CLAIMS, found)


REPRODUCTION = Reproduction(
    name="marek",
    title="The half-life of Adam's second moment, and batches of one",
    source="Marek et al. 2025, Small batch size training for language models: when vanilla SGD works, and why gradient "
    "accumulation is wasteful (arXiv:2507.07101)",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 2 * 24 * 3600},
    smallest_effect=0.015,
    smallest_effect_reason="In first runs at batch size 1 the difference of two ways, each at its best rate, itself "
    "differed by 0.02 between seeds: four pairs of runs then tell differences of 0.03, of a loss of about 2.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Loss on validation data by batch size at the best rate, by rate with the half-life kept, the best rate by "
    "batch size beside what was published, and loss by half-life; means with 95 % intervals over seeds that took no "
    "part in choosing rates.",
    notes=notes,
    seed=0,
)
