"""Do the intervals of the gradient noise scale hold what they say? Gradients of a known noise scale, 500 times over.

    python benchmarks/noise_coverage.py --out benchmarks/noise_coverage.json

The cases are those of tests/fit/test_noise.py (which makes 50 repeats of each), and the noisy quadratic of the bundled
workloads, trained at a rate so small that its gradient stays what it is.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rightbatch.bundled.quadratic import hessian, quadratic
from rightbatch.fit.noise import NoiseEstimate, noise_scale
from rightbatch.gradients.training import gradient_samples
from rightbatch.records import Trial

CASES = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "fit" / "test_noise.py"))["CASES"]


def row(name: str, estimates: list[NoiseEstimate], gradient: float, trace: float) -> dict[str, Any]:
    """How often the intervals of one case cover, and how far the mean of each term is from the truth, in its errors."""
    truth = trace / gradient if gradient else math.inf

    def off(values: list[float], true: float) -> float:
        return float((np.mean(values) - true) / (np.std(values, ddof=1) / math.sqrt(len(values))))

    return {
        "case": name,
        "noise_scale": truth if math.isfinite(truth) else None,
        "repeats": len(estimates),
        "covered": float(np.mean([truth in one.scale for one in estimates])),
        "gradient_squared_covered": float(np.mean([gradient in one.gradient_squared for one in estimates])),
        "noise_trace_covered": float(np.mean([trace in one.noise_trace for one in estimates])),
        "unbounded": float(np.mean([math.isinf(one.scale.high or 0.0) for one in estimates])),
        "gradient_squared_off_in_errors": off([one.gradient_squared.estimate for one in estimates], gradient),
        "noise_trace_off_in_errors": off([one.noise_trace.estimate for one in estimates], trace),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_coverage.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, case in CASES.items():
        estimates = [noise_scale(case.samples(seed)) for seed in range(given.repeats)]
        rows.append(row(name, estimates, case.gradient**2, case.trace))
        print(json.dumps(rows[-1]), flush=True)
    for size in (8, 64):
        estimates = [
            noise_scale(list(gradient_samples(quadratic(), Trial(size, 1e-9, seed), 40)))
            for seed in range(given.repeats)
        ]
        rows.append(row(f"quadratic, B={size}", estimates, float((hessian() ** 2).sum()), float(hessian().sum())))
        print(json.dumps(rows[-1]), flush=True)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__.split("+")[0]}
    about = {"command": f"python benchmarks/noise_coverage.py --repeats {given.repeats}", "versions": versions}
    given.out.write_text(json.dumps({**about, "level": 0.95, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
