"""Does the size that `rightbatch memory` returns train a whole pass under the limit, and does 1.1 times it not?

    python benchmarks/memory_limits.py --out benchmarks/memory_limits.json

Each size is then trained for one pass over the data (and at least four steps), evaluations and all, in a process of its
own: without a limit, to see what it holds at most; and, where control groups can be made (as root, version 1), in one
that has the limit, where the kernel kills it if it takes more. A group is charged less than what a process holds: not
the pages of libraries that others have read before. Then a size that is far too large is tried `--kills` times, and its
process ended each time. The line fitted to the small sizes is compared with what the size returned took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rightbatch.fit.memory import CURVATURE_OF_HEAPS, fit_memory
from rightbatch.memory_room import parse_bytes
from rightbatch.pipeline.memory import memory
from rightbatch.pipeline.runners import as_runner, maker_of
from rightbatch.probing import Allowance, Prober
from rightbatch.worker import Setup
from rightbatch.workers import pickled_maker

CASES = {
    "fashion_mnist:mlp": "1GB",
    "fashion_mnist:cnn": "1.5GB",
    "char_lm:gru": "1.2GB",
    "char_lm:transformer": "1.2GB",
}
GROUPS = Path("/sys/fs/cgroup/memory")
SMALL = 0.6
"""Sizes that took at most this share of the largest increase are the small ones, from which it is predicted."""

PASS = """
import sys
import torch
torch.set_num_threads(1)
from rightbatch.memory_room import forget_peak, peak_bytes
from rightbatch.pipeline.runners import as_runner
from rightbatch.records import Point, Trial
runner = as_runner(sys.argv[1])
size = int(sys.argv[2])
forget_peak()
steps = max(4, runner.facts.train_examples // size)
run = runner.start(runner.workload.complete(Trial(size, 1e-4, 0, steps * size)))
while isinstance(run.advance(), Point):
    pass
print(peak_bytes())
"""


@contextlib.contextmanager
def group(limit: int) -> Iterator[Path | None]:
    """A control group with a limit; None where there can be none."""
    folder = GROUPS / "rightbatch-benchmark"
    try:
        folder.mkdir(exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(str(limit), encoding="ascii")
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        folder.rmdir()


def held_in_a_pass(workload: str, size: int) -> int:
    """Bytes that one pass at a size held at most, without a limit."""
    command = [sys.executable, "-c", PASS, workload, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def trained(workload: str, size: int, limit: int) -> dict[str, Any]:
    """What one pass at a size held, and whether it survived in a group with the limit."""
    held = held_in_a_pass(workload, size)
    command = [sys.executable, "-c", PASS, workload, str(size)]
    with group(limit) as folder:
        if folder is None:
            survived = None
        else:
            enter = ["bash", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "enter"]
            survived = subprocess.run([*enter, *command], capture_output=True, check=False).returncode == 0
    return {
        "batch_size": size,
        "held_bytes": held,
        "within_the_limit": held <= limit,
        "survived_in_the_group": survived,
    }


def row(workload: str, limit_text: str, headroom: float) -> dict[str, Any]:
    limit = parse_bytes(limit_text)
    with TemporaryDirectory() as folder:
        report = memory(workload, limit=limit, headroom=headroom, threads=1, study=Path(folder) / "a.study.db")
    found = report.batch_size
    increases = {
        p.batch_size: p.training_bytes - p.before_bytes
        for p in report.probes
        if p.fits and p.training_bytes is not None
    }
    last = increases[found]
    small = {size: taken for size, taken in increases.items() if taken <= SMALL * last}
    predicted = fit_memory(small, CURVATURE_OF_HEAPS).predict(found)
    more = min(report.train_examples, int(1.1 * found) + 1)
    return {
        "workload": workload,
        "limit_bytes": limit,
        "headroom": headroom,
        "batch_size": found,
        "at_most": report.at_most,
        "tries": len(report.probes),
        "seconds": report.wall_seconds,
        "increase_bytes": last,
        "predicted_bytes": predicted.estimate,
        "predicted_low_bytes": predicted.low,
        "predicted_high_bytes": predicted.high,
        "off": predicted.estimate / last - 1,
        "returned": trained(workload, found, limit),
        "a_tenth_more": trained(workload, more, limit) if more > found else None,
    }


def killed(times: int) -> dict[str, Any]:
    """So many tries of a size that is far too large: how many of them were told as such."""
    name, limit = "char_lm:gru", parse_bytes(CASES["char_lm:gru"])
    runner = as_runner(name, threads=1)
    setup = Setup.of(pickled_maker(maker_of(name, runner, threads=1)), 1)
    told = 0
    with Prober(Allowance(setup, limit, None, 0.0, on_cpu=True)) as prober:
        for k in range(times):
            probe = prober.probe(4000 + k, 4000 + k, fresh=True)
            told += not probe.fits and "was ended" in probe.why
        after = prober.probe(64, 64, fresh=True)
    return {"workload": name, "tries": times, "told": told, "fits_afterwards": after.fits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headroom", type=float, default=0.02)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/memory_limits.json"))
    given = parser.parse_args()
    rows = []
    for workload, limit in CASES.items():
        rows.append(row(workload, limit, given.headroom))
        print(json.dumps(rows[-1], indent=1), flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
        "kills": killed(given.kills),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
