"""Gradient noise scales of published tools and ours on the same training, whose critical batch size is measured.

    PYTHONPATH=/where/the/tools/are python benchmarks/noise_peers.py

An MLP 784-512-512-10, batch size 64, plain SGD, 200 steps, of the embedded digits (resized to 28x28, 1,437 of them,
rate 0.1) and of synthetic images (20,000, of 10 classes with 5 smooth prototypes each, unit noise, 10 % of the labels
drawn anew, rate 0.2). Every tool watches that training with the smoothing that it has by itself.

BackPACK, cockpit and AdaptDL are run as they are, where they are installed (the latter two need setuptools below 81).
Tools that cannot be installed, or need several processes, are written out from their formulas ("formula of ..."):
nanoGNS (arXiv 2411.00999), k-diffusion, gpt-neox and tensight. BackPACK gives norms and no average: it is given that of
nanoGNS, whose exact hooks say the same for linear layers.

The reference is the noise scale from the gradients of all digits, or of 4,000 of the synthetic examples drawn anew, at
every step of the same training, averaged as the tool averages: over all steps from its first one ("all"), with an
exponential average ("ema"), or not at all ("now"). `negative` counts the steps after which the estimate of |G|^2 was
not positive; some tools clamp it. CABS and the norm test suggest batch sizes by rules of their own, and are no noise
scales. The critical batch size is from a sweep: five sizes, the rate tuned on the lattice 10^(k/4), three seeds.
Null stands for infinity, and where a tool has nothing to say yet.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from noise_precision import finite, squares  # a file beside this one
from torch import nn
from torch.nn.functional import interpolate

from rightbatch import NoiseScale, Workload, sweep
from rightbatch.bundled import digits
from rightbatch.bundled.classification import Pair, accuracy, cross_entropy, sgd_with_momentum
from rightbatch.fit.noise import FEWEST_SAMPLES

BATCH, STEPS, SHOWN = 64, 200, (20, 50, 100, 200)
REFERENCE_EXAMPLES = 4000
EMA = 0.9
PROTOTYPE_DEVIATION = 0.45
"""Of a pixel, where the noise has 1: a network learns the synthetic images in about as many steps as the digits."""


class Problem(NamedTuple):
    """Data and what a training on them is."""

    train: Pair
    valid: Pair
    rate: float
    target: float
    sizes: tuple[int, ...]
    run_seconds: float


def large_digits() -> Problem:
    small = digits.digits()
    mean, deviation = small.data[0].mean(), small.data[0].std()

    def part(pair: Pair) -> Pair:
        images = (pair[0].view(-1, 1, 8, 8) - mean) / deviation
        return interpolate(images, size=28, mode="bilinear", align_corners=False).flatten(1), pair[1]

    return Problem(part(small.data), part(small.valid), 0.1, 0.93, (4, 16, 64, 256, 1024), 5)


def synthetic() -> Problem:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(50, 1, 7, 7, generator=draw)
    prototypes = PROTOTYPE_DEVIATION * interpolate(coarse, size=28, mode="bicubic").flatten(1)

    def part(examples: int) -> Pair:
        kinds = torch.randint(50, (examples,), generator=draw)
        wrong = torch.rand(examples, generator=draw) < 0.1
        labels = torch.where(wrong, torch.randint(10, (examples,), generator=draw), kinds % 10)
        return prototypes[kinds] + torch.randn(examples, 784, generator=draw), labels

    return Problem(part(20_000), part(4_000), 0.2, 0.88, (8, 32, 128, 512, 2048), 8)


PROBLEMS: dict[str, Callable[[], Problem]] = {"digits": large_digits, "synthetic": synthetic}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def critical(name: str, problem: Problem) -> dict[str, Any]:
    """By steps to the target, with rightbatch's own sweep and fit."""
    workload = Workload(
        name=name, model=mlp, data=problem.train, valid=problem.valid, loss=cross_entropy, metric=accuracy,
        direction="max", optimizer=sgd_with_momentum, settings={"momentum": 0.0}, target=problem.target,
        present=(BATCH, problem.rate), planned_examples=20 * 20_000,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        answer = sweep(
            workload, problem.sizes, study=Path(folder) / "x.study.db", until="target", run_seconds=problem.run_seconds
        )
    found = answer.tradeoff.critical_batch_size if answer.tradeoff else None
    return {
        "critical_batch_size": [found.estimate, found.low, found.high] if found else None,
        "steps": {row.batch_size: row.steps for row in answer.sizes},
        "rates": {row.batch_size: row.learning_rate for row in answer.sizes},
        "at_edge": [row.batch_size for row in answer.sizes if row.at_edge],
    }


# ----------------------------------------------------------------------------------------------------------- the tools


class Seen(NamedTuple):
    """What a tool says after a step: the noise scale, and whether its estimate of |G|^2 was positive.

    since: The first step that the estimate is of, where it is not the first of the training.
    """

    scale: float
    positive: bool
    interval: tuple[float, float] | None = None
    since: int = 0


Watch = tuple[Callable[[torch.Tensor, torch.Tensor], None], Callable[[], Seen | None]]
"""The backward pass of a batch, which leaves the gradients; and what the tool says after the step."""

loss = nn.CrossEntropyLoss()


class Average:
    """An exponential average of |G|^2 and tr(Sigma), from the squared norms of a smaller and a larger batch."""

    def __init__(self, beta: float, small: int, large: int = BATCH) -> None:
        self.beta, self.small, self.large = beta, small, large
        self.gradient = self.trace = 0.0

    def add(self, small_squared: float, large_squared: float) -> None:
        b, B, keep = self.small, self.large, self.beta
        self.gradient = keep * self.gradient + (1 - keep) * (B * large_squared - b * small_squared) / (B - b)
        self.trace = keep * self.trace + (1 - keep) * (small_squared - large_squared) / (1 / b - 1 / B)

    def seen(self) -> Seen:
        # The bias of both averages towards zero is the same, and leaves the ratio.
        return Seen(self.trace / self.gradient if self.gradient else math.inf, self.gradient > 0)


def squared(gradients: Any) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum())


