"""Batch size in recurrent networks: what a larger batch brings in tokens per second, and costs in tokens.

The study of recurrent networks that the question names was not identified. What is held to measurement instead is the
best match, a note on the speed of recurrent networks (Elsen 2015): larger batches are faster by more than the further
tokens that they need, up to a point, and speed is not monotone in batch size; and the contrary finding (Breuel 2015):
batch size has no effect on what an LSTM comes to. Then a control: words are read in parallel streams, so that another
batch size also cuts the text in another way.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _recurrent_told import (
    PAIRS_OF_QUALITY,
    at_sizes,
    figure,
    notes,
    quality_difference,
    speed_ratio,
    time_ratio_to_best,
    token_ratio,
    worst_step,
)

import rightbatch
from rightbatch.curves import crossing, quality
from rightbatch.evidence import FRESH_SEED
from rightbatch.fit.step_time import median_seconds
from rightbatch.records import Interval, Run, Target
from rightbatch.replay.table import read_table
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held

NETS = Path(__file__).with_name("_recurrent_nets.py")
TABLE = Path(__file__).parents[1] / "benchmarks" / "tables" / "char_gru.csv.gz"
TABLE_TARGET = -2.15
"""Nats a character; a table is higher-is-better."""

FEWEST_LOST = 0.02
"""The least share of its speed that a larger batch must lose for speed to count as not monotone."""

AS_GOOD = 0.04
"""Nats a character: 2 % of what is gained from the start (4.17) to what so short a text allows (about 2.2)."""

CUT_FACTOR = 0.15
"""Two ways to cut the text may differ by so much in tokens to the target and still count as alike."""

RECORDED = "GRU, recorded"
NAMES: Mapping[str, str] = {"gru": "GRU", "lstm": "LSTM", "words": "words"}
FUNCTIONS = {name: function for function, name in NAMES.items()}

SPEED_SIZES: Mapping[str, tuple[int, ...]] = {
    "GRU": (1, 2, 4, 7, 8, 9, 15, 16, 17, 32, 64, 128, 256, 512),
    "LSTM": (1, 2, 4, 7, 8, 9, 15, 16, 17, 32, 64, 128, 256, 512),
    "words": (1, 2, 4, 7, 8, 9, 15, 16, 17, 32, 64, 128, 256),
}
SIZES: Mapping[str, tuple[int, ...]] = {
    "LSTM": (4, 8, 16, 32, 64, 128, 256, 512),
    "GRU": (4, 8, 16, 32, 64, 128, 256, 512),
    "words": (8, 16, 32, 64, 128, 256),
}
CUT_SIZES = (64, 256)
QUALITY_SIZES: Mapping[str, tuple[int, ...]] = {"LSTM": (8, 128), "GRU": (8, 128)}
QUALITY_EXAMPLES = 12_000
"""A dozen passes over 1,000 windows."""

PLANS: Mapping[Size, Mapping[str, Any]] = {
    "smoke": {"judges": 2, "workers": 1},
    "small": {"judges": 4, "workers": 2, "rounds": 4},
    "paper": {"judges": 10, "workers": 2, "rounds": 9},
}
"""`judges`: seeds that did not choose the rate. `rounds`: repeats of a size in a block of step times."""

CHOOSING: Mapping[str, int] = {"lstm_smoke": 1, "words": 3, "words_in_few_streams": 3}
"""How many seeds choose the rate, where not two: early in training the perplexity of words goes up and down."""


# ------------------------------------------------------------------------------------------------- what is claimed

derived = partial(Claim, published=1.0, tolerance=0.0, known_by="derived", relation="at least")
"""What the note says in words, as a factor of at least 1."""


def speed_claims(name: str) -> tuple[Claim, ...]:
    """The note's two statements about speed, of one network."""
    lost = partial(
        Claim, published=1 - FEWEST_LOST, tolerance=0.0, known_by="derived", relation="at most", from_size="small"
    )
    return (
        derived(
            f"{name}: faster",
            f"{name}: tokens per second at batch size 32 over those at 1 (a matrix product on a GPU: 14)",
            from_size="small",
        ),
        lost(
            f"{name}: 8 to 9",
            f"{name}: tokens per second at batch size 9 over those at 8 (the note sees a drop here, on a GPU)",
        ),
        lost(
            f"{name}: not monotone",
            f"{name}: tokens per second at a size over those at the next smaller one, where that is least",
        ),
    )


def token_claims(name: str, from_size: Size) -> tuple[Claim, ...]:
    """What the note says about the time to convergence, of one network with its rate tuned at every size."""
    return (
        derived(
            f"{name}: more tokens",
            f"{name}: tokens to the target at the largest batch size over those at the smallest",
            from_size="smoke" if name == "LSTM" else from_size,
        ),
        derived(
            f"{name}: pays",
            f"{name}: seconds to the target at the smallest batch size over those at the best",
            from_size=from_size,
        ),
        derived(
            f"{name}: up to a point",
            f"{name}: seconds to the target at the largest batch size over those at the best, which is a smaller one",
            from_size=from_size,
        ),
    )


