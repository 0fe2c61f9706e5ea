"""Thoma 2017, section 5.9: batch size against time per epoch, epochs until early stopping, total time and accuracy.

First as in the thesis: Adam at one rate for all sizes, stopped where validation accuracy has not improved for ten
epochs. Then the step that it did not take: the rate tuned at every size; and patience counted in steps or seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _thoma_told import best_valid, compare, figure, notes, of_runs, patience_of

import rightbatch
from rightbatch.reproduction import Claim, Measured, Reproduction, Size, Store

NET = Path(__file__).with_name("_thoma_net.py")

SIZES = (8, 16, 32, 64, 128, 512)
PATIENCE = 10
"""Epochs."""

LOOPS: Mapping[Size, str] = {"smoke": "smoke", "small": "quarter", "paper": "whole"}
TRAIN_EXAMPLES: Mapping[Size, int] = {"smoke": 200, "small": 6000, "paper": 45_000}
RATES: Mapping[Size, float] = {"smoke": 1e-3, "small": 1e-3, "paper": 1e-4}
"""Rate times steps in an epoch is about that of the thesis (1e-4 with 45,000 images) with fewer images too."""

SEEDS = 10
TUNED_BY = (0, 1)
JUDGED_BY = (5, 6, 7, 8, 9)
"""Seeds that choose a rate, and others that tell how good it is."""

WIDENED = 2
"""So often is a rate tried that is beyond the first or last one, where that was best."""

STEADY, STEADY_BY = 128, (5, 6)
"""Who trains until as many steps bring nothing as ten epochs have at 16: 80 epochs here, 313 at 512.

