"""The rules of shape on the published curves of Shallue et al. 2018, digitised from the authors' figures.

    python benchmarks/shallue.py --out benchmarks/shallue.json

Wants RIGHTBATCH_DATA. Of every curve with at least eight sizes: the law is fitted to every second size and predicts the
others, both ways; the critical batch size of one half is held against that of the other; and the ends of perfect
scaling and of useful parallelism are found by slopes of the points, beside those of the law. ResNet-8 on CIFAR-10 with
and without momentum: by how much momentum extends perfect scaling.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch.fit.quantiles import t_quantile
from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff
from rightbatch.rules.shape import Regimes, regimes, regimes_of_law

FEWEST = 8


@dataclass(frozen=True)
class Curve:
    """Steps (or steps relative to those at one size) by batch size."""

    name: str
    batch_sizes: tuple[float, ...]
    steps: tuple[float, ...]

    def half(self, first: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.batch_sizes[first::2], self.steps[first::2]


def curves(folder: Path) -> list[Curve]:
    """Every curve once, by data, model, optimizer and goal: of one that is in several figures, the first."""
    found: dict[str, Curve] = {}
    for file, column in (
        ("steps_to_result", "steps_to_result"),
        ("relative_steps", "steps_over_steps_at_normalizing_batch"),
    ):
        grouped: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        with (folder / f"{file}_digitized.csv").open() as opened:
            for row in csv.DictReader(opened):
                key = tuple(row[name] for name in ("figure", "dataset", "model", "optimizer", "goal"))
                grouped.setdefault(key, []).append((float(row["batch_size"]), float(row[column])))
        for (_, *parts), points in grouped.items():
            name = " ".join(parts)
            if name not in found:
                sizes, steps = zip(*sorted(dict(points).items()), strict=True)
                found[name] = Curve(name, sizes, steps)
    return [curve for curve in found.values() if len(curve.batch_sizes) >= FEWEST]


def predictions(curve: Curve) -> Iterator[float]:
    """|log| of predicted over published steps, at the sizes that a half was not fitted to."""
    for first in (0, 1):
        fit = fit_tradeoff(*curve.half(first))
        for size, steps in zip(*curve.half(1 - first), strict=True):
            yield abs(math.log(fit.steps(size) / steps))


def agreement(curve: Curve) -> list[bool]:
    """Whether the interval of one half holds the critical batch size of the other, both ways."""
    halves = [fit_tradeoff(*curve.half(first)).critical_batch_size for first in (0, 1)]
    return [halves[1 - k].estimate in halves[k] for k in (0, 1)]


def edges(curve: Curve) -> dict[str, Any]:
    """Both regime edges by both methods."""
    fit = fit_tradeoff(curve.batch_sizes, curve.steps)
    by_slope, by_law = regimes(curve.batch_sizes, curve.steps), regimes_of_law(fit.hyperbola)

    def told(found: Regimes) -> dict[str, float | None]:
        return {
            "perfect_until": found.perfect_until and round(found.perfect_until, 1),
            "no_help_from": found.no_help_from and round(found.no_help_from, 1),
        }

    return {"by_slopes": told(by_slope), "by_law": told(by_law)}


def differences(all_curves: list[Curve]) -> dict[str, Any]:
    """Where the two methods differ: the median ratio of their edges, and the curves where it is beyond a factor 2."""
    found: dict[str, Any] = {}
    for edge in ("perfect_until", "no_help_from"):
        ratios = {}
        for curve in all_curves:
            told = edges(curve)
            a, b = told["by_slopes"][edge], told["by_law"][edge]
            ratios[curve.name] = round(a / b, 2) if a and b else None
        known = [ratio for ratio in ratios.values() if ratio is not None]
        found[edge] = {
            "median_ratio_of_slopes_to_law": round(float(np.median(known)), 2),
            "beyond_a_factor_2": {name: r for name, r in ratios.items() if r is not None and not 0.5 <= r <= 2},
            "not_seen_by_slopes": [name for name, ratio in ratios.items() if ratio is None],
        }
    return found


def momentum_extends(all_curves: list[Curve]) -> dict[str, Any]:
    """The end of perfect scaling with momentum over that without, ResNet-8 on CIFAR-10, with its interval.

    It is where the slope of the law is 0.8, so that the ratio is that of the critical batch sizes. Interval: the errors
    of their logs, from the profile intervals, added as independent.
    """
    fits: dict[str, TradeoffFit] = {}
    for curve in all_curves:
        for optimizer in ("sgd", "nesterov_momentum"):
            if curve.name.startswith(f"cifar_10 resnet_8 {optimizer} "):
                fits[optimizer] = fit_tradeoff(curve.batch_sizes, curve.steps)
    logs, errors, freedoms = [], [], []
    for optimizer in ("nesterov_momentum", "sgd"):
        knee, freedom = fits[optimizer].critical_batch_size, fits[optimizer].hyperbola.freedom
        assert knee.low
        assert knee.high
        logs.append(math.log(knee.estimate))
        errors.append(math.log(knee.high / knee.low) / 2 / t_quantile(0.975, freedom))
        freedoms.append(freedom)
    ratio, half = logs[0] - logs[1], t_quantile(0.975, min(freedoms)) * math.hypot(*errors)
    ends = {name: round(regimes_of_law(fit.hyperbola).perfect_until or math.nan, 1) for name, fit in fits.items()}
    return {
        "perfect_until": ends,
        "ratio": round(math.exp(ratio), 2),
        "interval": [round(math.exp(ratio - half), 2), round(math.exp(ratio + half), 2)],
    }


def record(folder: Path) -> dict[str, Any]:
    """All of it."""
    all_curves = curves(folder)
    errors = {curve.name: list(predictions(curve)) for curve in all_curves}
    held = {curve.name: agreement(curve) for curve in all_curves}
    everything = [error for found in errors.values() for error in found]
    return {
        "source": "digitised from the figures of Shallue et al. 2018 (JMLR 20(112))",
        "curves": len(all_curves),
        "predictions": len(everything),
        "median_error_percent": round(100 * math.expm1(float(np.median(everything))), 1),
        "90th_percentile_error_percent": round(100 * math.expm1(float(np.percentile(everything, 90))), 1),
        "interval_of_a_half_holds_the_other_percent": round(
            100 * float(np.mean([h for v in held.values() for h in v])), 1
        ),
        "curves_where_both_hold_percent": round(100 * float(np.mean([all(v) for v in held.values()])), 1),
        "regime_edges_by_two_methods": differences(all_curves),
        "momentum_extends_perfect_scaling": momentum_extends(all_curves),
        "by_curve": {
            curve.name: {
                "sizes": len(curve.batch_sizes),
                "median_error_percent": round(100 * math.expm1(float(np.median(errors[curve.name]))), 1),
                "intervals_hold_the_other_half": held[curve.name],
                "edges": edges(curve),
            }
            for curve in all_curves
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/shallue.json"))
    given = parser.parse_args()
    found = record(Path(os.environ["RIGHTBATCH_DATA"]) / "measurements" / "shallue2018")
    found = {"command": "python benchmarks/shallue.py", **found}
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "by_curve"}, indent=1))


if __name__ == "__main__":
    main()
