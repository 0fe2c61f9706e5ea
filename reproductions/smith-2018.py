"""Smith, Kindermans, Ying and Le 2018: don't decay the learning rate, increase the batch size.

Where a schedule divides the rate, the batch is multiplied by the same factor instead: the noise scale falls alike, and
so should the training loss, in as many epochs and fewer updates. Two controls must not agree: dividing and multiplying
at once, and doing neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt
import numpy as np

from rightbatch.loading import as_module
from rightbatch.means import mean_of, out_of_logs
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held

NET = Path(__file__).with_name("_smith-2018_net.py")

Phases = tuple[tuple[int, int, float], ...]
"""(epochs, batch size, rate), one after the other."""

EPOCHS: Mapping[Size, tuple[int, ...]] = {"smoke": (1, 1, 1), "small": (8, 4, 4, 4), "paper": (8, 4, 4, 4)}
SEEDS: Mapping[Size, int] = {"smoke": 1, "small": 10, "paper": 50}
FACTOR = 4
FIRST_BATCH = 32

WAYS: Mapping[str, tuple[float, float]] = {
    "rate divided": (1, 1 / FACTOR),
    "batch multiplied": (FACTOR, 1),
    "both": (FACTOR, 1 / FACTOR),
    "neither": (1, 1),
}
"""What each change does to batch and rate."""

OPTIMIZERS: Mapping[str, tuple[str, float, float]] = {
    "SGD": ("SGD", 0.0, 0.4),
    "momentum": ("SGD", 0.9, 0.05),
    "Adam": ("Adam", 0.0, 0.003),
}
"""What it is, its momentum, and a first rate at which noise holds the loss up: a change of it can be seen."""


def claims_of(optimizer: str) -> tuple[Claim, ...]:
    """What is said of one optimizer, of the losses after the first change."""
    one = partial(Claim, from_size="small", known_by="reported by others")
    return (
        one(
            f"{optimizer}: same loss",
            f"{optimizer}: training loss, batch multiplied over rate divided, geometric mean over the epochs after the "
            "first change",
            published=1.0,
            tolerance=0.1,
        ),
        one(
            f"{optimizer}: same accuracy",
            f"{optimizer}: last validation accuracy, batch multiplied less rate divided, in points",
            published=0.0,
            tolerance=0.0,
            slack=0.5,
        ),
        Claim(
            f"{optimizer}: both",
            f"Control, {optimizer}: last training loss, both at once over rate divided",
            published=1.02,
            tolerance=0.0,
            relation="at least",
            known_by="derived",
            from_size="small",
        ),
        Claim(
            f"{optimizer}: neither",
            f"Control, {optimizer}: last training loss, neither over rate divided",
            published=1.1,
            tolerance=0.0,
            relation="at least",
            known_by="derived",
            from_size="small",
        ),
    )


CLAIMS = (
    Claim(
        "updates",
        "Updates of a whole training, batch multiplied over rate divided (the paper's: 29,000 over 80,000, by a factor "
        "of 5 at other epochs); at most 0.6",
        published=0.6,
        tolerance=0.0,
        relation="at most",
        known_by="derived",
    ),
    *(claim for optimizer in OPTIMIZERS for claim in claims_of(optimizer)),
)


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def net() -> ModuleType:
    """What needs torch: not before something runs."""
    return as_module(NET, "smith_2018_net")()


def phases(way: str, rate: float, epochs: Sequence[int]) -> Phases:
    """Of one way to change them."""
    of_batch, of_rate = WAYS[way]
    return tuple(
        (count, round(FIRST_BATCH * of_batch**change), rate * of_rate**change) for change, count in enumerate(epochs)
    )


def run(size: Size, store: Store) -> Measured:
    """Every way with every optimizer; in the smallest size with momentum alone."""
    optimizers, ways = tuple(OPTIMIZERS), tuple(WAYS)
    if size == "smoke":
        optimizers, ways = ("momentum",), ("rate divided", "batch multiplied")
    return {
        "epochs": EPOCHS[size],
        "trainings": {
            optimizer: {
                way: [
                    store.unit(f"{optimizer}, {way}, seed {seed}", partial(train, optimizer, way, EPOCHS[size], seed))
                    for seed in range(SEEDS[size])
                ]
                for way in ways
            }
            for optimizer in optimizers
        },
    }


def train(optimizer: str, way: str, epochs: Sequence[int], seed: int) -> Any:
    """One training."""
    kind, momentum, rate = OPTIMIZERS[optimizer]
    return net().trained(phases(way, rate, epochs), kind, momentum, seed)


# ---------------------------------------------------------------------------------------------- what came of it


def log_ratios(upper: Sequence[Mapping[str, Any]], lower: Sequence[Mapping[str, Any]], begin: int) -> list[float]:
    """Of each seed: the mean log ratio of training losses from an epoch on."""
    return [
        float(np.mean(np.log(np.array(a["loss"][begin:]) / b["loss"][begin:])))
        for a, b in zip(upper, lower, strict=True)
    ]


def of_optimizer(measured: Measured, optimizer: str) -> dict[str, Interval | None]:
    """What is claimed of it, seed by seed: both ways begin with the same weights and see the same examples."""
    ways = measured["trainings"][optimizer]
    divided, multiplied = ways["rate divided"], ways["batch multiplied"]
    return {
        "same loss": out_of_logs(mean_of(log_ratios(multiplied, divided, measured["epochs"][0]))),
        "same accuracy": mean_of(
            [100 * (a["accuracy"][-1] - b["accuracy"][-1]) for a, b in zip(multiplied, divided, strict=True)]
        ),
        "both": out_of_logs(mean_of(log_ratios(ways["both"], divided, -1))),
        "neither": out_of_logs(mean_of(log_ratios(ways["neither"], divided, -1))),
    }


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Updates are counted; the rest with 95 % intervals over seeds."""
    momentum = measured["trainings"]["momentum"]
    updates = momentum["batch multiplied"][0]["updates"] / momentum["rate divided"][0]["updates"]
    found = {
        f"{optimizer}: {what}": interval
        for optimizer in measured["trainings"]
        if len(measured["epochs"]) > 3
        for what, interval in of_optimizer(measured, optimizer).items()
    }
    return (CLAIMS[0].compare(updates, 0.0), *held(CLAIMS, found))


