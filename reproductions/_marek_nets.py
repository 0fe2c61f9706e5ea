"""What `marek.py` trains: one block of the bundled transformer on characters of Shakespeare, by Adam or plain SGD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from rightbatch import Trial, Workload
from rightbatch.bundled import char_lm

WARM_UP = 0.1
"""Share of a run in which the rate rises; in the rest it falls to 0."""

KINDS = 65


def adam() -> Workload:
    """Adam with a setting `beta2` and without weight decay."""
    return on_characters("marek Adam", adam_optimizer, {"beta2": 0.95}, 0.00562)


def adam_smoke() -> Workload:
    """The same, judged on few windows: whether everything runs."""
    return replace(adam(), name="marek Adam, judged on few windows", evaluation_examples=40)


def sgd() -> Workload:
    """SGD without momentum, which has no state at all."""
    return on_characters("marek SGD", sgd_optimizer, {}, 0.316)


def on_characters(name: str, optimizer: object, settings: dict[str, float], rate: float) -> Workload:
    """One block on windows of 64 characters, the rate rising and then falling to 0.

    All runs are compared at the end of the same planned length, so that none is to be run at shorter ones too: hence
    `length_bound` is off, although what a run has reached half-way says nothing of a shorter run.
    """
    return replace(
        char_lm.transformer(),
        name=name,
        model=one_block,
        optimizer=optimizer,
        schedule=up_and_down,
        length_bound=False,
        settings=settings,
        present=(64, rate),
        target=2.5,
        evaluation_examples=200,
    )


def one_block() -> nn.Module:
    """The bundled transformer with one block of its two: 63 thousand parameters."""
    network = char_lm.Transformer(KINDS)
    network.blocks = network.blocks[:1]
    return network


def adam_optimizer(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Adam at the trial's rate and `beta2`; fused, since at batch size 1 most of a step is the update."""
    return torch.optim.Adam(parameters, lr=trial.learning_rate, betas=(0.9, float(trial.settings["beta2"])), fused=True)


def sgd_optimizer(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """SGD at the trial's rate."""
    return torch.optim.SGD(parameters, lr=trial.learning_rate, fused=True)


def up_and_down(optimizer: torch.optim.Optimizer, trial: Trial) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate by step: up in a straight line over the first tenth of the run, and down to 0."""
    steps = trial.planned_steps or 1
    rising = max(1, round(WARM_UP * steps))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, steps, rising))


def share_of_rate(step: int, steps: int, rising: int) -> float:
    """What is in force of the rate at a step, counted from 0: never 0 before the end."""
    return min((step + 1) / rising, max(0, steps - step) / max(1, steps - rising))
