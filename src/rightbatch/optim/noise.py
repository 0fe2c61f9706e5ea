"""The covariance of gradients as they come, in the state of an optimizer: one pass, kept with it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor


class RunningCovariance:
    """Mean and covariance of vectors that are added one after another (Welford 1962), kept in a given state.

    full: The whole matrix, `[d, d]`; else the diagonal.
    """

    def __init__(self, state: MutableMapping[str, Any], *, full: bool) -> None:
        self._state, self._full = state, full

    def add(self, vector: Tensor) -> None:
        """Count in a vector `[d]`."""
        state = self._state
        if "noise_count" not in state:
            state["noise_count"] = 0
            state["noise_mean"] = torch.zeros_like(vector)
            state["noise_sums"] = vector.new_zeros((len(vector), len(vector)) if self._full else len(vector))
        state["noise_count"] += 1
        before = vector - state["noise_mean"]
        state["noise_mean"] += before / state["noise_count"]
        after = vector - state["noise_mean"]
        state["noise_sums"] += torch.outer(before, after) if self._full else before * after

    def matrix(self) -> Tensor:
        """The covariance, `[d, d]`, of all that was added."""
        found: Tensor = self._state["noise_sums"] / (self._state["noise_count"] - 1)
        return (found + found.T) / 2

    def diagonal(self) -> Tensor:
        """Its diagonal, `[d]`."""
        sums = self._state["noise_sums"]
        found: Tensor = (sums.diagonal() if self._full else sums) / (self._state["noise_count"] - 1)
        return found.clamp(min=0)
