"""A network on Fashion-MNIST whose rate is divided, or whose batch is multiplied, at the same epochs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch.bundled import fashion_mnist

torch.set_num_threads(1)

EXAMPLES = 20_000
JUDGED = 5000


@cache
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images `[N, 1, 28, 28]` and labels, to train on and to validate."""
    workload = fashion_mnist.mlp()
    (images, labels), (valid_images, valid_labels) = workload.data, workload.valid
    return images[:EXAMPLES], labels[:EXAMPLES], valid_images, valid_labels


def trained(phases: Sequence[tuple[int, int, float]], optimizer: str, momentum: float, seed: int) -> dict[str, Any]:
    """One training in phases of (epochs, batch size, rate): what was seen after each epoch, and the updates made.

    The order of the examples is that of the seed, whatever the batch size; what is left of an epoch is left out.
    """
    torch.manual_seed(seed)
    images, labels, valid_images, valid_labels = data()
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    made: torch.optim.Optimizer = (
        torch.optim.Adam(model.parameters(), lr=phases[0][2])
        if optimizer == "Adam"
        else torch.optim.SGD(model.parameters(), lr=phases[0][2], momentum=momentum)
    )
    order = torch.Generator().manual_seed(seed)
    losses, accuracies, updates = [], [], 0
    for epochs, batch_size, rate in phases:
        made.param_groups[0]["lr"] = rate
        for _ in range(epochs):
            for chosen in torch.randperm(EXAMPLES, generator=order).split(batch_size):
                if len(chosen) < batch_size:
                    continue
                made.zero_grad()
                nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                made.step()
                updates += 1
            with torch.no_grad():
                losses.append(float(nn.functional.cross_entropy(model(images[:JUDGED]), labels[:JUDGED])))
                right = model(valid_images).argmax(1) == valid_labels
                accuracies.append(float(right.float().mean()))
    return {"loss": losses, "accuracy": accuracies, "updates": updates}
