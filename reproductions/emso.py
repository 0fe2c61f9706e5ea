"""EMSO: does it pay to use a mini-batch harder before it is thrown away? Li et al. 2014; Wang et al. 2017.

l2-logistic regression on three published data sets: tuned mini-batch SGD against EMSO with 1, 5 and 20 inner steps,
with the subproblems solved, without the proximal term, and averaged over four workers; at equal examples, at equal
gradient evaluations, and where a batch costs something by itself. And on a synthetic problem, how fast exact proximal
steps learn at every batch size. Whatever is tuned is tuned on seeds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from _emso_told import CHEAP, DEAR, compare, figure, notes

from rightbatch.loading import as_module
from rightbatch.reproduction import Claim, Measured, Reproduction, Size, Store

WORK = Path(__file__).with_name("_emso_work.py")

EXAMPLES = 2**17
TARGET = 1e-3
"""Above the least loss: how far down costs are counted."""

DATA = ("a9a", "skin", "w8a")
SIZES = (16, 64, 256, 1024, 4096, 16384)
SOME = (16, 256, 4096)
METHODS: Mapping[str, tuple[int, ...]] = {
    "SGD": SIZES,
    "EMSO, 1 step": SOME,
    "EMSO, 5 steps": SIZES,
    "EMSO, 20 steps": SIZES,
    "5 steps, no proximal term": SOME,
    "20 steps, no proximal term": SOME,
    "four workers": (256, 1024),
}
"""At which sizes; those of workers are each worker's."""

COUNTED = ("SGD", "EMSO, 5 steps", "EMSO, 20 steps")
"""The methods whose cost to the target is told; their larger batches go on for longer, to get there."""

LONGER: Mapping[str, Mapping[int, int]] = {
    "SGD": {1024: 2, 16384: 10},
    "EMSO, 5 steps": {4096: 2, 16384: 4},
    "EMSO, 20 steps": {4096: 2, 16384: 4},
}
"""By how much; SGD at 4096 for as many gradient evaluations as EMSO with 20 steps makes."""

SEEDS: Mapping[Size, int] = {"smoke": 10, "small": 20, "paper": 20}
SLOPES: Mapping[Size, Mapping[str, tuple[int, ...]]] = {
    "smoke": {"sizes": (16, 256), "examples": tuple(2**k for k in range(13, 16))},
    "small": {"sizes": (16, 64, 256, 1024, 4096), "examples": tuple(2**k for k in range(14, 19))},
    "paper": {"sizes": (16, 64, 256, 1024, 4096), "examples": tuple(2**k for k in range(14, 21))},
}
"""Batch sizes and numbers of examples on the synthetic problem."""


# ------------------------------------------------------------------------------------------------- what is claimed

derived = partial(Claim, known_by="derived")


def of_slopes(kind: str) -> tuple[Claim, Claim]:
    """What the theory says of one kind of loss."""
    return (
        derived(
            f"{kind}: EMSO",
            f"{kind} losses, EMSO solved: the slope of suboptimality in examples at the largest batch size less that "
            f"at 16",
            published=0.0,
            tolerance=0.0,
            slack=0.1,
        ),
        derived(
            f"{kind}: SGD",
            f"{kind} losses, tuned SGD: the same, where its few steps are too few (at most -0.3)",
            published=-0.3,
            tolerance=0.0,
            relation="at most",
            from_size="small",
        ),
    )


def of_data(data: str) -> tuple[Claim, ...]:
    """What the theory says of a data set; ratios of means over seeds."""
    one = partial(derived, published=1.0, from_size="small")
    return (
        one(
            f"{data}: level",
            f"{data}: EMSO solved, one constant of its schedule: suboptimality at 4096 over that at 16, equal examples",
            tolerance=1.0,
            relation="at most",
        ),
        one(
            f"{data}: SGD",
            f"{data}: SGD tuned at each size: the same ratio, above 1",
            tolerance=0.0,
            relation="at least",
        ),
        one(
            f"{data}: proximal term",
            f"{data}: 20 inner steps at batch size 16: suboptimality without over with the proximal term, both tuned",
            tolerance=0.0,
            relation="at least",
        ),
        one(
            f"{data}: workers",
            f"{data}: four workers with batches of 1024, averaged, over one batch of 4096 (20 steps)",
            tolerance=0.5,
            relation="at most",
        ),
        one(
            f"{data}: equal evaluations",
            f"{data}: batch size 4096, equal gradient evaluations: suboptimality of EMSO with 20 steps over SGD's",
            tolerance=0.0,
            relation="at least",
        ),
        one(
            f"{data}: {CHEAP}",
            f"{data}: gradient evaluations to {TARGET:g} above the least loss, best size: EMSO over SGD",
            tolerance=0.05,
            relation="at least",
        ),
        one(
            f"{data}: {DEAR}",
            f"{data}: the same cost where a batch costs as much as a million gradients",
            tolerance=0.0,
            relation="at most",
        ),
    )


