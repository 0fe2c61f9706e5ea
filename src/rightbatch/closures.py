"""Optimizers that look at a batch several times in a step: they take a closure that computes its gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` cannot do without a closure (`torch.optim.LBFGS`, `rightbatch.EMSO`)."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def tells_when_first_done(closure: Callable[[], Any], tell: Callable[[], None]) -> Callable[[], Any]:
    """The same closure; after its first evaluation, at the weights that the step starts from, `tell` is called.

    `inspect.unwrap` gives the closure back.
    """
    told = False

    @functools.wraps(closure)
    def evaluate() -> Any:
        nonlocal told
        found = closure()
        if not told:
            told = True
            tell()
        return found

    return evaluate
