"""How precise is the gradient noise scale of a training, and does its error bar say so? Fashion-MNIST, an MLP.

    python benchmarks/noise_precision.py --seeds 10

The bundled fashion_mnist:mlp (784-128-10, SGD with momentum 0.9 at a fixed rate), batch sizes 64 and 256.

"every step": 300 steps, all of them sampled. The bar: a relative standard error of at most 10 %.
"default": the monitor with its share of 2 % of the time, along a training to the bundled target, 86 % accuracy.

What is estimated is the ratio of averages along the very trajectory of that training, and another seed is another
trajectory. So each estimate is compared with a reference of its own: at the weights before every step, the gradients of
4,000 training examples drawn anew ("default": 1,000). That says the same without bias from 60 or 16 times as many
examples ("default": some 400 and 30 times). `error` is the log of estimate over reference; `seen` their root mean
square over the seeds; `stated` is the median of the standard errors that the estimates claim, `of_reference` that of
the references, which is a part of what is seen. Null stands for infinity: nothing bounds it. The reference shares no
code with what makes the samples: it multiplies out the layers by hand, and is itself compared with one backward pass
per example.

An estimate says which steps it is of, and the reference is over these, first to last. With its default share the
monitor leaves the first five steps out; the ratio over the whole of the training is `over_all_steps`. At batch size
256 about half of the sum of |G|^2 over a training falls into steps 10 to 29: where none of them is sampled, no interval
from the other steps can know it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rightbatch.bundled import fashion_mnist
from rightbatch.fit.noise import noise_scale
from rightbatch.gradients.exact import exact_noise
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.records import GradientSample, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

RATES = {64: 0.01, 256: 10**-1.25}  # the best ones of benchmarks/fashion_mnist_mlp
STEPS, BAR = 300, 0.10
EXAMPLES = {"every step": 4000, "default": 1000}
EVALUATE_EVERY = 50
Snapshot = dict[str, torch.Tensor]
"""The weights before a step."""


def squares(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor, chunk: int = 1000) -> tuple[float, float]:
    """Of the gradients of all examples: the squared norm of their mean, and the mean of their squared norms.

    For a chain of linear layers the gradient of one example is an outer product, whose norm is a product (Goodfellow
    2015, arXiv 1510.01799).
    """
    sums: dict[int, torch.Tensor] = {}
    norms = 0.0
    for inputs, labels in zip(x.split(chunk), y.split(chunk), strict=True):
        entered, left, h = [], [], inputs.flatten(1)
        for module in model:
            if isinstance(module, nn.Linear):
                entered.append(torch.cat([h.detach(), torch.ones(len(h), 1)], dim=1))  # a bias sees ones
                h = module(h)
                left.append(h)
            else:
                h = module(h)
        arrived = torch.autograd.grad(nn.functional.cross_entropy(h, labels, reduction="sum"), left)
        for layer, (a, d) in enumerate(zip(entered, arrived, strict=True)):
            norms += float((a.square().sum(1) * d.square().sum(1)).double().sum())
            sums[layer] = sums.get(layer, torch.zeros(())) + d.T @ a
    of_sum = sum(float(part.double().square().sum()) for part in sums.values())
    return of_sum / len(x) ** 2, norms / len(x)


def check_squares(workload: Workload, examples: int = 200) -> float:
    """By what share the ratio from `squares` differs from that of one backward pass per example."""
    torch.manual_seed(0)
    model = workload.model()
    data = tuple(part[:examples] for part in workload.data)
    slow = exact_noise(model, workload.loss, data)
    gradient, norms = squares(model, *data)
    ratio = (norms - gradient) * examples / (examples - 1) / gradient
    return abs(ratio / (slow.covariance_trace / slow.gradient_squared) - 1)


def train(workload: Workload, trial: Trial, overhead: float) -> tuple[NoiseScale, list[Snapshot]]:
    """With the monitor in the loop: so many steps, or where not every step is sampled, to the target."""
    target, (inputs, labels) = workload.target, workload.valid
    snapshots, accuracies = [], [0.0]
    with RandomStreams(trial.seed).active():
        stepper = Stepper(workload, workload.complete(trial))
        model, monitor = stepper.model, NoiseScale(stepper.model, stepper.optimizer, overhead=overhead)
        for batch in stepper.batches():
            snapshots.append({name: weights.clone() for name, weights in model.state_dict().items()})
            stepper.optimizer.zero_grad()
            workload.loss(model, batch).mean().backward()
            stepper.finish_step(batch)
            if math.isinf(overhead):
                if monitor.step == STEPS:
                    break
            elif monitor.step % EVALUATE_EVERY == 0:
                with torch.no_grad():
                    accuracies.append(float((model(inputs).argmax(1) == labels).float().mean()))
                if min(accuracies[-2:]) >= target:
                    break
    monitor.close()
    return monitor, snapshots


def references(workload: Workload, trial: Trial, snapshots: list[Snapshot], examples: int) -> Iterator[GradientSample]:
    """Of each step of a trajectory, from many examples."""
    inputs, labels = workload.data
    model, draw = workload.model(), torch.Generator().manual_seed(1000 + trial.seed)
    for step, weights in enumerate(snapshots):
        model.load_state_dict(weights)
        drawn = torch.randint(len(labels), (examples,), generator=draw)
        gradient, norms = squares(model, inputs[drawn], labels[drawn])
        yield GradientSample(step, examples, trial.learning_rate, gradient, norms / examples, 1 / examples)


def compared(workload: Workload, case: str, size: int, seed: int) -> dict[str, Any]:
    trial = Trial(size, RATES[size], seed)
    monitor, snapshots = train(workload, trial, math.inf if case == "every step" else 0.02)
    samples = list(references(workload, trial, snapshots, EXAMPLES[case]))
    found = monitor.estimate()
    first, last = found.steps
    truth, over_all = noise_scale(samples[first : last + 1]), noise_scale(samples)
    row = {
        "case": case,
        "batch_size": size,
        "seed": seed,
        "steps": monitor.step,
        "samples": found.samples,
        "sampled_steps": [first, last],
        "share_of_time": None if case == "every step" else round(monitor.share, 4),
        "noise_scale": [found.scale.estimate, found.scale.low, found.scale.high],
        "reference": [truth.scale.estimate, truth.scale.low, truth.scale.high],
        "over_all_steps": [over_all.scale.estimate, over_all.scale.low, over_all.scale.high],
        "stated": found.relative_error,
        "of_reference": truth.relative_error,
        "error": math.log(found.scale.estimate / truth.scale.estimate),
        "covered": truth.scale.estimate in found.scale,
        "covered_over_all_steps": over_all.scale.estimate in found.scale,
    }
    print(json.dumps(row), flush=True)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    stated = [row["stated"] for row in rows]
    return {
        **{key: rows[0][key] for key in ("case", "batch_size")},
        "stated": float(np.median(stated)),
        "largest_stated": max(stated),
        "within_the_bar": f"{sum(error <= BAR for error in stated)} of {len(rows)}",
        "seen": float(np.sqrt(np.mean(np.square([row["error"] for row in rows])))),
        "mean_error": float(np.mean([row["error"] for row in rows])),
        "of_reference": float(np.median([row["of_reference"] for row in rows])),
        **{key: f"{sum(row[key] for row in rows)} of {len(rows)}" for key in ("covered", "covered_over_all_steps")},
        "unbounded": sum(math.isinf(error) for error in stated),
        "samples": [min(row["samples"] for row in rows), max(row["samples"] for row in rows)],
    }


def finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_precision.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    workload = fashion_mnist.mlp()
    differs = check_squares(workload)
    assert differs < 1e-4, f"the reference is wrong by {differs:.2g}"
    rows, summaries = [], []
    for case in EXAMPLES:
        for size in RATES:
            of_case = [compared(workload, case, size, seed) for seed in range(given.seeds)]
            rows += of_case
            summaries.append(summary(of_case))
            print(json.dumps(summaries[-1]), flush=True)
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    about = {"command": f"python benchmarks/noise_precision.py --seeds {given.seeds}", "machine": machine}
    about |= {"learning_rates": RATES, "bar": BAR, "reference_differs_from_loop_by": differs}
    given.out.write_text(json.dumps(finite({**about, "summaries": summaries, "rows": rows}), indent=1) + "\n")


if __name__ == "__main__":
    main()
