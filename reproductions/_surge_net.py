"""Sign descent on a convolutional network: the best rate of one step, and of ten, and what the theory predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch import Workload
from rightbatch.bundled import fashion_mnist
from rightbatch.gradients.hessian import gradient_of, hessian_products, shaped
from rightbatch.gradients.rows import gradient_rows

torch.set_num_threads(1)

JUDGED = 4000
"""Training examples that a loss is over."""

KNOWN = 20_000
"""Examples that the mean and the deviation of the gradient are of."""

PROBES = 40
"""Random vectors that a trace is estimated by."""

BENT = 1000
"""Examples that the Hessian is of, along drawn signs."""


@cache
def work() -> Workload:
    """Fashion-MNIST by two convolutions and two linear layers, 29 thousand parameters."""
    return fashion_mnist.cnn()


def begun(folder: Path, loss: float) -> nn.Module:
    """The network where sign descent with batches of 64 at a rate of 3e-4 first had this loss; kept in a file."""
    torch.manual_seed(0)
    model = work().model()
    path = folder / f"begun-{loss:g}.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    generator = torch.Generator().manual_seed(1)
    while judged(model) > loss:
        for _ in range(10):
            descend(model, drawn(64, generator), 3e-4)
    torch.save(model.state_dict(), path)
    return model


def drawn(batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch, with replacement."""
    inputs, labels = work().data
    chosen = torch.randint(len(inputs), (batch_size,), generator=generator)
    return inputs[chosen], labels[chosen]


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def judged(model: nn.Module) -> float:
    """The loss over the same training examples always."""
    inputs, labels = work().data
    return float(mean_loss(model, (inputs[:JUDGED], labels[:JUDGED])))


def signs(model: nn.Module, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Of the gradient."""
    return [g.sign() for g in gradient_of(mean_loss(model, batch), list(model.parameters()))]


def descend(model: nn.Module, batch: tuple[Tensor, Tensor], rate: float) -> None:
    """A step of Adam without memory: every entry by the rate, against its sign."""
    found = signs(model, batch)
    with torch.no_grad():
        torch._foreach_add_(list(model.parameters()), found, alpha=-rate)


def losses_after(
    folder: Path, start: float, batch_size: int, rates: Sequence[float], steps: int, seeds: int
) -> list[list[float]]:
    """How much lower the loss is after so many steps at each rate, `[seeds, rates]`; a seed has the same batches."""
    model = begun(folder, start)
    before, weights = judged(model), [p.detach().clone() for p in model.parameters()]
    found = []
    for seed in range(seeds):
        row = []
        for rate in rates:
            generator = torch.Generator().manual_seed(10_000 * seed + batch_size)
            for _ in range(steps):
                descend(model, drawn(batch_size, generator), rate)
            row.append(before - judged(model))
            place(model, weights)
        found.append([value if math.isfinite(value) else -1e3 for value in row])
    return found


@torch.no_grad()
def place(model: nn.Module, weights: Sequence[Tensor]) -> None:
    """Put the weights there."""
    for parameter, value in zip(model.parameters(), weights, strict=True):
        parameter.copy_(value)


def predicted(folder: Path, start: float, sizes: Sequence[int]) -> dict[str, Any]:
    """What equations 9, 10 and 14 say of the network: the best rate of one step at each size, and where it peaks."""
    model = begun(folder, start)
    mean, deviation = moments(model)
    ratio = torch.where(deviation > 0, mean / deviation.clamp_min(1e-30), torch.zeros_like(mean))
    inputs, labels = work().data
    loss = mean_loss(model, (inputs[:JUDGED], labels[:JUDGED]))
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(2)
    probes = [torch.randint(2, mean.shape, generator=generator).double() * 2 - 1 for _ in range(PROBES)]

    expected = {size: torch.erf(math.sqrt(size / 2) * ratio) for size in sizes}
    vectors = [ratio, *expected.values(), *probes]
    scaled = [vector / vector.norm() for vector in vectors]  # so that single precision has the same digits for all
    products = hessian_products(loss, parameters, [shaped(vector, parameters) for vector in scaled])
    curved = [
        torch.cat([part.double().flatten() for part in product]) * vector.norm()
        for product, vector in zip(products, vectors, strict=True)
    ]
    diagonal = torch.stack([z * product for z, product in zip(probes, curved[1 + len(sizes) :], strict=True)])
    pairs = float(ratio @ curved[0]) - float((diagonal.mean(0) * ratio**2).sum())
    rates = {}
    for (size, signs_), product in zip(expected.items(), curved[1 : 1 + len(sizes)], strict=True):
        bends = float(((1 - signs_**2) * diagonal.mean(0)).sum()) + float(signs_ @ product)
        rates[str(size)] = float(signs_ @ mean) / bends
    trace = diagonal.sum(1)
    largest = max(sizes)
    along = float(expected[largest] @ curved[1 + list(sizes).index(largest)])
    return {
        "bends_without_noise": along,
        "rates": rates,
        "trace": float(trace.mean()),
        "trace_error": float(trace.std() / math.sqrt(PROBES)),
        "pairs": pairs,
        "noise_scale": math.pi * float(trace.mean()) / (2 * pairs) if pairs > 0 else None,
        "reach": float(math.pi / (2 * (ratio[ratio != 0] ** 2).mean())),
    }


def second_order(folder: Path, start: float, batch_size: int, draws: int, bent_draws: int) -> dict[str, list[float]]:
    """Of drawn steps s'mu, and of the first of them s'Hs: their means give the best rate where the loss is a parabola.

    Nothing is assumed of how the entries of a gradient go together.
    """
    model = begun(folder, start)
    parameters, (inputs, labels) = list(model.parameters()), work().data
    slope = gradient_of(mean_loss(model, (inputs[:JUDGED], labels[:JUDGED])), parameters)
    generator = torch.Generator().manual_seed(batch_size)
    kept, helps = [], []
    for _ in range(draws):
        along = signs(model, drawn(batch_size, generator))
        helps.append(dot(along, slope))
        if len(kept) < bent_draws:
            kept.append(along)
    bent = hessian_products(mean_loss(model, (inputs[:BENT], labels[:BENT])), parameters, kept)
    return {"helps": helps, "bends": [dot(along, product) for along, product in zip(kept, bent, strict=True)]}


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """In double precision."""
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(left, right, strict=True))


def moments(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the gradient of an example, `[d]` each, in double precision."""
    inputs, labels = work().data
    total = squares = torch.zeros(())
    for rows, _ in gradient_rows(model, work().loss, (inputs[:KNOWN], labels[:KNOWN])):
        total, squares = total + rows.double().sum(0), squares + rows.double().square().sum(0)
    mean = total / KNOWN
    return mean, ((squares / KNOWN - mean**2).clamp_min(0) * KNOWN / (KNOWN - 1)).sqrt()
