"""Does the gradient noise scale of the normalisation layers tell that of the whole model (Gray et al. 2024)?

    python benchmarks/noise_norm_layers.py --steps 800 --seeds 3

Gray et al. (arXiv 2411.00999) find the two in proportion in language models of up to 111 million parameters, so that
only layer norms need be watched. Here it is the bundled char_lm:transformer (113 thousand parameters, five layer norms,
AdamW, batch size 32), at two rates. At every step the squared norms of the gradient and of all examples' shares in it
are taken, by parameter; noise scales are ratios of averages over windows of 25 steps that do not overlap. For each kind
of parameter, against the whole: the slope and the correlation of the logs, the ratio (a geometric mean), and the
correlation of the changes from window to window, in which a common drift along the training has no part. Intervals are
95 %, from resampling blocks of four neighbouring windows of every run. The figure needs altair and vl-convert.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rightbatch.bundled import char_lm
from rightbatch.fit.noise import noise_scale
from rightbatch.gradients.per_example import PerExampleNorms
from rightbatch.records import GradientSample, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

BATCH, RATES = 32, (0.001, 0.003)
WINDOW, BLOCK, RESAMPLES = 25, 4, 2000
SINCE = (0, 100)
"""With all windows, and without the first ones, whose noise scale is a tenth of that of all others."""

WHOLE, PLACES = "whole", "places"
Array = npt.NDArray[np.float64]
Logs = dict[str, Array]
"""Of one run: for each kind of parameter the log of its noise scale, [windows]; nan where |G|^2 came out negative."""


def kinds_of(model: nn.Module) -> dict[str, str]:
    """Parameter names to the kind of module that owns them."""
    owners = {name: type(module).__name__ for name, module in model.named_modules()}
    return {name: owners[name.rpartition(".")[0]] for name, _ in model.named_parameters() if name != "place"}


def trained(workload: Workload, rate: float, seed: int, steps: int) -> Logs:
    """The noise scales of one training."""
    samples: dict[str, list[GradientSample]] = {}
    places: list[torch.Tensor] = []
    with RandomStreams(seed).active():
        stepper = Stepper(workload, workload.complete(Trial(BATCH, rate, seed)))
        model = stepper.model
        kinds = kinds_of(model)
        # The places are added to the embedding: what arrives there of an example is its share in their gradient.
        model.blocks.register_full_backward_hook(lambda _, entered, __: places.append(entered[0]))
        for step in range(steps):
            batch = next(stepper.batches())
            stepper.optimizer.zero_grad()
            with PerExampleNorms(model, examples=BATCH) as norms:
                workload.loss(model, batch).mean().backward()
            squares = {kind: np.zeros(2) for kind in (*dict.fromkeys(kinds.values()), PLACES)}
            found = norms.by_parameter()
            assert set(found) == set(kinds), f"uncovered: {norms.uncovered}"
            for name, parts in found.items():
                gradient = model.get_parameter(name).grad.double()
                squares[kinds[name]] += float(gradient.square().sum()), float(parts.double().sum())
            of_places = places.pop().double()
            squares[PLACES] += float(of_places.sum(0).square().sum()), float(of_places.square().sum())
            squares[WHOLE] = np.sum(list(squares.values()), axis=0)
            for kind, (of_batch, of_parts) in squares.items():
                sample = GradientSample(step, BATCH, rate, of_batch, of_parts, 1 / BATCH)
                samples.setdefault(kind, []).append(sample)
            stepper.finish_step(batch)
    return {
        kind: np.array([logarithm(of_kind[k : k + WINDOW]) for k in range(0, steps - WINDOW + 1, WINDOW)])
        for kind, of_kind in samples.items()
    }


def logarithm(window: list[GradientSample]) -> float:
    scale = noise_scale(window).scale.estimate
    return math.log(scale) if 0 < scale < math.inf else math.nan


def slope(x: Array, y: Array) -> float:
    return float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))


def correlation(x: Array, y: Array) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def ratio(x: Array, y: Array) -> float:
    return float(np.exp(np.mean(y - x)))


def scatter(x: Array, y: Array) -> float:
    """By how much the whole strays from a fixed ratio: the standard deviation of the log."""
    return float(np.std(y - x, ddof=1))


STATISTICS: dict[str, Callable[[Array, Array], float]] = {
    "slope_of_logs": slope,
    "correlation_of_logs": correlation,
    "whole_over_kind": ratio,
    "deviation_of_log_ratio": scatter,
}


def compared(runs: list[Logs], kind: str) -> dict[str, Any]:
    """One kind of parameter against the whole over all windows of some runs, with intervals."""
    pairs = [np.array([run[kind], run[WHOLE]]) for run in runs]
    changes = [np.diff(pair) for pair in pairs]  # nan beside a window that is left out
    return {
        **{name: with_interval(statistic, pairs) for name, statistic in STATISTICS.items()},
        "correlation_of_changes": with_interval(correlation, changes),
        "windows_left_out": sum(int(np.isnan(pair).any(axis=0).sum()) for pair in pairs),
    }


def with_interval(statistic: Callable[[Array, Array], float], pairs: list[Array]) -> list[float]:
    """The value, and its interval from a block bootstrap within each run, its end joined to its start."""
    random = np.random.default_rng(0)

    def of(chosen: list[Array]) -> float:
        whole = np.concatenate(chosen, axis=1)
        return statistic(*whole[:, ~np.isnan(whole).any(axis=0)])

    def again(pair: Array) -> Array:
        windows = pair.shape[1]
        starts = random.integers(windows, size=math.ceil(windows / BLOCK))
        return pair[:, ((starts[:, None] + np.arange(BLOCK)) % windows).ravel()[:windows]]

    resampled = [of([again(pair) for pair in pairs]) for _ in range(RESAMPLES)]
    return [of(pairs), *np.quantile(resampled, [0.025, 0.975]).tolist()]


def rounded(logs: Array) -> list[float | None]:
    return [float(f"{math.exp(x):.4g}") if math.isfinite(x) else None for x in logs]


def draw(found: dict[float, list[Logs]], path: Path) -> None:
    """Every window a point: the whole against the layer norms."""
    rows = [
        {"rate": f"rate {rate:g}", "norms": math.exp(x), "whole": math.exp(y), "step": (k + 0.5) * WINDOW}
        for rate, runs in found.items()
        for run in runs
        for k, (x, y) in enumerate(zip(run["LayerNorm"], run[WHOLE], strict=True))
        if math.isfinite(x + y)
    ]
    values = [row[axis] for row in rows for axis in ("norms", "whole")]
    low, high = min(values) / 1.1, max(values) * 1.1
    domain = alt.Scale(type="log", domain=[low, high], nice=False)
    points = alt.Chart().mark_point(filled=True, size=28, opacity=0.8).encode(
        x=alt.X("norms:Q", scale=domain, title="noise scale of the layer norms (examples)"),
        y=alt.Y("whole:Q", scale=domain, title="noise scale of all parameters (examples)"),
        color=alt.Color("step:Q", scale=alt.Scale(scheme="viridis")),
    )  # fmt: skip
    ends = [{"norms": low, "whole": low}, {"norms": high, "whole": high}]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color="#6b6b6b", strokeDash=[5, 4], strokeWidth=1.5)
    charts = []
    for rate in dict.fromkeys(row["rate"] for row in rows):
        of_rate = alt.Data(values=[row for row in rows if row["rate"] == rate])
        layers = alt.layer(line.encode(x="norms:Q", y="whole:Q"), points.properties(data=of_rate))
        charts.append(layers.properties(width=300, height=300, title=rate))
    alt.hconcat(*charts).save(str(path), ppi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_norm_layers.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    workload = char_lm.transformer()
    found = {rate: [trained(workload, rate, seed, given.steps) for seed in range(given.seeds)] for rate in RATES}
    rows = []
    for (rate, runs), since in itertools.product(found.items(), SINCE):
        later = [{kind: logs[since // WINDOW :] for kind, logs in run.items()} for run in runs]
        for kind in (kind for kind in runs[0] if kind != WHOLE):
            rows.append({"learning_rate": rate, "since_step": since, "kind": kind, **compared(later, kind)})
            print(json.dumps(rows[-1]), flush=True)
    numbers = {
        f"{rate:g}": [{kind: rounded(logs) for kind, logs in run.items()} for run in runs]
        for rate, runs in found.items()
    }
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    about = {"command": f"python benchmarks/noise_norm_layers.py --steps {given.steps} --seeds {given.seeds}"}
    about |= {"machine": machine, "batch_size": BATCH, "window_steps": WINDOW, "block_windows": BLOCK}
    given.out.write_text(json.dumps({**about, "rows": rows, "noise_scales": numbers}, indent=1) + "\n")
    draw(found, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
