"""How often the intervals of the largest eigenvalue and of the trace have the truth, on quadratics of known Hessian.

    python benchmarks/sharpness_intervals.py --out benchmarks/sharpness_intervals.json

Of 150 weights: five large eigenvalues (exponential, mean 3), the others near zero on both sides (normal, 0.2), turned
at random; as many probes for the trace as by default. Its interval is to have the truth in 95 % (exact binomial test),
that of the eigenvalue at least as often: its bound is one for the worst case.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from rightbatch.landscape.spectrum import largest_eigenvalue, trace
from rightbatch.machine import processor
from rightbatch.minima import Choices

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "landscape"))

from quadratics import quadratic, random_hessian

SIZE, PROBES = 150, Choices().probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    inside, of_trace, missed = 0, 0, []
    for seed in range(arguments.times):
        draw = np.random.default_rng([seed, 9])
        eigenvalues = np.concatenate([draw.exponential(3, 5), draw.normal(0, 0.2, SIZE - 5)])
        surface = quadratic(random_hessian(eigenvalues, draw), np.zeros(SIZE), np.zeros(SIZE))
        found, truth = largest_eigenvalue(surface, seed=seed), float(eigenvalues.max())
        inside += (found.low or 0.0) * (1 - 1e-9) <= truth <= (found.high or 0.0)
        missed.append(1 - found.estimate / truth)
        of_trace += float(eigenvalues.sum()) in trace(surface, probes=PROBES, seed=seed)
    result = {
        "command": f"python benchmarks/sharpness_intervals.py --times {arguments.times}",
        "machine": processor(),
        "times": arguments.times,
        "eigenvalue_inside": inside / arguments.times,
        "eigenvalue_largest_share_missed": max(missed),
        "trace_inside": of_trace / arguments.times,
        "trace_p_value_of_95_percent": float(binomtest(of_trace, arguments.times, 0.95).pvalue),
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