CLAIMS = (
    *of_slopes("strongly convex"),
    *of_slopes("Lipschitz"),
    *(claim for data in DATA for claim in of_data(data)),
)


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def work() -> ModuleType:
    """What needs torch: not before something runs."""
    return as_module(WORK, WORK.stem)()


def looks(method: str, size: int) -> dict[str, float]:
    """After how many examples a method is looked at: all the same, SGD also where EMSO has made as many evaluations."""
    found: dict[str, float] = {"examples": EXAMPLES}
    if method == "SGD" and size == 4096:
        found["evaluations"] = 20 * EXAMPLES
    elif size in LONGER.get(method, {}):
        found["more"] = EXAMPLES * LONGER[method][size]
    return found


def run(size: Size, store: Store) -> Measured:
    """Slopes, then (but for smoke) every method at every size of every data set."""
    plan, seeds = SLOPES[size], SEEDS[size]
    of = {"EMSO": lambda *given: work().of_emso(*given), "SGD": lambda *given: work().of_sgd(*given)}
    measured: dict[str, Any] = {"examples": plan["examples"], "slopes": {}, "data": {}}
    for kind in ("strongly convex", "Lipschitz"):
        for method in of if size != "smoke" else ("EMSO",):
            measured["slopes"][f"{kind}: {method}"] = {
                str(one): store.unit(
                    f"slope, {kind}, {method}, {one}", partial(of[method], kind, one, plan["examples"], seeds)
                )
                for one in plan["sizes"]
            }
    if size != "smoke":
        measured["data"] = {data: of_one(data, seeds, store) for data in DATA}
    return measured


def of_one(data: str, seeds: int, store: Store) -> dict[str, Any]:
    """One data set: what each method at each size was tuned to and came to."""
    found: dict[str, Any] = {
        "solved": store.unit(f"{data}, solved", lambda: work().solved(data, 256, SIZES, EXAMPLES, seeds)),
        "gradient_seconds": store.unit(f"{data}, seconds", lambda: work().gradient_seconds(data)),
        "methods": {},
    }
    for method, sizes in METHODS.items():
        found["methods"][method] = {}
        for size in sizes:
            at, target = looks(method, size), TARGET if method in COUNTED else None
            tuned = store.unit(f"{data}, {method}, {size}: tuned", partial(tune, data, method, size, at, target))
            found["methods"][method][str(size)] = {
                "tuned": tuned,
                "measured": store.unit(
                    f"{data}, {method}, {size}", partial(measure, data, method, size, tuned, at, target, seeds)
                ),
            }
    return found


def tune(*given: Any) -> Any:
    """On seeds of its own."""
    return work().tuned(*given)


def measure(*given: Any) -> Any:
    """With what was tuned, on other seeds."""
    return work().measured(*given)


REPRODUCTION = Reproduction(
    name="emso",
    title="EMSO: using a mini-batch harder before it is thrown away",
    source="Li, Zhang, Chen and Smola 2014, Efficient Mini-batch Training for Stochastic Optimization (KDD), as "
    "restated and corrected by Wang, Wang and Srebro 2017, Memory and Communication Efficient Distributed Stochastic "
    "Optimization with Minibatch Prox (COLT, arXiv:1702.06269): theorems 4 and 5, and the remarks on EMSO",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 24 * 3600},
    smallest_effect=0.05,
    smallest_effect_reason="20 seeds scatter by 20 % and less, so that their means are known to about 10 % and the "
    "ratio of two of them to about 15 %; slopes, on the same examples in the same order, to 0.05.",
    run=run,
    compare=partial(compare, CLAIMS),
    figure=figure,
    caption="Loss above the least one after 131,072 examples, by batch size; every method tuned at every size on seeds "
    "of its own, means of 20 others. EMSO solved: one constant of the published schedule for all sizes.",
    notes=notes,
    seed=0,
)
