"""What a monitor remembers from sample to sample: how the norms of examples go with what is had for nearly nothing."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 8
"""So many examples are taken exactly. The draw is one source of noise of many in a step, and steps are averaged."""

CHECK_EVERY = 16
"""One sample of so many takes all examples."""

EXPLAINED = 0.25
"""What stands for the norms is only computed where it explains such a share of their variance."""


class Slopes:
    """What is remembered from sample to sample: the slopes, what adds up, and where the draws are."""

    def __init__(self, few: int = FEW) -> None:
        self.few, self.samples = few, 0
        self.generator = torch.Generator().manual_seed(0)  # its own: no draw of a training changes
        self.uncovered: dict[str, str] = {}
        self.explaining: frozenset[str] = frozenset()
        self._names: tuple[str, ...] = ()
        self._values = torch.zeros(0, 1)

    @property
    def due_for_check(self) -> bool:
        """Whether the next sample takes all examples."""
        return self.samples % CHECK_EVERY == 0

    def of(self, names: tuple[str, ...], like: Tensor) -> Tensor:
        """[parameters, metrics] for `like`, [parameters, metrics, examples]; 0 where nothing is known yet."""
        if names == self._names and self._values.shape == like.shape[:2]:
            return self._values
        found = like.new_zeros(like.shape[:2])
        if self._values.shape[1] == found.shape[1]:  # an optimizer has no metric before its first step
            for k, name in enumerate(names):
                if name in self._names:
                    found[k] = self._values[self._names.index(name)]
        return found

    def learn(self, names: tuple[str, ...], exact: Tensor, near: Tensor) -> None:
        """From the norms of all examples, [parameters, metrics, examples], and what stands for them, [.., examples]."""
        deviations = near - near.mean(1, keepdim=True)
        variance = deviations.square().sum(1, keepdim=True)
        slope = (exact * deviations.unsqueeze(1)).sum(2) / variance.clamp_min(torch.finfo(near.dtype).tiny)
        known = self.of(names, exact)
        mixed = torch.where(known == 0, slope, (known + slope) / 2)
        self._names, self._values = names, torch.where(torch.isfinite(slope), mixed, known)
        varies = exact[:, 0] - exact[:, 0].mean(1, keepdim=True)
        explained = slope[:, 0].square() * variance[:, 0] > EXPLAINED * varies.square().sum(1)
        self.explaining = frozenset(name for name, enough in zip(names, explained.tolist(), strict=True) if enough)
