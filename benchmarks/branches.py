"""Does the local critical batch size grow along a training, and is it where the gradient noise scale is?

    RIGHTBATCH_DATA=data python benchmarks/branches.py --out benchmarks/branches.json

An MLP on Fashion-MNIST (SGD with momentum) and a character GRU (AdamW), each at batch size 32 and a constant rate, on
one thread. At every checkpoint: the local critical batch size by branches, and the noise scale over the steps from
there to a third further, of the same training.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from rightbatch.pipeline.branches import branches
from rightbatch.pipeline.noise import noise
from rightbatch.records import to_json

TRAININGS: dict[str, dict[str, Any]] = {
    "fashion_mnist:mlp": {"learning_rate": 0.01, "at": (40, 160, 640, 2560), "factors": (2, 4, 8, 16)},
    "char_lm:gru": {"learning_rate": 0.003, "at": (35, 140, 560), "factors": (2, 4, 8)},
}
BATCH_SIZE = 32
RULES = ("linear", "sqrt")


def measured(name: str, seeds: int, folder: Path) -> dict[str, Any]:
    """The checkpoints of one training, each with the losses of its branches and the noise scale there."""
    training = TRAININGS[name]
    study, rate = folder / "branches.study.db", training["learning_rate"]
    study.unlink(missing_ok=True)
    found = branches(name, study=study, batch_size=BATCH_SIZE, rules=RULES, seeds=seeds, **training)
    rows = []
    for fork in found.forks:
        # The last quarter of so many steps begins at the checkpoint.
        there = noise(name, study=study, batch_size=BATCH_SIZE, learning_rate=rate, steps=-(-4 * fork.step // 3)).now
        best = fork.best.size
        said = f"{best.estimate:.3g} [{best.low:.3g}, {best.high:.3g}]"
        scale = f"{there.scale.estimate:.3g} [{there.scale.low:.3g}, {there.scale.high:.3g}]"
        print(f"{name} step {fork.step}: local critical size {said}, noise scale {scale}", flush=True)
        rows.append({**to_json(fork), "rate_too_high": fork.rate_too_high, "noise_scale": to_json(there.scale)})
    return {
        "workload": name,
        "batch_size": BATCH_SIZE,
        "learning_rate": rate,
        "plan": to_json(found.plan),
        "branched_examples": found.branched_examples,
        "trunk_examples": found.plan.trunk_examples,
        "wall_seconds": round(found.wall_seconds, 1),
        "checkpoints": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/branches.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(name, given.seeds, Path(folder)) for name in TRAININGS]
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    command = f"python benchmarks/branches.py --seeds {given.seeds}"
    given.out.write_text(json.dumps({"command": command, "machine": machine, "trainings": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