def notes(measured: Measured) -> tuple[str, ...]:
    """The last losses and accuracies."""
    said = []
    for optimizer, ways in measured["trainings"].items():
        for way, runs in ways.items():
            loss = mean_of([one["loss"][-1] for one in runs])
            accuracy = mean_of([100 * one["accuracy"][-1] for one in runs])
            said.append(
                f"{optimizer}, {way}: {runs[0]['updates']:,} updates, training loss {units.interval(loss)}, validation "
                f"accuracy {units.interval(accuracy)} %."
            )
    said.append(
        "The paper trains a residual network on CIFAR-10; here a network with one hidden layer is trained on 20,000 "
        f"images of Fashion-MNIST, from batches of {FIRST_BATCH}, with three changes by a factor of {FACTOR}."
    )
    return tuple(said)


def figure(measured: Measured) -> alt.FacetChart:
    """Training loss by epoch, a panel for each optimizer."""
    rows = [
        {"optimizer": optimizer, "way": way, "epoch": epoch + 1, "loss": float(np.exp(np.mean(np.log(losses))))}
        for optimizer, ways in measured["trainings"].items()
        for way, runs in ways.items()
        for epoch, losses in enumerate(zip(*(one["loss"] for one in runs), strict=True))
    ]
    return (
        alt.Chart()
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", title="epochs"),
            y=alt.Y("loss:Q", scale=alt.Scale(type="log", zero=False, nice=False), title="training loss"),
            color=alt.Color("way:N", title=None, sort=list(WAYS)),
            strokeDash=alt.StrokeDash("way:N", legend=None, sort=list(WAYS)),
        )
        .properties(width=220, height=200)
        .facet(column=alt.Column("optimizer:N", title=None, sort=list(OPTIMIZERS)), data=alt.Data(values=rows))
        .resolve_scale(y="independent")
    )


REPRODUCTION = Reproduction(
    name="smith-2018",
    title="Increase the batch size instead of decaying the learning rate",
    source="Smith, Kindermans, Ying and Le 2018, Don't decay the learning rate, increase the batch size "
    "(arXiv:1711.00489), sections 3 and 5.1",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 12 * 3600},
    smallest_effect=0.05,
    smallest_effect_reason="Ten seeds, each of which begins with the same weights and sees the same examples both "
    "ways, leave about 2 % in a ratio of training losses.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Training loss by epoch, geometric means over seeds; changes after the epochs 8, 12 and 16.",
    notes=notes,
    seed=0,
)
