"""The random generators of a process, kept apart for each run. Imports no torch: loops of one's own may do without."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np


class RandomStreams:
    """The random generators of one run (Python, NumPy, torch on CPU and GPU), swapped in while the run advances.

    So several runs take turns in one process, and what else the process draws changes none of them. Torch takes part
    where the process has imported it.
    """

    def __init__(self, seed: int) -> None:
        with self._outside_kept():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the person's code may use NumPy's global generator
            if (torch := _torch()) is not None:
                torch.manual_seed(seed)
            self._seed = seed
            self._mine = _get_random_states()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The block's draws come from these streams."""
        with self._outside_kept():
            if (torch := _torch()) is not None and "torch" not in self._mine:
                torch.manual_seed(self._seed)  # imported since these streams were made
            _set_random_states(self._mine)
            try:
                yield
            finally:
                self._mine = _get_random_states()

    @contextlib.contextmanager
    def _outside_kept(self) -> Iterator[None]:
        outside = _get_random_states()
        try:
            yield
        finally:
            _set_random_states(outside)

    def state(self) -> dict[str, Any]:
        """The streams as plain values and tensors."""
        return self._mine

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        self._mine = state


def _torch() -> Any:
    return sys.modules.get("torch")


def _get_random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    states: dict[str, Any] = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}
    if (torch := _torch()) is not None:
        states["torch"] = torch.get_rng_state()
        states["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        states["mps"] = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch = _torch()
    if torch is None or "torch" not in states:
        return
    torch.set_rng_state(states["torch"])
    # A state may have been saved on another machine: without its device, there is nothing to set.
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if states["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