def gradients_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def ours(overhead: float) -> Callable[..., Watch]:
    def make(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
        monitor = NoiseScale(model, optimizer, overhead=overhead)

        def say() -> Seen | None:
            if len(monitor.samples) < FEWEST_SAMPLES:
                return None
            found = monitor.estimate()
            scale = found.scale
            positive = found.gradient_squared.estimate > 0
            return Seen(scale.estimate, positive, (scale.low or 0.0, scale.high or math.inf), found.steps[0])

        return (lambda x, y: loss(model(x), y).backward()), say

    return make


def backpack_norms(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    import backpack

    extended, of_batch, average = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss()), Average(EMA, 1)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        with backpack.backpack(backpack.extensions.BatchL2Grad()):
            of_batch(extended(x), y).backward()
        examples = torch.stack([parameter.batch_l2.sum() for parameter in model.parameters()]).sum()
        average.add(float(examples) * BATCH, squared(gradients_of(model)))  # of contributions 1/B each

    return step, average.seen


def scaled_output(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    """nanoGNS, sogns: each example's gradient as that of the output times the norm of the input, sums of these too."""
    average, found = Average(EMA, 1), []

    def hook(module: nn.Linear, entered: Any, output: torch.Tensor) -> None:
        norm = entered[0].detach().norm(dim=1, keepdim=True)

        def arrived(gradient: torch.Tensor) -> None:
            scaled = norm * gradient
            examples = scaled.square().sum() + gradient.square().sum()
            found.append((float(examples), float(scaled.sum(0).square().sum() + gradient.sum(0).square().sum())))

        output.register_hook(arrived)

    for module in model:  # type: ignore[attr-defined]
        if isinstance(module, nn.Linear):
            module.register_forward_hook(hook)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        found.clear()
        loss(model(x), y).backward()
        examples, whole = np.sum(found, axis=0)
        average.add(examples * BATCH, whole)

    return step, average.seen


def two_micro_batches(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    """k-diffusion: the gradients of two halves, each as of a process of its own."""
    average = Average(0.9998, BATCH // 2)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        halves = [
            torch.autograd.grad(loss(model(part), labels), list(model.parameters()))
            for part, labels in zip(x.chunk(2), y.chunk(2), strict=True)
        ]
        for parameter, first, second in zip(model.parameters(), *halves, strict=True):
            parameter.grad = (first + second) / 2
        average.add((squared(halves[0]) + squared(halves[1])) / 2, squared(gradients_of(model)))

    return step, average.seen


def successive_steps(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    """gpt-neox: the last gradient of every 10 steps against their mean, while the weights move on."""
    average, kept = Average(0.99, BATCH, 10 * BATCH), []

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        loss(model(x), y).backward()
        kept.append([gradient.clone() for gradient in gradients_of(model)])
        if len(kept) == 10:
            average.add(squared(kept[-1]), squared(torch.stack(of).mean(0) for of in zip(*kept, strict=True)))
            kept.clear()

    return step, lambda: average.seen() if average.trace else None


def adaptdl_differences(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    """AdaptDL on one replica: half the difference of two successive gradients is taken for noise."""
    from adaptdl.torch.gradient_noise_scale import GradientNoiseScale

    tool = GradientNoiseScale(SimpleNamespace(require_backward_grad_sync=True), optimizer, num_replicas=1)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        tool.reset_accumulation()
        loss(model(x), y).backward()

    def say() -> Seen:
        gradient = tool.sqr_avg()
        return Seen(BATCH * tool.var_avg() / gradient if gradient else math.inf, float(tool.raw_sqr_avg.sum()) > 0)

    return step, say


def cockpit_quantity(name: str) -> Callable[..., Watch]:
    """The batch size that CABS suggests, or where the norm test would just pass with theta = 1."""

    def make(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
        import backpack
        from cockpit import Cockpit, quantities

        extended, of_batch = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss())
        quantity = getattr(quantities, name)(track_schedule=lambda step: step + 1 in SHOWN)
        cockpit, steps = Cockpit(model.parameters(), quantities=[quantity]), itertools.count()

        def step(x: torch.Tensor, y: torch.Tensor) -> None:
            value = of_batch(extended(x), y)
            with cockpit(next(steps), info={"batch_size": BATCH, "optimizer": optimizer, "loss": value}):
                value.backward()

        def say() -> Seen | None:
            if not quantity.output:
                return None
            value = float(quantity.output.popitem()[1])  # each once
            return Seen(value if name == "CABS" else BATCH * value**2, True)

        return step, say

    return make


def batch_variance(model: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem) -> Watch:
    """tensight, at the steps that are shown: the variance of the gradients of 10 batches, without the factor B."""
    x, y = problem.train
    draw, done = torch.Generator().manual_seed(1), []

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        done.append(None)
        loss(model(inputs), labels).backward()

    def say() -> Seen | None:
        if len(done) not in SHOWN:
            return None
        batches = torch.randperm(len(y), generator=draw)[: 10 * BATCH].split(BATCH)
        found = [torch.autograd.grad(loss(model(x[i]), y[i]), list(model.parameters())) for i in batches]
        flat = torch.stack([torch.cat([gradient.flatten() for gradient in of]) for of in found])
        mean = flat.mean(0)
        return Seen(float((flat - mean).square().sum(1).mean() / mean.square().sum()), True)

    return step, say


class Tool(NamedTuple):
    make: Callable[..., Watch]
    averages: str
    """Over which steps, for the reference: "all", "ema", or "now"."""
    needs: str | None = None


TOOLS = {
    "rightbatch, every step": Tool(ours(math.inf), "all"),
    "rightbatch, 2 % of the time": Tool(ours(0.02), "all"),
    "BackPACK BatchL2Grad, average 0.9": Tool(backpack_norms, "ema", "backpack"),
    "formula of nanoGNS (sogns)": Tool(scaled_output, "ema"),
    "formula of k-diffusion": Tool(two_micro_batches, "all"),
    "formula of gpt-neox": Tool(successive_steps, "all"),
    "AdaptDL": Tool(adaptdl_differences, "all", "adaptdl"),
    "formula of tensight": Tool(batch_variance, "now"),
    "cockpit CABS": Tool(cockpit_quantity("CABS"), "now", "cockpit"),
    "cockpit NormTest": Tool(cockpit_quantity("NormTest"), "now", "cockpit"),
}


# --------------------------------------------------------------------------------------------------------- the training


def batches(problem: Problem) -> Iterator[Pair]:
    draw, (x, y) = torch.Generator().manual_seed(0), problem.train
    while True:
        for chosen in torch.randperm(len(y), generator=draw).split(BATCH):
            if len(chosen) == BATCH:
                yield x[chosen], y[chosen]


def training(problem: Problem, make: Callable[..., Watch]) -> list[Seen | None]:
    """What a tool says after each step of the one training."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.rate)
    step, say = make(model, optimizer, problem)
    said = []
    for _, (x, y) in zip(range(STEPS), batches(problem), strict=False):
        optimizer.zero_grad()
        step(x, y)
        optimizer.step()
        said.append(say())
    return said


def exact(problem: Problem) -> np.ndarray:
    """|G|^2 and tr(Sigma) before each step, [steps, 2]."""
    terms, draw = [], torch.Generator().manual_seed(2)
    x, y = problem.train

    def make(model: nn.Sequential, *_: Any) -> Watch:
        def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
            everything = len(y) <= REFERENCE_EXAMPLES
            chosen = (
                torch.arange(len(y)) if everything else torch.randint(len(y), (REFERENCE_EXAMPLES,), generator=draw)
            )
            n = len(chosen)
            gradient, norms = squares(model, x[chosen], y[chosen])
            trace = (norms - gradient) * n / (n - 1)
            terms.append((gradient if everything else gradient - trace / n, trace))
            loss(model(inputs), labels).backward()

        return step, lambda: None

    training(problem, make)
    return np.array(terms)


def reference(terms: np.ndarray, averages: str, steps: int, since: int = 0) -> float:
    """The ratio of averages over the first `steps`, weighed as a tool does it."""
    seen = terms[since:steps]
    weights = {
        "all": np.ones(len(seen)),
        "ema": EMA ** np.arange(len(seen))[::-1],
        "now": np.arange(len(seen)) == len(seen) - 1,
    }
    gradient, trace = weights[averages] @ seen
    return float(trace / gradient)


def compared(problem: Problem, name: str, tool: Tool, terms: np.ndarray) -> dict[str, Any]:
    said = training(problem, tool.make)
    at = [said[step - 1] for step in SHOWN]
    truths = [
        reference(terms, tool.averages, step, one.since if one else 0) for step, one in zip(SHOWN, at, strict=True)
    ]
    last, known = at[-1], [one for one in said if one is not None]
    row = {
        "tool": name,
        "averages": tool.averages,
        "said": [one.scale if one else None for one in at],
        "interval": list(last.interval) if last and last.interval else None,
        "since": last.since if last else None,
        "reference": truths,
        "over_reference": last.scale / truths[-1] if last else None,
        "negative": f"{sum(not one.positive for one in known)} of {len(known)}",
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_peers.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of the peers
    results = {}
    for name, make in PROBLEMS.items():
        problem = make()
        terms = exact(problem)
        usable = {tool: how for tool, how in TOOLS.items() if how.needs is None or find_spec(how.needs) is not None}
        rows = [compared(problem, tool, how, terms) for tool, how in usable.items()]
        results[name] = {**critical(name, problem), "rows": rows}
        print(json.dumps({**results[name], "rows": None}), flush=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    for package in ("backpack-for-pytorch", "cockpit-for-pytorch", "adaptdl"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    about = {"command": "python benchmarks/noise_peers.py", "machine": {**versions, "threads": 1}}
    about |= {"batch_size": BATCH, "steps": STEPS, "shown": SHOWN}
    given.out.write_text(json.dumps(finite({**about, "problems": results}), indent=1) + "\n")


if __name__ == "__main__":
    main()
