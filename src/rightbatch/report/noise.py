"""A noise scale in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rightbatch.fit.noise import NoiseEstimate
from rightbatch.records import Interval
from rightbatch.report import units


def scale_text(scale: Interval) -> str:
    """A noise scale with its interval; "at least" where nothing bounds it above."""
    if scale.high is None or scale.low is None:
        return units.significant(scale.estimate)
    if math.isinf(scale.high):
        return f"at least {units.significant(scale.low)}"
    return f"{units.significant(scale.estimate)} [{units.significant(scale.low)}, {units.significant(scale.high)}]"


def print_noise(
    console: Console,
    workload: str,
    whole: NoiseEstimate,
    along: tuple[NoiseEstimate, ...],
    *,
    at_target: bool,
    preconditioned: NoiseEstimate | None,
    curvature: NoiseEstimate | None,
    critical_prior: Interval | None,
    critical_batch_size: Interval | None,
) -> None:
    """Print the noise scale, how it changed along the training, what it says of batch sizes, how far to trust it."""
    at = f"batch size {whole.batch_sizes[0]} and rate {units.rate(whole.learning_rates[0])}"
    console.print(f"{workload}: gradient noise scale [bold]{escape(scale_text(whole.scale))}[/bold] examples")
    console.print(f"measured at {at}, over {whole.samples:,} steps")
    if preconditioned is not None:
        console.print(f"in the metric of the optimizer {scale_text(preconditioned.scale)}", markup=False)
    if curvature is not None:
        said = f"weighed by the curvature {scale_text(curvature.scale)}, over {curvature.samples:,} steps"
        console.print(said, markup=False)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("steps", "noise scale", "|G|^2", "tr(Sigma)"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in along:
        table.add_row(
            f"{part.steps[0]:,} to {part.steps[1]:,}",
            scale_text(part.scale),
            units.significant(part.gradient_squared.estimate),
            units.significant(part.noise_trace.estimate),
        )
    console.print(table)
    console.print()
    for title, text in _said(along[-1].scale, at_target, critical_prior, critical_batch_size):
        console.print(Text.from_markup(f"[dim]{title:<9}[/dim] {escape(text)}"))


def _said(now: Interval, at_target: bool, prior: Interval | None, critical: Interval | None) -> list[tuple[str, str]]:
    when = "at the target" if at_target else "now"
    said = []
    if math.isfinite(now.estimate) and now.high is not None and math.isfinite(now.high) and now.estimate > 0:
        quarter, same, four = (units.significant(max(1.0, factor * now.estimate), 2) for factor in (0.25, 1, 4))
        said.append(
            (
                when,
                f"if the law of steps and examples holds with it: a batch of {quarter} takes 1.25 times the fewest "
                f"examples and 5 times the fewest steps; one of {same} twice both; one of {four} 5 times the fewest "
                f"examples and 1.25 times the fewest steps",
            )
        )
    elif not now.low:
        said.append((when, "how large the noise scale is these steps do not tell: more would"))
    else:
        said.append(
            (
                when,
                f"the noise scale is at least {units.significant(now.low)}: batches below that waste hardly any "
                f"examples; more steps would say how much larger it is",
            )
        )
    if not at_target:
        said.append(("caution", "it mostly grows along a training: at the target it may be much larger"))
    if critical is not None and math.isfinite(now.estimate) and now.estimate > 0:
        times = units.times(critical.estimate / now.estimate)
        said.append(
            ("trust", f"by steps to the target this study says {units.interval(critical)}, {times} the noise scale")
        )
    elif prior is not None:
        text = (
            f"as a prior it puts the critical batch size at the target at {units.interval(prior)} (90 %): so far have "
            f"the two been apart on other problems. `rightbatch find` starts from it, and measures"
        )
        said.append(("trust", text))
    return said