Two seeds, where five were planned: the first ones did not stop for some hundred epochs.
"""

LONGER_BY = (7, 8, 9)
"""Who trains until as many seconds bring nothing as ten epochs take at 16, beside those that are longer still."""

SMOKE_SIZES = (32, 128)


def in_points(identifier: str, sentence: str, published: float, **more: Any) -> Claim:
    """Of two test accuracies, in points."""
    return Claim(identifier, f"Test accuracy, {sentence}, in points", published=published, tolerance=0.0, **more)


one_rate = partial(in_points, relation="at least", known_by="read in the paper", from_size="small")
nothing = partial(in_points, published=0.0, slack=1.5, known_by="derived", from_size="small")

CLAIMS = (
    Claim(
        "law",
        "Seconds of an epoch by a + b / m: how far the furthest of the sizes is off, as a share (at most 0.1)",
        published=0.1,
        tolerance=0.0,
        relation="at most",
        known_by="derived",
        from_size="small",
    ),
    Claim(
        "seconds",
        "Seconds of an epoch at 8 over those at 128: more than 1 (6.6 in the thesis, on a GPU)",
        published=1.0,
        tolerance=0.0,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        "epochs",
        "One rate: epochs until the stop at 128 over those at 8: more than 1 (1.45 in the thesis)",
        published=1.0,
        tolerance=0.0,
        relation="at least",
        known_by="derived",
        from_size="small",
    ),
    Claim(
        "time",
        "One rate: seconds until the stop at 8 over those at 64: more than 1 (4.9 in the thesis)",
        published=1.0,
        tolerance=0.0,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
    one_rate("16 over 8", "one rate: 16 less 8, above 0 (2.23 in the thesis)", 0.0),
    one_rate("16 over 128", "one rate: 16 less 128, above 0 (1.93 in the thesis)", 0.0),
    one_rate("16 over 512", "one rate: 16 less 512 (not in the thesis), above 0", 0.0),
    nothing("16 over 8, tuned", "rate tuned at each size: 16 less 8 (0: it was the rate)"),
    nothing("16 over 128, tuned", "rate tuned at each size: 16 less 128 (0: it was the rate)"),
    nothing("16 over 512, tuned", "rate tuned at each size: 16 less 512 (0: it was the rate)"),
    nothing("16 over 128, steps", "one rate, patience of as many steps for all: 16 less 128 (0: it was the patience)"),
    nothing("16 over 128, seconds", "one rate, patience of as many seconds for all: 16 less 128 (0: the same)"),
    Claim(
        "runs",
        "Everything runs: trainings at two sizes with two seeds (at least 4)",
        published=4.0,
        tolerance=0.0,
        relation="at least",
        known_by="derived",
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


def run(size: Size, store: Store) -> Measured:
    """Seconds of an epoch; then one rate, tuned rates, and long patience."""
    sizes = SMOKE_SIZES if size == "smoke" else SIZES
    rate, examples = RATES[size], TRAIN_EXAMPLES[size]
    measured: dict[str, Any] = {"rate": rate, "train_examples": examples, "patience": PATIENCE, "epoch_seconds": {}}
    if size != "smoke":  # at smoke nothing is timed, so that it comes to the same whenever it runs
        measured["epoch_seconds"] = store.unit("seconds", partial(epoch_seconds, store.folder, size, sizes))
    seeds = range(2 if size == "smoke" else SEEDS)
    measured["one_rate"] = [one for seed in seeds for one in trained(store, size, sizes, rate, [seed], PATIENCE)]
    if size == "smoke":
        return measured
    measured["tuned"] = {str(b): tuned(store, size, b, rate, measured["one_rate"]) for b in sizes}
    for name, unit, seeds in (("steady", "steps", STEADY_BY), ("longer", "seconds", LONGER_BY)):
        patience = round(patience_of(measured, STEADY, unit))
        measured[name] = trained(store, size, (STEADY,), rate, seeds, patience)
    return measured


def trained(
    store: Store, size: Size, sizes: Sequence[int], rate: float, seeds: Sequence[int], patience: int
) -> list[dict[str, Any]]:
    """Trainings at some sizes with some seeds, one unit; of each its validation and test accuracies by epoch."""
    words = f"{', '.join(map(str, sizes))} at {rate:.3g}, patience {patience}, "
    words += f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    found: list[dict[str, Any]] = store.unit(
        words, partial(curves_of, store.folder, size, sizes, rate, seeds, patience)
    )
    return found


def curves_of(
    folder: Path, size: Size, sizes: Sequence[int], rate: float, seeds: Sequence[int], patience: int
) -> list[dict[str, Any]]:
    """Train by `sweep`, and read the curves from its study."""
    study = folder / ("thoma.study.db" if patience == PATIENCE else f"thoma-{patience}.study.db")
    with contextlib.suppress(rightbatch.InsufficientEvidence):  # curves are wanted here, not an answer
        rightbatch.sweep(
            f"{NET}:{LOOPS[size]}",
            sizes,
            study=study,
            seeds=seeds,
            rates=[rate],
            until="patience",
            patience=patience,
            patience_unit="evaluations",
            target=0.15,
            direction="max",
            present=(16, rate),
            train_examples=TRAIN_EXAMPLES[size],
            threads=1,
            workers=1 if size == "smoke" else 2,
        )
    with rightbatch.Study.open(study) as kept:
        return of_runs(kept.runs(), sizes, rate, seeds)


def epoch_seconds(folder: Path, size: Size, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Training seconds of an epoch, every repeat: a step's times the steps."""
    records = rightbatch.profile(
        f"{NET}:{LOOPS[size]}",
        sizes,
        study=folder / "thoma.study.db",
        direction="max",
        train_examples=TRAIN_EXAMPLES[size],
        threads=1,
    )
    steps = {b: -(-TRAIN_EXAMPLES[size] // b) for b in sizes}
    return {
        str(one.batch_size): [second * steps[one.batch_size] for second in one.seconds]
        for one in records
        if one.batch_size in steps
    }


def tuned(store: Store, size: Size, batch_size: int, rate: float, known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rates half a decade apart about the one rate, further where the first or last is best; the best one's trainings.

    `known` are those at the one rate.
    """
    root = 10**0.5
    own = [one for one in known if one["batch_size"] == batch_size]

    def at(candidate: float, seeds: Sequence[int]) -> list[dict[str, Any]]:
        if candidate == rate:
            return [one for one in own if one["seed"] in seeds]
        return trained(store, size, (batch_size,), candidate, seeds, PATIENCE)

    tried = {candidate: best_valid(at(candidate, TUNED_BY)) for candidate in (rate / root, rate, rate * root)}
    for _ in range(WIDENED):
        best = max(tried, key=lambda candidate: tried[candidate])
        if min(tried) < best < max(tried):
            break
        beyond = best / root if best == min(tried) else best * root
        tried[beyond] = best_valid(at(beyond, TUNED_BY))
    best = max(tried, key=lambda candidate: tried[candidate])
    return {
        "rate": best,
        "at_edge": not min(tried) < best < max(tried),
        "tried": {f"{candidate:.3g}": valid for candidate, valid in sorted(tried.items())},
        "runs": at(best, JUDGED_BY),
    }


REPRODUCTION = Reproduction(
    name="thoma",
    title="Batch size, time and accuracy with early stopping on CIFAR-100",
    source="Thoma 2017, Analysis and optimization of convolutional neural network architectures "
    "(arXiv:1707.09725), section 5.9 and table 5.9",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 8 * 3600, "paper": 1000 * 3600},
    smallest_effect=0.05,
    smallest_effect_reason="Trainings of one size differ by 0.8 points in the thesis: ten of each side tell 0.8 points "
    "apart, five of each side 1.2. Of an accuracy of about 28 % that is 3 and 4 %.",
    run=run,
    compare=partial(compare, CLAIMS),
    figure=figure,
    caption="By batch size: seconds of an epoch, epochs until the stop, seconds until the stop, and test accuracy less "
    "that at 16. One rate for all sizes, and the rate tuned at each; bars are 95 % intervals over trainings. "
    "Published: table 5.9, another network and machine.",
    notes=notes,
    seed=0,
)
