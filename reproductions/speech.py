"""wav2vec 2.0: gradients and losses of speech models pre-trained with batches of 87.5 seconds to 80 minutes.

The authors published how much gradients scatter at seven batch sizes along training, and losses at two of them. Do the
small batches say what the large ones will do? Gradients of independent examples scatter by 1 / sqrt(batch size).
What their files call a variance is the mean over all entries of a standard deviation, over ten gradients.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import altair as alt
import numpy as np

from rightbatch.bundled.data import DataFile, find
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store

ADDRESS = "https://raw.githubusercontent.com/nikvaessen/w2v2-batch-size/main/plot"
SHA256 = {
    "ssl_grad_var/merged.csv": "efa801a9ba1fd390ff0f21132c44866f1d5ea736a1bc792e88139f44dfff641b",
    "ssl_train/ssl_val.csv": "c6e25d17b0c7c11e95c575e05213a7141b843ee3656340e1207d41a4599ad69e",
}
SECONDS = {"87.5 sec": 87.5, "150 sec": 150.0, "5 min": 300.0, "10 min": 600.0} | {
    f"{minutes} min": 60.0 * minutes for minutes in (20, 40, 80)
}
SMALL, LARGE = (150.0, 300.0, 600.0), (1200.0, 2400.0, 4800.0)
"""Batch sizes in seconds of speech. Those of 87.5 are left out: at the start their gradients are scaled otherwise."""

LOSSES = {"254138": (90.0, "5 %"), "254140": (720.0, "5 %"), "254137": (90.0, "50 %"), "254139": (720.0, "50 %")}
"""Runs by the authors' numbers: seconds of speech in a batch, and the share of it that is masked."""

GUESSING = math.log(101)
"""The loss of a model that has learnt nothing: the right one among 100 others."""

BLOCK = 8
"""Neighbouring points of a training are alike: so many are drawn together."""

CLAIMS = (
    Claim(
        "start",
        "Before training, the same weights: scatter at 20, 40, 80 minutes over that predicted from 2.5, 5, 10 by "
        "1 / sqrt(B), geometric mean",
        published=1.0,
        tolerance=0.1,
        known_by="derived",
    ),
    Claim(
        "along",
        "Along training, every size with its own weights: the same, geometric mean over 80 points",
        published=1.0,
        tolerance=0.25,
        known_by="derived",
    ),
    Claim(
        "equal data",
        "5 % masked, were the loss decided by how much speech was seen: that with batches of 90 seconds over that "
        "with 720 after as much, geometric mean",
        published=1.0,
        tolerance=0.1,
        known_by="derived",
    ),
    Claim(
        "equal steps",
        "5 % masked: validation loss with batches of 90 seconds over that with 720 after as many steps, geometric mean",
        published=1.0,
        tolerance=0.0,
        relation="at least",
        known_by="read in the paper",
    ),
    Claim(
        "too small",
        "50 % masked: the least validation loss with batches of 90 seconds over that of guessing",
        published=1.0,
        tolerance=0.01,
        relation="at least",
        known_by="read in the paper",
    ),
)


def run(size: Size, store: Store) -> Measured:
    """The same at each size: everything there is."""
    return {"scatter": store.unit("scatter", scatter), "losses": store.unit("losses", losses)}


def published(path: str) -> Path:
    """A file of theirs."""
    return find(DataFile(f"measurements/w2v2/{path}", f"{ADDRESS}/{path}", SHA256[path]))


