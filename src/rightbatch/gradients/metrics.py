"""The metric in which an optimizer takes its steps: what it multiplies each element of the gradient by, less the rate.

The noise scale of a preconditioned optimizer is that its own metric, tr(P Sigma) / G^T P G, where a step is rate P g
(alike for Adam: Qiao et al. 2021, arXiv 2008.12260). For plain SGD P is the identity.

To add an optimizer, write a function from its state for a parameter, and its settings, to P, and enter it below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Metric = Mapping[nn.Parameter, Tensor]
"""P of each parameter, of its shape."""

Preconditioner = Callable[[Mapping[str, Any], Mapping[str, Any]], Tensor]


def of_adam(state: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """1 / (sqrt(v) + epsilon), v being the mean square, corrected for its start from zero (Kingma and Ba 2015)."""
    squares = state["max_exp_avg_sq"] if settings.get("amsgrad") else state["exp_avg_sq"]
    corrected: Tensor = squares / (1 - settings["betas"][1] ** float(state["step"]))
    return _inverse(corrected.sqrt() + settings["eps"])


def of_adamax(state: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """1 / u, u being the largest gradient with decay."""
    infinity: Tensor = state["exp_inf"]
    return _inverse(infinity.clamp_min(settings["eps"]))


def of_rmsprop(state: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """1 / (sqrt(v) + epsilon), v being the mean square, less the square of the mean where it is centered."""
    squares: Tensor = state["square_avg"]
    if settings["centered"]:
        squares = (squares - state["grad_avg"].square()).clamp_min(0)
    return _inverse(squares.sqrt() + settings["eps"])


def of_adagrad(state: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """1 / (sqrt(s) + epsilon), s being the sum of squares."""
    total: Tensor = state["sum"]
    return _inverse(total.sqrt() + settings["eps"])


def _inverse(tensor: Tensor) -> Tensor:
    return tensor.reciprocal()


PRECONDITIONERS: dict[type[torch.optim.Optimizer], Preconditioner] = {
    torch.optim.Adam: of_adam,
    torch.optim.AdamW: of_adam,
    torch.optim.NAdam: of_adam,
    torch.optim.Adamax: of_adamax,
    torch.optim.RMSprop: of_rmsprop,
    torch.optim.Adagrad: of_adagrad,
}


def preconditions(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the metric of this optimizer is known, and another than that of plain SGD."""
    return type(optimizer) in PRECONDITIONERS


def metric_of(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, Tensor] | None:
    """P of each trained parameter, of its shape, at least float32; None where there is none, or not yet.

    It is that of the last step, so that it has no noise in common with the gradient that is looked at.
    """
    preconditioner = PRECONDITIONERS.get(type(optimizer))
    if preconditioner is None:
        return None
    found: dict[nn.Parameter, Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state and float(state["step"]) > 0:
                found[parameter] = preconditioner(state, group)
    return found or None
