"""What is known of the memory that sizes take, in a study and now, and the means to try others."""

from __future__ import annotations

import math
from collections.abc import Callable

from rightbatch.errors import WorkloadError
from rightbatch.memory_answer import Accumulated
from rightbatch.probing import Allowance, Prober
from rightbatch.records import Environment, MemoryProbe
from rightbatch.search.largest import next_size
from rightbatch.store import Study

FILLED = 0.5
"""A size that may take more than this share of what is left before there is a model is run in a new process."""

DIVISIONS = 6
"""A wished batch is cut up in at most so many ways: passes of a quarter that do not fit are not why."""


class Probes:
    """What is known of sizes, and the means to try others."""

    def __init__(
        self,
        study: Study,
        environment: Environment,
        prober: Prober,
        allowance: Allowance,
        watch: Callable[[MemoryProbe], None],
        again: bool,
    ) -> None:
        self._study, self.environment, self._prober = study, environment, prober
        self.allowance, self._watch = allowance, watch
        # Of a device only its process knows the limit: what was seen another day may have had another one.
        self.probes = list(study.memory_probes(environment)) if allowance.on_cpu and not again else []
        self.refused: dict[int, str] = {}

    @property
    def limit_bytes(self) -> int:
        """What may be held now."""
        return self.allowance.host_bytes if self.allowance.on_cpu or not self.probes else self.probes[-1].limit_bytes

    @property
    def before_bytes(self) -> int:
        """What is held before there is a model: the most that was seen, lest there be less room."""
        return max((probe.before_bytes for probe in self.probes), default=0)

    def fits(self, probe: MemoryProbe) -> bool | None:
        """Whether it would fit now; None where that is not known: it was ended at a lower limit."""
        if probe.peak_bytes is not None:
            return probe.peak_bytes <= self.limit_bytes
        return None if probe.limit_bytes < self.limit_bytes else False

    @property
    def increases(self) -> dict[int, float]:
        """What each size that fits takes in training beyond what is held before."""
        return {
            probe.batch_size: probe.training_bytes - probe.before_bytes
            for probe in self.probes
            if probe.accumulation_steps == 1 and probe.training_bytes is not None and self.fits(probe)
        }

    @property
    def failed(self) -> list[int]:
        """The sizes that do not fit."""
        return [p.batch_size for p in self.probes if p.accumulation_steps == 1 and self.fits(p) is False]

    def search(self, most: int) -> int:
        """The largest size that ran and fits; 0 where not even one example does."""
        while True:
            room = self.limit_bytes - self.before_bytes
            size = next_size(self.increases, [*self.failed, *self.refused], room, most)
            if size is None:
                return max(self.increases, default=0)
            try:
                self.run(size, size)
            except WorkloadError as error:
                # BatchNorm refuses a batch of one example, a loader one that is larger than a pass of it.
                if not self.increases and not (size == 1 and self.failed):
                    raise
                self.refused[size] = str(error)

    def accumulate(self, batch_size: int, largest: int) -> Accumulated | None:
        """The fewest passes in which a step of a batch was made and fitted; None where none was."""
        steps = -(-batch_size // largest)
        for _ in range(DIVISIONS):
            if steps > batch_size:
                break
            micro = -(-batch_size // steps)
            found = self._known(batch_size, micro) or self.run(batch_size, micro)
            if found.peak_bytes is not None and self.fits(found):
                parts = found.parts
                mixing = (parts.normalising, parts.difference) if parts is not None and steps > 1 else ()
                return Accumulated(batch_size, micro, found.accumulation_steps, found.peak_bytes, *mixing)
            steps = max(steps + 1, math.ceil(1.25 * steps))
        return None

    def run(self, batch_size: int, micro_batch_size: int) -> MemoryProbe:
        """Try a size, and keep what was seen."""
        filled = max(self.increases.values(), default=0.0) / (self.limit_bytes - self.before_bytes)
        grown = micro_batch_size / max(self.increases, default=1)
        fresh = batch_size != micro_batch_size or filled * grown > FILLED
        look = batch_size != micro_batch_size or not any(other.parts for other in self.probes)
        probe = self._prober.probe(batch_size, micro_batch_size, fresh=fresh, look=look)
        self._study.add_memory_probe(probe, self.environment)
        self.probes.append(probe)
        self._watch(probe)
        return probe

    def _known(self, batch_size: int, micro_batch_size: int) -> MemoryProbe | None:
        wanted = (batch_size, micro_batch_size)
        found = (p for p in self.probes if (p.batch_size, p.micro_batch_size) == wanted and self.fits(p) is not None)
        return next(found, None)