def scatter() -> dict[str, dict[str, float]]:
    """By training step and seconds of speech in a batch."""
    found: dict[str, dict[str, float]] = {}
    with published("ssl_grad_var/merged.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["train_step"], {})[f"{SECONDS[row['batch_size']]:g}"] = float(row["average_variance"])
    return found


def losses() -> dict[str, dict[str, float]]:
    """By run and training step, on the validation data."""
    found: dict[str, dict[str, float]] = {name: {} for name in LOSSES}
    with published("ssl_train/ssl_val.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name in LOSSES:
                if row[f"{name} - val/loss"]:
                    found[name][row["Step"]] = float(row[f"{name} - val/loss"])
    return found


# ---------------------------------------------------------------------------------------------- what came of it


def off(of: Mapping[str, float], exponent: float = -0.5) -> float:
    """Scatter at the large sizes over that predicted from the small ones, geometric mean."""
    level = np.mean([math.log(of[f"{b:g}"]) - exponent * math.log(b) for b in SMALL])
    return math.exp(np.mean([math.log(of[f"{b:g}"]) - level - exponent * math.log(b) for b in LARGE]))


def slope(of: Mapping[str, float], sizes: tuple[float, ...]) -> float:
    """By which power of the batch size it falls."""
    return float(np.polyfit(np.log(sizes), [math.log(of[f"{b:g}"]) for b in sizes], 1)[0])


def along(measured: Measured) -> Interval:
    """Over a training, with the 95 % interval of blocks of its points."""
    logs = np.log([off(of) for step, of in measured["scatter"].items() if step != "0"])
    generator, drawn = np.random.default_rng(0), []
    for _ in range(2000):
        starts = generator.integers(len(logs) - BLOCK + 1, size=len(logs) // BLOCK)
        drawn.append(np.mean([logs[start : start + BLOCK].mean() for start in starts]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high)))


def ratios(measured: Measured, steps: float) -> dict[str, float]:
    """Loss at 90 seconds over that at 720, by the steps of the latter; the former makes `steps` times as many."""
    small, large = measured["losses"]["254138"], measured["losses"]["254140"]
    return {
        at: small[f"{steps * int(at):.0f}"] / loss for at, loss in large.items() if f"{steps * int(at):.0f}" in small
    }


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Of single runs there is no interval: what is smaller than the smallest effect cannot be told."""
    mean = {
        name: math.exp(np.mean(np.log(list(ratios(measured, steps).values()))))
        for name, steps in (("data", 8), ("steps", 1))
    }
    guessing = min(measured["losses"]["254137"].values()) / GUESSING
    start, trained, data, steps, small = CLAIMS
    see = partial(Claim.compare, smallest_effect=REPRODUCTION.smallest_effect)
    return (
        start.compare(off(measured["scatter"]["0"]), 0.0),
        trained.judge(along(measured)),
        see(data, mean["data"]),
        see(steps, mean["steps"]),
        small.compare(guessing, 0.0),
    )


def notes(measured: Measured) -> tuple[str, ...]:
    """Exponents, and which part of it could not be done."""
    start, trained = measured["scatter"]["0"], [of for step, of in measured["scatter"].items() if step != "0"]
    parts = {
        name: np.median([slope(of, sizes) for of in trained]) for name, sizes in (("small", SMALL), ("large", LARGE))
    }
    said = ", ".join(f"{units.significant(r)} at {int(at):,}" for at, r in ratios(measured, 8).items())
    return (
        f"Before training, scatter falls with the power {slope(start, SMALL):.2f} of the batch size from 2.5 to 10 "
        f"minutes and {slope(start, LARGE):.2f} from 20 to 80. Along training the medians are {parts['small']:.2f} and "
        f"{parts['large']:.2f}: there the weights are those that each batch size has come to, and the power "
        "mixes two things.",
        f"5 % masked, loss at 90 seconds over that at 720 after as much speech, by steps of the latter: {said}.",
        "The paper says that quality after fine-tuning depends mainly on how much speech was seen. The loss in "
        "pre-training, which is compared here, is another quantity; and nothing says that the learning rate was tuned "
        "at each size.",
        "Losses at all seven batch sizes are not among the files used here: two sizes at two shares of masking are.",
        "Of each batch size there is one training. Without others its scatter is not known.",
    )


def figure(measured: Measured) -> alt.HConcatChart:
    """Scatter against batch size at some points of training; losses against speech seen."""
    steps = ("0", "5000", "50000", "400000")
    rows = [
        {"minutes": b / 60, "scatter": measured["scatter"][step][f"{b:g}"], "steps": f"{int(step):,}"}
        for step in steps
        for b in SMALL + LARGE
    ]
    left = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("minutes:Q", scale=alt.Scale(type="log"), title="minutes of speech in a batch"),
            y=alt.Y("scatter:Q", scale=alt.Scale(type="log"), title="deviation of a gradient's entries"),
            color=alt.Color("steps:N", title="steps", sort=[f"{int(step):,}" for step in steps]),
        )
        .properties(width=260, height=220)
    )
    rows = [
        {"hours": int(step) * LOSSES[name][0] / 3600, "loss": loss, "what": f"{LOSSES[name][0]:g} s, {LOSSES[name][1]}"}
        for name, by_step in measured["losses"].items()
        for step, loss in by_step.items()
    ]
    right = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("hours:Q", scale=alt.Scale(type="log"), title="hours of speech seen"),
            y=alt.Y("loss:Q", scale=alt.Scale(type="log"), title="validation loss"),
            color=alt.Color("what:N", title="batch, masked"),
        )
        .properties(width=260, height=220)
    )
    return alt.hconcat(left, right).resolve_scale(color="independent")


REPRODUCTION = Reproduction(
    name="speech",
    title="wav2vec 2.0: do small batches say what large ones do?",
    source="Vaessen and van Leeuwen 2024, The effect of batch size on contrastive self-supervised speech "
    "representation learning (arXiv:2402.13723), and the files of its figures "
    "(github.com/nikvaessen/w2v2-batch-size, MIT)",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 60, "paper": 60},
    smallest_effect=0.1,
    smallest_effect_reason="One training of each kind: losses of two trainings that differ by their seed alone "
    "are taken to differ by up to 10 %.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Left, how much the entries of a gradient scatter by batch size, after some steps of training. Right, "
    "validation losses by how much speech was seen, for batches of 90 and 720 seconds and two shares of masking.",
    notes=notes,
    seed=0,
)
