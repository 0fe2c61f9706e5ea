"""On a GPU: does the size that `rightbatch memory` returns train a pass, does a tenth more not, and is all well after?

    python benchmarks/memory_gpu.py --device cuda --out benchmarks/memory_gpu.json

For each workload without a limit and under one of `--limit`. What is verified runs in one new process: a training at a
tenth more than the size returned, which is to run out of memory, and after it one at that size, for a pass over the
data (and at least four steps), whose reserved memory is read off the allocator.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rightbatch.memory_room import parse_bytes
from rightbatch.pipeline.memory import memory

WORKLOADS = ("digits", "fashion_mnist:cnn", "char_lm:gru", "char_lm:transformer")

PROGRAM = """
import json
import sys
import torch
from rightbatch.pipeline.runners import as_runner
from rightbatch.records import Point, Stop, Trial
name, device, limit, *sizes = sys.argv[1:]
if int(limit):
    torch.cuda.set_per_process_memory_fraction(int(limit) / torch.cuda.get_device_properties(device).total_memory)
runner = as_runner(name, device=device)
ends = []
for size in map(int, sizes):
    torch.cuda.reset_peak_memory_stats()
    steps = max(4, runner.facts.train_examples // size)
    run = runner.start(runner.workload.complete(Trial(size, 1e-4, 0, steps * size)))
    while isinstance(outcome := run.advance(), Point):
        pass
    run.close()
    ends.append({"batch_size": size, "end": outcome.reason.name, "reserved_bytes": torch.cuda.max_memory_reserved()})
    torch.cuda.empty_cache()
print(json.dumps(ends))
"""


def row(workload: str, device: str, limit_text: str | None) -> dict[str, Any]:
    limit = None if limit_text is None else parse_bytes(limit_text)
    with TemporaryDirectory() as folder:
        report = memory(workload, limit=limit, headroom=0.02, device=device, study=Path(folder) / "a.study.db")
    found = report.batch_size
    more = min(report.train_examples, int(1.1 * found) + 1)
    sizes = [str(size) for size in ([more] if more > found else []) + [found]]
    command = [sys.executable, "-c", PROGRAM, workload, device, str(limit or 0), *sizes]
    ends = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "workload": workload,
        "limit_bytes": limit,
        "may_hold_bytes": report.limit_bytes,
        "batch_size": found,
        "at_most": report.at_most,
        "all_the_data": found == report.train_examples,
        "peak_bytes": report.peak_bytes,
        "tries": len(report.probes),
        "seconds": report.wall_seconds,
        "verified": ends,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", default="4GB")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/memory_gpu.json"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here.")
    rows = []
    for workload in WORKLOADS:
        for limit in (None, given.limit):
            rows.append(row(workload, given.device, limit))
            print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": f"python benchmarks/memory_gpu.py --limit {given.limit}",
        "device": torch.cuda.get_device_name(given.device),
        "machine": f"{platform.machine()}, python {platform.python_version()}, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
