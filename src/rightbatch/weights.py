"""The weights of a run that are kept: those of its end, or those of its best evaluation."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from rightbatch.errors import InputError, StudyError
from rightbatch.records import Point, WorkloadFacts

Keep = Literal["none", "best", "last"]


class KeptWeights:
    """Looks at a run after every evaluation and remembers what `keep` asks for, on the CPU."""

    def __init__(self, keep: Keep, facts: WorkloadFacts) -> None:
        if keep not in ("none", "best", "last"):
            raise InputError(f"Models are kept as none, best or last, got {keep!r}.")
        self._keep = keep
        self._quantity = facts.target_quantity
        self._sign = 1.0 if facts.quantity_direction(self._quantity) == "max" else -1.0
        self._best = -math.inf
        self._weights: dict[str, torch.Tensor] | None = None

    def see(self, point: Point, model: torch.nn.Module) -> None:
        """A new evaluation: with "best", copy the weights if it is the best so far."""
        value = getattr(point, self._quantity)
        if self._keep != "best" or value is None or not self._sign * value > self._best:
            return
        self._best = self._sign * value
        self._weights = {name: tensor.detach().cpu().clone() for name, tensor in _tensors(model).items()}

    def write(self, path: Path, model: torch.nn.Module) -> bool:
        """Write them to a file, whole or not at all; False where none are kept. Raises `StudyError` if it cannot."""
        weights = _tensors(model) if self._keep == "last" else self._weights
        if weights is None:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
                torch.save(weights, file)
            os.replace(file.name, path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise StudyError(
                f"The weights {path} cannot be written: {error}. Free some space, or use --keep-models none."
            ) from error
        return True

    def state(self) -> dict[str, Any]:
        """What a run that goes on must remember."""
        return {"best": self._best, "weights": self._weights}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        self._best, self._weights = state["best"], state["weights"]


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