CLAIMS = (
    *token_claims(RECORDED, "smoke"),
    *(claim for name in ("LSTM", "GRU", "words") for claim in token_claims(name, "small")),
    *(claim for name in SPEED_SIZES for claim in speed_claims(name)),
    *(
        Claim(
            f"{name}: quality",
            f"{name}: loss after {QUALITY_EXAMPLES:,} windows with batch size {large} less that with {small}, in nats "
            f"a character, within {AS_GOOD:g}",
            published=0.0,
            tolerance=0.0,
            slack=AS_GOOD,
            known_by="read in the paper",
            from_size="small",
        )
        for name, (small, large) in PAIRS_OF_QUALITY.items()
    ),
    *(
        Claim(
            f"cut at {size}",
            f"words, batch size {size}: tokens to the target in {size} streams of one window over those in 8 streams "
            f"of {size // 8} windows, if only batch size mattered",
            published=1.0,
            tolerance=CUT_FACTOR,
            known_by="derived",
            from_size="small",
        )
        for size in CUT_SIZES
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


def run(size: Size, store: Store) -> Measured:
    """The recorded table; tokens to the target; quality; and between them, in blocks, seconds per step."""
    plan = PLANS[size]
    tokens = {RECORDED: store.unit("recorded table", recorded)}
    if size == "smoke":
        tokens["LSTM"] = each_size(store, plan, "lstm_smoke", (8, 64))
        return {"tokens": tokens, "speed": {RECORDED: [recorded_speed()]}}
    speed: dict[str, list[Any]] = {name: [] for name in SPEED_SIZES}

    def time_steps() -> None:
        for name, blocks in speed.items():
            block = f"step times of {name}, block {len(blocks)}"
            blocks.append(store.unit(block, partial(step_seconds, store.folder, plan, name)))

    time_steps()
    time_steps()
    for name, sizes in SIZES.items():
        tokens[name] = each_size(store, plan, FUNCTIONS[name], sizes)
        time_steps()
    cut = each_size(store, plan, "words_in_few_streams", CUT_SIZES)
    time_steps()
    ends = {}
    for name, sizes in QUALITY_SIZES.items():
        ends[name] = each_size(store, plan, f"{FUNCTIONS[name]}_short", sizes, planned=QUALITY_EXAMPLES)
        time_steps()
    return {"tokens": tokens, "speed": {RECORDED: [recorded_speed()], **speed}, "cut": cut, "quality": ends}


def recorded() -> dict[str, Any]:
    """Of every size of the table its rate by the first two seeds, and windows to the target of all seeds there."""
    table = read_table(TABLE)
    found = {}
    for size in table.sizes:
        cells = {
            rate: windows * size / table.step_seconds[size]
            for (of, rate), windows in table.times_to(TABLE_TARGET).items()
            if of == size
        }
        chosen = min(cells, key=lambda rate: float(np.log(cells[rate][:2]).mean()))
        values = [value if math.isfinite(value) else None for value in cells[chosen].tolist()]
        at_edge = chosen in (min(cells), max(cells))
        found[str(size)] = {"rate": chosen, "at_edge": at_edge, "tuning": values[:2], "judging": values[2:]}
    return found


def recorded_speed() -> dict[str, float]:
    """Seconds per step of the table: as they were recorded, once for each size."""
    return {str(size): seconds for size, seconds in read_table(TABLE).step_seconds.items()}


def step_seconds(folder: Path, plan: Mapping[str, Any], name: str) -> dict[str, float]:
    """Median seconds per step of every size, the sizes measured in turn."""
    found = rightbatch.profile(
        f"{NETS}:{FUNCTIONS[name]}",
        SPEED_SIZES[name],
        study=folder / f"{FUNCTIONS[name]}.study.db",
        rounds=plan["rounds"],
        again=True,
        threads=1,
    )
    return {str(record.batch_size): median_seconds(record) for record in found}


def each_size(
    store: Store, plan: Mapping[str, Any], net: str, sizes: Sequence[int], planned: int | None = None
) -> dict[str, Any]:
    """Every size in turn; the search for its rate begins at the best one of the size before."""
    found: dict[str, Any] = {}
    rate = None
    for size in sizes:
        work = partial(of_size, store.folder, plan, net, size, rate, planned)
        found[str(size)] = store.unit(f"{net}, {size}", work)
        rate = found[str(size)]["rate"] or rate
    return found


def of_size(
    folder: Path, plan: Mapping[str, Any], net: str, size: int, rate: float | None, planned: int | None
) -> dict[str, Any]:
    """The rate that some seeds choose on the lattice, and what other seeds need there, or come to.

    With `planned`, all runs see so many windows and the loss at the end is judged; else runs end at the target.
    """
    study = folder / f"{net}.study.db"
    how: dict[str, Any] = {"study": study, "workers": plan["workers"], "threads": 1}
    if planned:
        how |= {"objective": "metric", "at_examples": planned, "planned_examples": planned}
    else:
        how |= {"objective": "examples", "planned_examples": longest(net, size), "until": "target"}
    if rate is not None:
        how["present"] = (size, rate)
    workload, choosing = f"{NETS}:{net}", CHOOSING.get(net, 2)
    # Fresh seeds are those that take no part in any choice, also where a run of this is interrupted and goes on.
    judges = range(FRESH_SEED, FRESH_SEED + plan["judges"])
    tuned = None
    with contextlib.suppress(rightbatch.InsufficientEvidence):
        answer = rightbatch.sweep(workload, (size,), seeds=choosing, **how)
        tuned = next((row for row in answer.sizes if row.batch_size == size), None)
    if tuned is None or tuned.learning_rate is None:
        return {"rate": None, "at_edge": True, "tuning": [None], "judging": []}
    with contextlib.suppress(rightbatch.InsufficientEvidence):  # it judges one rate, and does not ask for another
        rightbatch.sweep(workload, (size,), rates=(tuned.learning_rate,), seeds=judges, **how)
    with rightbatch.Study.open(study) as kept:
        runs = [one for one in kept.runs() if of_cell(one, size, tuned.learning_rate)]
    runs.sort(key=lambda one: one.trial.seed)
    chose, judged = ([one for one in runs if (one.trial.seed in judges) == whether] for whether in (False, True))
    value = end_of if planned else partial(windows_to, target=answer.target)
    told = {"rate": tuned.learning_rate, "at_edge": tuned.at_edge}
    told |= {"tuning": list(map(value, chose)), "judging": list(map(value, judged))}
    if planned:
        told |= {"best": [quality(one.points, "min") for one in judged], "best_at": list(map(best_at, judged))}
    return told


def longest(net: str, size: int) -> int:
    """Windows after which a run has missed the target: several times what is needed, which grows with the size."""
    if net == "lstm_smoke":
        return 10 * size + 300
    return 80 * size + 6000 if net.startswith("words") else 40 * size + 4000


def of_cell(one: Run, size: int, rate: float) -> bool:
    """Whether a run is of this size and rate."""
    return one.trial.batch_size == size and one.trial.learning_rate == rate


def windows_to(one: Run, target: Target) -> float | None:
    """Windows to the target; None where it is not reached."""
    found = crossing(one.points, target)
    return None if found is None else found.examples


def end_of(one: Run) -> float | None:
    """The validation loss at the end; None where that is not finite."""
    loss = one.points[-1].valid_loss
    return loss if loss is not None and math.isfinite(loss) else None


def best_at(one: Run) -> float:
    """The share of a run after which its validation loss was best."""
    best = min(one.points, key=lambda point: math.inf if point.valid_loss is None else point.valid_loss)
    return best.examples / one.points[-1].examples


# ---------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Every claim with its 95 % interval: over seeds that chose nothing, and over blocks of step times."""
    found: dict[str, Interval | None] = {}
    for name, of in measured["tokens"].items():
        found[f"{name}: more tokens"] = token_ratio(of, at_sizes(of)[-1:], at_sizes(of)[:1])
        if name in measured["speed"]:
            speed = measured["speed"][name]
            found[f"{name}: pays"] = time_ratio_to_best(of, speed, 0)
            found[f"{name}: up to a point"] = time_ratio_to_best(of, speed, -1)
    if "cut" in measured:
        for name in SPEED_SIZES:
            speed = measured["speed"][name]
            found[f"{name}: faster"] = speed_ratio(speed, 32, 1)
            found[f"{name}: 8 to 9"] = speed_ratio(speed, 9, 8)
            found[f"{name}: not monotone"] = worst_step(speed)
        for name, pair in PAIRS_OF_QUALITY.items():
            found[f"{name}: quality"] = quality_difference(measured["quality"][name], *pair)
        for size in CUT_SIZES:
            many, few = measured["tokens"]["words"][str(size)], measured["cut"][str(size)]
            found[f"cut at {size}"] = token_ratio({"many": many, "few": few}, ("many",), ("few",))
    return held(CLAIMS, found)


REPRODUCTION = Reproduction(
    name="recurrent",
    title="Batch size in recurrent networks: tokens per second against tokens to a loss",
    source="The study of recurrent networks that the question names was not identified. Compared instead: Elsen 2015, "
    "Investigating performance of GPU BLAS libraries (svail.github.io/rnn_perf), the best match; and Breuel 2015, "
    "Benchmarking of LSTM networks (arXiv:1508.02774), abstract, the contrary finding",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 24 * 3600},
    smallest_effect=0.1,
    smallest_effect_reason="Tokens to a target differ by 5 to 10 % between seeds: four seeds at each of two sizes tell "
    "differences of 10 to 15 %. Step times of a shared machine differ by about as much from block to block.",
    run=run,
    compare=compare,
    figure=figure,
    caption="By batch size: tokens per second as a multiple of those at 1, beside what was published of a matrix "
    "product on a GPU; tokens and seconds to the target at the tuned rate; loss after equally many tokens. Means with "
    "95 % intervals, over blocks of step times and over seeds that did not choose the rate.",
    notes=notes,
    seed=0,
)
