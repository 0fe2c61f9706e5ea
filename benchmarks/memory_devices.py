"""How good is the search for the largest batch? On 1,000 simulated devices, beside powers of two and bisection.

    python benchmarks/memory_devices.py --out benchmarks/memory_devices.json

The devices are those of tests/search/test_largest.py, which says what they are made of. The truth is the largest size
that fits 19 times of 20; what a try costs is in proportion to its examples.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path

import numpy as np

TESTS = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "search" / "test_largest.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=TESTS["DEVICES"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/memory_devices.json"))
    given = parser.parse_args()
    all_played = [TESTS["played"](seed) for seed in range(given.devices)]
    shares = np.array([one.share for one in all_played])
    others = np.array([one.bisection_answer / one.truth if one.truth else 1.0 for one in all_played])
    tries = np.array([len(one.tries) for one in all_played])
    cost, bisection, powers = (
        np.array([getattr(one, name) for one in all_played]) for name in ("cost", "bisection_cost", "powers_cost")
    )
    record = {
        "command": f"python benchmarks/memory_devices.py --devices {given.devices}",
        "devices": given.devices,
        "answers_that_did_not_run_or_exceed_the_data": sum(
            one.answer != 0 and ((one.answer, True) not in one.tries or one.answer > one.most) for one in all_played
        ),
        "within_3_percent_of_the_truth": float(np.mean(shares >= TESTS["ENOUGH"])),
        "worst_share_of_the_truth": float(shares.min()),
        "bisection_within_3_percent_of_the_truth": float(np.mean(others >= TESTS["ENOUGH"])),
        "tries_median_and_90th_percentile": [float(np.median(tries)), float(np.percentile(tries, 90))],
        "cost_over_that_of_bisection": float(cost.sum() / bisection.sum()),
        "median_of_cost_over_that_of_bisection": float(np.median(cost / bisection)),
        "cost_over_that_of_powers_of_two": float(cost.sum() / powers.sum()),
        "median_of_cost_over_that_of_powers_of_two": float(np.median(cost / powers)),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
