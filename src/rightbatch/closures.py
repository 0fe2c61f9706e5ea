"""Optimizers that look at a batch several times in a step: they take a closure that computes its gradients."""

from __future__ import annotations

import inspect

import torch


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` cannot do without a closure (`torch.optim.LBFGS`, `rightbatch.EMSO`)."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
