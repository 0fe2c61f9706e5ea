"""What a rule looks at: the evidence of a study for one question, put as numbers with standard errors."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from rightbatch.cells import Cell
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.fit.noise import NoiseEstimate, last_quarter, noise_scale
from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff
from rightbatch.nearness import apart, nearest
from rightbatch.question import Objective
from rightbatch.records import Interval, Setting
from rightbatch.rules.effects import Effect, Untold
from rightbatch.rules.known import Known, from_interval, rate_known
from rightbatch.typed import command, possible

LENGTHS = ("--epochs", "--planned-examples")
"""The options that say how long a run is planned to be."""

AS_CHEAP = math.log(1.25)
"""A size is as good as another, to a rule about sizes, where it costs at most a quarter more."""

FORECAST = 30
"""Degrees of freedom of a forecast, whose own deviation of seeds is partly assumed."""

NEAR = 1.5
"""A size within this factor of the one that a rule names stands for it."""


@dataclass(frozen=True)
class Tuned:
    """One batch size at its best rate. `rate` is None where that is at the edge of the rates tried."""

    batch_size: int
    cost: Known
    steps: Known
    rate: Known | None

    @property
    def examples(self) -> Known:
        """Examples to the target."""
        return Known(self.steps.log + math.log(self.batch_size), self.steps.error)


@dataclass(frozen=True)
class Case:
    """A study as the rules see it.

    study: Its file, for the commands that are named.
    expected: What sizes cost by the forecast of a search, where that trained few of them to the target.
    sharpness: Of the weights that a run ended with (Keskar et al.'s), by batch size, rate and seed.
    known: What a study does not hold and a person may say: `compute` in FLOPs, `tokens_per_example`.
    """

    evidence: Evidence
    study: str = "STUDY"
    expected: Mapping[int, Interval] = field(default_factory=dict)
    sharpness: Mapping[tuple[int, float, int], float] = field(default_factory=dict)
    known: Mapping[str, float] = field(default_factory=dict)

    # ----------------------------------------------------------------------------------------- sizes, tuned

    @cached_property
    def freedom(self) -> int:
        """Degrees of freedom of the deviation between seeds."""
        return max(1, self.evidence.seed_noise.freedom)

    @cached_property
    def tuned(self) -> tuple[Tuned, ...]:
        """Every size that some rate brought to the target, in order; none where no cell has two seeds.

        A size whose runs had reached it before they were first evaluated is left out: what it took is not known.
        """
        evidence, noise = self.evidence, self.evidence.seed_noise
        if noise.deviation is None or evidence.question.objective is Objective.METRIC:
            return ()
        found = []
        for size in evidence.sizes:
            if size.best is None or size.cost is None or size.best_rate is None or self._at_once(size.best):
                continue
            steps = evidence.steps_of_cost(size.batch_size, size.cost.estimate)
            if steps is None:
                continue
            error = math.hypot(noise.deviation * size.leverage, size.other_error)
            found.append(
                Tuned(
                    size.batch_size,
                    Known(math.log(size.cost.estimate), math.hypot(error, evidence.seconds_error(size.batch_size))),
                    Known(math.log(steps), error),
                    None if size.at_edge else rate_known(size.best_rate, noise.freedom),
                )
            )
        return tuple(found)

    @cached_property
    def rated(self) -> tuple[Tuned, ...]:
        """Those whose best rate is not at the edge of the rates tried."""
        return tuple(one for one in self.tuned if one.rate is not None)

    def _at_once(self, cell: Cell) -> bool:
        crossings = [self.evidence.crossing(run) for run in self.evidence.runs_at(cell.batch_size, cell.learning_rate)]
        return any(found is not None and found.low_examples == 0 for found in crossings)

    @cached_property
    def untuned(self) -> Untold | None:
        """Why tuned sizes say nothing yet; None where there are at least two."""
        if self.evidence.question.objective is Objective.METRIC:
            return Untold("asked for the metric at equal cost; this rule speaks of the cost to a target")
        if self.evidence.seed_noise.deviation is None and self.evidence.sizes:
            return Untold("one seed in every cell that chose: differences may be luck", self.sweep(seeds=3))
        if len(self.tuned) < 2:
            return Untold(
                f"{len(self.tuned) or 'no'} batch size{'s' if len(self.tuned) != 1 else ''} with a tuned rate",
                self.sweep(self.wide(8)),
            )
        return None

    @cached_property
    def costs(self) -> dict[int, Known]:
        """The cost of each size at its best rate: as measured, or as the search forecast it."""
        if self.expected:
            found = {size: from_interval(cost, FORECAST) for size, cost in sorted(self.expected.items())}
            return {size: cost for size, cost in found.items() if cost is not None}
        return {one.batch_size: one.cost for one in self.tuned}

    @cached_property
    def unpriced(self) -> Untold | None:
        """Why the costs of sizes say nothing yet; None where there are at least two."""
        return None if len(self.costs) > 1 else self.untuned

    def near(self, batch_size: float) -> int | None:
        """The size with a cost that is nearest to one that a rule names, within a factor 1.5; None without one."""
        near = nearest(self.costs, batch_size) if self.costs else None
        return None if near is None or apart(near, batch_size) > math.log(NEAR) else near

    @cached_property
    def base(self) -> Tuned | None:
        """From where a rule for rates sets out: the tuned size nearest to what the person trains with now."""
        if not self.rated:
            return None
        present = self.evidence.facts.present
        wanted = present[0] if present else self.rated[len(self.rated) // 2].batch_size
        return min(self.rated, key=lambda one: apart(one.batch_size, wanted))

    @cached_property
    def tradeoff(self) -> TradeoffFit | None:
        """Steps against batch size, from sizes whose best rate is not at an edge; None with fewer than four."""
        if len(self.rated) < 4:
            return None
        return fit_tradeoff([one.batch_size for one in self.rated], [math.exp(one.steps.log) for one in self.rated])

    @cached_property
    def critical(self) -> Known | None:
        """The critical batch size by steps; None where the sizes tried do not bound it."""
        if self.tradeoff is None:
            return None
        return from_interval(self.tradeoff.critical_batch_size, self.tradeoff.hyperbola.freedom)

    def costs_little(self, batch_size: int) -> tuple[Effect, ...]:
        """The cost of a size over that of each other one: at most a quarter more, if it is a good choice."""
        own = self.costs[batch_size]
        return tuple(
            Effect(
                f"cost at {batch_size} over that at {size}",
                own.log - other.log,
                math.hypot(own.error, other.error),
                FORECAST if self.expected else self.freedom,
                high=AS_CHEAP,
                batch_size=size,
            )
            for size, other in self.costs.items()
            if size != batch_size
        )

    def least_cost(self, batch_size: int) -> float | None:
        """What a size that no tried rate brought to the target costs at least: its shortest whole run did."""
        sizes = {size.batch_size: size for size in self.evidence.sizes}
        size = sizes.get(batch_size)
        if size is None or size.best is not None:
            return None
        lengths = []
        for cell in size.cells:
            runs = self.evidence.runs_at(cell.batch_size, cell.learning_rate)
            ends = [run.points[-1] for run in runs if run.points and self.evidence.conclusive(run)]
            # A run that diverged would have gone on for ever: its length says nothing.
            if ends and not cell.diverged:
                longest = max(ends, key=lambda point: point.step)
                lengths.append(self.evidence.cost_of_steps(batch_size, longest.step, longest.examples))
        known = [cost for cost in lengths if cost is not None]
        return min(known, default=None)

    # -------------------------------------------------------------------------------- noise, settings, commands

    @cached_property
    def noise(self) -> NoiseEstimate | None:
        """The gradient noise scale over the last quarter of the training that was looked at for longest."""
        try:
            return noise_scale(last_quarter(self.evidence.longest_samples))
        except InputError:
            return None

    @property
    def seeds(self) -> int:
        """How many seeds the cells have, at most."""
        return max((len(cell.costs) + cell.misses for cell in self.evidence.cells), default=0)

    def settings_of(self, name: str) -> tuple[Setting, ...]:
        """The values of one setting in the runs of the study, in order."""
        own = self.evidence.facts.settings
        values = {run.trial.settings.get(name, own.get(name)) for run in self.evidence.runs}
        return tuple(sorted((value for value in values if value is not None), key=lambda v: (isinstance(v, str), v)))

    def with_setting(self, name: str, value: Setting) -> Case:
        """The same study where one setting has another value."""
        return replace(self, evidence=self.evidence.with_setting(name, value))

    def at_target(self, value: float) -> Case:
        """The same study asked for another target."""
        question = self.evidence.question
        target = replace(question.target, value=value)
        return replace(self, evidence=replace(self.evidence, question=replace(question, target=target)))

    def wide(self, smallest: int = 2) -> str:
        """Sizes for a sweep that is to show a bend: powers of two up to 4,096, or to what data there is."""
        most = self.evidence.facts.train_examples or 4096
        return f"{smallest}..{min(4096, 2 ** int(math.log2(max(2, most))))}"

    def sweep(self, sizes: str = "", *, seeds: int | None = None, more: str = "") -> str:
        """The command that trains what is missing."""
        tried = _listed([size.batch_size for size in self.evidence.sizes])
        asked = [option for option in self.evidence.options if not _stands_in(more, option)]
        return self._command(
            "sweep",
            f"--batch-sizes {sizes or tried or '8..1024'}",
            f"--seeds {seeds}" if seeds else "",
            *asked,
            more,
        )

    def longer(self) -> str:
        """The option that makes runs twice as long."""
        longest = max((run.points[-1].examples for run in self.evidence.runs if run.points), default=0)
        examples = self.evidence.facts.train_examples
        return f"--epochs {2 * longest / examples:.3g}" if examples else f"--planned-examples {2 * longest}"

    def command(self, verb: str) -> str:
        """The command that measures something else of the workload, into the study."""
        return self._command(verb, *(o for o in self.evidence.options if o.startswith("--set ")))

    def measuring_sharpness(self) -> str:
        """The commands that keep the weights of runs and measure how sharp their minima are; none without a model."""
        if not possible("sharpness", self.evidence.facts):
            return ""
        return f"{self.sweep(seeds=3, more='--keep-models last')} && rightbatch sharpness {shlex.quote(self.study)}"

    def judging(self, options: str) -> str:
        """The command that judges the study again, with options."""
        return f"rightbatch judge {shlex.quote(self.study)} {options}"

    def _command(self, verb: str, *options: str) -> str:
        return command(verb, self.evidence.facts, *options, f"--study {shlex.quote(self.study)}")


def _stands_in(more: str, option: str) -> bool:
    """Whether one option is said instead of another: of the same setting, of the planned length."""
    lengths = more.startswith(LENGTHS) and option.startswith(LENGTHS)
    return lengths or (more.startswith("--set ") and more.partition("=")[0] == option.partition("=")[0])


def _listed(sizes: Sequence[int]) -> str:
    """Sizes as the command line reads them: 4..64 for all powers of two between."""
    doubling = all(b == 2 * a for a, b in pairwise(sizes)) and all(size & (size - 1) == 0 for size in sizes)
    return f"{sizes[0]}..{sizes[-1]}" if len(sizes) > 2 and doubling else ",".join(map(str, sizes))
