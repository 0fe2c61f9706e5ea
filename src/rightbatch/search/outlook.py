"""What the search of few runs expects of every size and rate, after the runs that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rightbatch.evidence import Evidence
from rightbatch.records import Interval
from rightbatch.search.belief import Belief
from rightbatch.search.progress import Progress
from rightbatch.search.searcher import Guess

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NEARLY = 0.05
"""Of two cells whose expected log costs differ by less, the one that has reached the target is advised."""

OUTCOMES = np.array([-1.6, -1.0, -0.6, -0.25, 0.0, 0.25, 0.6, 1.0, 1.6])
"""Outcomes of a run that are thought through, in standard deviations: the middles of nine parts about as likely."""


@dataclass(frozen=True)
class Outlook:
    """A belief, the progress that it rests on, and which cells are closed: runs there say they will not do."""

    belief: Belief
    progress: tuple[Progress, ...]
    closed: Mask
    hopeless: bool = False
    """Whether runs say of every cell that it will not do; none is closed then."""

    @property
    def means(self) -> Array:
        """Expected log cost of every cell, infinite where closed; shape `[cells]`."""
        return np.where(self.closed, math.inf, self.belief.mean[: len(self.belief.cells)])

    @property
    def best(self) -> int:
        """The open cell of the lowest expected cost."""
        return int(np.argmin(self.means))

    @property
    def reached(self) -> Mask:
        """Open cells with a run that reached the target; shape `[cells]`."""
        cells = {run.cell for run in self.progress if run.reached}
        return np.array([cell in cells for cell in self.belief.cells]) & ~self.closed

    @property
    def advised(self) -> int:
        """The best cell, or one nearly as good that has reached the target."""
        known = int(np.argmin(np.where(self.reached, self.means, math.inf)))
        return known if self.reached[known] and self.means[known] < self.means[self.best] + NEARLY else self.best

    def gain(self, row: int, noise: float) -> float:
        """By how much the lowest mean is expected to fall when one row becomes known with a noise (squared)."""
        open_cells = np.flatnonzero(~self.closed)
        mean, covariance = self.belief.mean[open_cells], self.belief.covariance
        slope = covariance[open_cells, row] / math.sqrt(covariance[row, row] + noise)
        return float(mean.min() - (mean[:, None] + slope[:, None] * OUTCOMES).min(axis=0).mean())

    def draws(self, count: int = 400) -> Array:
        """Log costs of every cell drawn from the belief, infinite where closed; shape `[count, cells]`."""
        cells = len(self.belief.cells)
        root = np.linalg.cholesky(self.belief.covariance[:cells, :cells] + 1e-6 * np.eye(cells))
        draws = self.belief.mean[:cells] + np.random.default_rng(0).standard_normal((count, cells)) @ root.T
        draws[:, self.closed] = math.inf
        return np.asarray(draws)


def guess_of(outlook: Outlook, evidence: Evidence) -> Guess:
    """What would be trained with after an outlook, and what that is expected to cost."""
    belief, row = outlook.belief, outlook.advised
    centre = float(belief.mean[row])
    error = evidence.seconds_error(belief.cells[row][0])
    half = 1.645 * math.sqrt(belief.covariance[row, row] + belief.seed_deviation**2 + error**2)
    cost = Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half), 0.9)
    sizes = np.sort(np.array([belief.cells[k][0] for k in outlook.draws().argmin(axis=1)]))
    cut = len(sizes) // 20  # 5 % at each end
    return Guess(*belief.cells[row], cost, (int(sizes[cut]), int(sizes[-1 - cut])))
