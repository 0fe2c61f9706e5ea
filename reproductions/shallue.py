"""Shallue et al. 2019: steps to a goal by batch size, with rate and momentum tuned at each; what momentum changes.

A small network is trained on MNIST and on Fashion-MNIST until its validation error reaches a goal: with plain SGD,
whose rate is searched, and with Nesterov momentum, of which rate and momentum are searched, by as many quasi-random
trials each. Steps fall in proportion while batches are small, less and less beyond, and in the end not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from _shallue_laws import OPTIMIZERS, PROBLEMS, TURN, compare
from _shallue_search import JUDGED_BY, Plan, first_box, longest, searched, side_by_side
from _shallue_told import figure, notes

import rightbatch
from rightbatch import Target, Trial
from rightbatch.reproduction import Claim, Measured, Reproduction, Size, Store

NETS = Path(__file__).with_name("_shallue_nets.py")
SEARCHES = 2
"""At each size, with trials and seeds of their own: how much they differ is what tuning and seeds leave uncertain."""

SIZES = tuple(2 * 4**k for k in range(7))
PLANS: Mapping[Size, Mapping[str, Any]] = {
    "smoke": {
        "of": {"mnist": ("sgd",)},
        "sizes": (128, 512),
        "net": "small",
        "plan": Plan(trials=2, closer=0, moves=0, candidates=1, choosing=1, judging=2),
        "workers": 1,
    },
    "small": {
        "of": dict.fromkeys(PROBLEMS, tuple(OPTIMIZERS)),
        "sizes": SIZES,
        "net": "small",
        "plan": Plan(trials=16, closer=8, moves=2, candidates=2, choosing=2, judging=5),
        "workers": 2,
    },
    "paper": {
        "of": dict.fromkeys(PROBLEMS, tuple(OPTIMIZERS)),
        "sizes": tuple(2**k for k in range(16)),
        "net": "paper",
        "plan": Plan(trials=64, closer=32, moves=2, candidates=4, choosing=3, judging=7),
        "workers": 2,
    },
}

PUBLISHED_SLOPES = {("mnist", "sgd"): 0.29, ("mnist", "nesterov"): 0.61, ("fashion", "nesterov"): 0.37}
"""From 128 to 512, of the digitised curves."""


# ------------------------------------------------------------------------------------------------ what is claimed


read = partial(Claim, known_by="read in the paper", from_size="small")


def claims_of_curve(problem: str, optimizer: str) -> tuple[Claim, ...]:
    """The three regimes and the law."""
    name, words = f"{problem}, {optimizer}", f"{PROBLEMS[problem]}, {OPTIMIZERS[optimizer]}"
    slope = PUBLISHED_SLOPES.get((problem, optimizer))
    theirs = "" if slope is None else f" ({slope} in the paper, digitised)"
    return (
        read(
            f"{name}: perfect",
            f"{words}: examples to the goal at 8 over those at 2, perfect scaling within a quarter",
            published=1.0,
            tolerance=0.25,
        ),
        read(
            f"{name}: diminishing",
            f"{words}: the power by which steps fall from 128 to 512, between 0.2 and 0.8{theirs}",
            published=0.5,
            tolerance=0.0,
            slack=0.3,
            known_by="derived",
            from_size="smoke" if name == "mnist, sgd" else "small",
        ),
        read(
            f"{name}: none",
            f"{words}: the power by which steps fall from 2048 to 8192, at most 0.2: larger batches do not help",
            published=0.2,
            tolerance=0.0,
            relation="at most",
            known_by="derived",
        ),
        Claim(
            f"{name}: law",
            f"{words}: root mean square of the log residuals about S = S_min (1 + B_crit / B), at most 0.2 (0.06 to "
            "0.2 for curves of the paper)",
            published=0.2,
            tolerance=0.0,
            relation="at most",
            known_by="digitised",
            from_size="small",
        ),
    )


def claims_of_problem(problem: str) -> tuple[Claim, ...]:
    """What momentum changes."""
    words = PROBLEMS[problem]
    return (
        read(
            f"{problem}: momentum, small",
            f"{words}: steps of SGD over those of momentum at 2 and 8, no difference within a quarter",
            published=1.0,
            tolerance=0.25,
        ),
        read(
            f"{problem}: momentum, large",
            f"{words}: steps of SGD over those of momentum at 2048 and 8192, above 1",
            published=1.0,
            tolerance=0.0,
            relation="at least",
        ),
        read(
            f"{problem}: extended",
            f"{words}: where perfect scaling ends with momentum over where it ends with SGD, above 1",
            published=1.0,
            tolerance=0.0,
            relation="at least",
        ),
    )


CLAIMS = (
    *(claim for problem in PROBLEMS for optimizer in OPTIMIZERS for claim in claims_of_curve(problem, optimizer)),
    *(claim for problem in PROBLEMS for claim in claims_of_problem(problem)),
    Claim(
        "rates: small",
        f"The power of the batch size, up to {TURN}, by which the best effective rate grows: about linear",
        published=1.0,
        tolerance=0.25,
        known_by="digitised",
        from_size="small",
    ),
    read(
        "rates: no one power",
        f"That power less the one from {TURN} on, above 0: neither a linear rule nor one of the square root holds "
        "throughout",
        published=0.0,
        tolerance=0.0,
        relation="at least",
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


def run(size: Size, store: Store) -> Measured:
    """Two searches for each problem, batch size and optimizer, the optimizers side by side."""
    how = PLANS[size]
    cells: dict[str, Any] = {
        problem: {optimizer: {str(b): [] for b in how["sizes"]} for optimizer in optimizers}
        for problem, optimizers in how["of"].items()
    }
    for problem, optimizers in how["of"].items():
        for b in sorted(how["sizes"], reverse=True):  # small batches take longest: last
            for search in range(SEARCHES):
                words = f"{PROBLEMS[problem]}, {b}, search {search + 1}"
                found = store.unit(words, partial(search_cell, size, problem, b, search))
                for optimizer in optimizers:
                    cells[problem][optimizer][str(b)].append(found[optimizer])
    claims = [claim.identifier for claim in REPRODUCTION.claims_of(size)]
    return {"cells": cells, "claims": claims, "net": how["net"]}


def search_cell(size: Size, problem: str, batch_size: int, search: int) -> dict[str, Any]:
    """One search for each optimizer, by the same plan."""
    how = PLANS[size]
    with rightbatch.runs(f"{NETS}:{problem}_{how['net']}", workers=how["workers"], threads=1) as runs:
        facts = runs.facts
        assert facts.target is not None
        target = Target(facts.target, facts.target_quantity, facts.direction, rule="first_touch")
        trial = Trial(batch_size, 1.0, 0, longest(batch_size, facts.train_examples))
        return side_by_side(
            runs,
            {
                optimizer: searched(
                    runs.start,
                    target,
                    trial,
                    first_box(problem, optimizer, batch_size),
                    how["plan"],
                    keys_of(problem, optimizer, batch_size, search),
                    2 * JUDGED_BY * number_of(problem, optimizer, batch_size, search),
                )
                for optimizer in how["of"][problem]
            },
        )


def keys_of(problem: str, optimizer: str, batch_size: int, search: int) -> tuple[int, ...]:
    """What tells a search from all others, as numbers."""
    return list(PROBLEMS).index(problem), list(OPTIMIZERS).index(optimizer), batch_size.bit_length(), search


def number_of(problem: str, optimizer: str, batch_size: int, search: int) -> int:
    """Another number for each search, so that no two of them share a seed."""
    first, second, third, fourth = keys_of(problem, optimizer, batch_size, search)
    return ((first * len(OPTIMIZERS) + second) * 32 + third) * SEARCHES + fourth


REPRODUCTION = Reproduction(
    name="shallue",
    title="Steps to a goal by batch size, rate and momentum tuned at each",
    source="Shallue et al. 2019, Measuring the effects of data parallelism on neural network training "
    "(JMLR 20(112), arXiv:1811.03600), figures 1, 4 and 8",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 3 * 3600, "paper": 100 * 24 * 3600},
    smallest_effect=0.25,
    smallest_effect_reason="Steps of one trial differ by about a tenth between seeds and by as much again between "
    "searches: two cells are told apart where they differ by a quarter or more, which is where all tolerances are.",
    run=run,
    compare=partial(compare, CLAIMS),
    figure=figure,
    caption="Top: steps to the goal by batch size, with 95 % intervals (noise of tuning and of seeds), and the fitted "
    "law S = S_min (1 + B_crit / B). Dashed: the paper's simple CNN, digitised, another network and another goal: "
    "shapes can be compared, levels cannot. Bottom: the best effective rate of each of two searches.",
    notes=notes,
    seed=0,
)
