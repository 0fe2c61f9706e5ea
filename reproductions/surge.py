"""Surge: with Adam and sign descent, does the best learning rate rise, peak, and fall as batches grow? Li et al. 2024.

First on a quadratic with Gaussian gradients, where everything is known: the formulas against drawn steps, and two
controls in which nothing may fall, a diagonal Hessian and plain SGD. Then on a small convolutional network: the best
rate of one step of sign descent, and of ten as in the paper, beside what gradients and Hessian of the network predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from _surge_model import quadratic
from _surge_told import ROOT, compare, figure, notes

from rightbatch.loading import as_module
from rightbatch.reproduction import Claim, Measured, Reproduction, Size, Store

NET = Path(__file__).with_name("_surge_net.py")

COUPLING = 0.5
SIZES = tuple(2.0 ** (k / 2) for k in range(41))
DRAWN_AT = (1, 4, 16, 64, 256, 4096)
DRAWS: Mapping[Size, int] = {"smoke": 20_000, "small": 200_000, "paper": 2_000_000}

NET_SIZES = (1, 4, 16, 64, 256, 1024, 4096)
DRAWN: Mapping[int, int] = {1: 4000, 4: 4000, 16: 2000, 64: 1000, 256: 400, 1024: 150, 4096: 60}
"""Gradients whose signs are drawn: more of small batches, which scatter more."""

BENT_DRAWS = 40
"""Of them the curvature is looked at along so many."""

RATES = tuple(10 ** (k / 6) for k in range(-31, -15))
START = 0.8
"""The training loss that steps begin at."""

STEPS: Mapping[str, int] = {"one step": 1, "ten steps": 10}
STEPPED: Mapping[int, int] = {16: 100, 64: 60, 256: 30, 1024: 15, 4096: 6}
"""Trainings whose loss is looked at. With batches of less than 16 hundreds of them do not tell the best rate."""


computed = partial(Claim, known_by="computed with the authors' formulas")


def of_network(name: str, sentence: str, **more: Any) -> Claim:
    """Not looked at in the smallest size."""
    return Claim(name, f"Network, {sentence}", from_size="small", **more)


CLAIMS = (
    computed(
        "formula",
        "Quadratic: the best rate over drawn steps over that by equations 9 and 10, where furthest from 1",
        published=1.0,
        tolerance=0.02,
    ),
    computed(
        "peak",
        "Quadratic: the batch size of the largest best rate over B_noise of equation 14",
        published=1.0,
        tolerance=0.25,
    ),
    computed(
        "law",
        "Quadratic: the best rate over that of the law (equation 4), where furthest from 1, up to 4 B_noise",
        published=1.0,
        tolerance=0.1,
    ),
    computed("falls", "Quadratic: the best rate at the largest batch over the peak", 0.9, 0.0, relation="at most"),
    computed(
        "saturates",
        "Quadratic: the best rate at the largest batch over that without noise",
        published=1.0,
        tolerance=0.01,
    ),
    computed(
        "diagonal",
        "Control, a diagonal Hessian: the best rate at twice the batch over that at one, where it is least",
        published=1.0,
        tolerance=0.0,
        slack=1e-9,
        relation="at least",
    ),
    computed(
        "SGD",
        "Control, SGD on the same quadratic: the same",
        published=1.0,
        tolerance=0.0,
        slack=1e-9,
        relation="at least",
    ),
    of_network(
        "root",
        f"one step: the power of the batch size by which the best rate grows, from {ROOT[0]} to {ROOT[1]}",
        published=0.5,
        tolerance=0.0,
        slack=0.1,
        known_by="read in the paper",
    ),
    *(
        of_network(
            name,
            f"{steps}: the largest best rate over that at {NET_SIZES[-1]:,} (at least 1.1: it falls)",
            published=1.1,
            tolerance=0.0,
            relation="at least",
            known_by="read in the paper",
        )
        for name, steps in (("surge", "one step"), ("surge, ten steps", "ten steps, as in the paper"))
    ),
    of_network(
        "independent",
        "one step: the best rate over that of equations 9 and 10, where entries of a gradient are independent; "
        "geometric mean over sizes",
        published=1.0,
        tolerance=0.25,
        known_by="computed with the authors' formulas",
    ),
    of_network(
        "parabola",
        "one step: the best rate by the loss over that where the loss is a parabola, geometric mean over sizes",
        published=1.0,
        tolerance=0.25,
        known_by="derived",
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def net() -> ModuleType:
    """What needs torch: not before something runs."""
    return as_module(NET, NET.stem)()


def run(size: Size, store: Store) -> Measured:
    """The quadratic; then (but for smoke) the network."""
    measured: dict[str, Any] = {
        "exact": store.unit("quadratic, exact", exact),
        "drawn": store.unit("quadratic, drawn", partial(drawn, DRAWS[size])),
    }
    if size == "smoke":
        return measured
    measured["predicted"] = store.unit("network, predicted", partial(predict, store.folder))
    more = 5 if size == "paper" else 1
    measured["second order"] = {
        str(b): store.unit(
            f"network, second order, {b}", partial(second_order, store.folder, b, more * DRAWN[b], more * BENT_DRAWS)
        )
        for b in NET_SIZES
    }
    measured["rates"] = RATES
    for name, steps in STEPS.items():
        measured[name] = {
            str(b): store.unit(f"network, {name}, {b}", partial(lower, store.folder, b, steps, more * trainings))
            for b, trainings in STEPPED.items()
        }
    return measured


def exact() -> dict[str, Any]:
    """Best rates by the formulas at every size: with coupling, without, and of SGD."""
    coupled, diagonal = quadratic(COUPLING), quadratic(0.0)
    return {
        "sizes": SIZES,
        "coupling": COUPLING,
        "coupled": [coupled.best_rate(b) for b in SIZES],
        "diagonal": [diagonal.best_rate(b) for b in SIZES],
        "SGD": [coupled.best_rate_of_sgd(b) for b in SIZES],
        "noise_scale": coupled.noise_scale,
        "without_noise": coupled.without_noise,
    }


def drawn(draws: int) -> dict[str, float]:
    """Best rates over drawn steps."""
    generator = np.random.default_rng(1)
    return {str(b): quadratic(COUPLING).drawn_rate(b, draws, generator) for b in DRAWN_AT}


def predict(folder: Path) -> Any:
    """By the gradients and the Hessian of the network."""
    return net().predicted(folder, START, NET_SIZES)


def second_order(folder: Path, batch_size: int, draws: int, bent_draws: int) -> Any:
    """Of drawn signs: along the gradient, and along the Hessian."""
    return net().second_order(folder, START, batch_size, draws, bent_draws)


def lower(folder: Path, batch_size: int, steps: int, trainings: int) -> Any:
    """How much lower the loss is, `[trainings, rates]`."""
    return net().losses_after(folder, START, batch_size, RATES, steps, trainings)


REPRODUCTION = Reproduction(
    name="surge",
    title="Surge: the best learning rate of sign descent rises, peaks and falls as batches grow",
    source="Li et al. 2024, Surge phenomenon in optimal learning rate and batch size scaling (arXiv:2405.14578): "
    "equations 4, 9, 10, 14 and 16, and the experiment on Fashion-MNIST",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 12 * 3600},
    smallest_effect=0.05,
    smallest_effect_reason="Rates are a sixth of a decade apart, with a parabola between them; what is drawn leaves "
    "about 5 % in the best rate of a size, and the intervals say how much.",
    run=run,
    compare=partial(compare, CLAIMS),
    figure=figure,
    caption="The best rate of a step by batch size. Left, a quadratic with Gaussian gradients: lines by the formulas, "
    "points drawn. Right, a convolutional network on Fashion-MNIST, from the same weights, with 95 % intervals.",
    notes=notes,
    seed=0,
)
