"""A batch size and a rate as a temperature, in the terminal and as sentences."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from rightbatch.report import units
from rightbatch.temperatures import Temperature


def print_posterior(console: Console, workload: str, found: Temperature) -> None:
    """Print the temperature, what would be optimal, and what does not hold."""
    trial = found.trial
    console.print(
        f"{workload}: batch size {trial.batch_size:,} at rate {units.rate(trial.learning_rate)} as a temperature",
        highlight=False,
    )
    console.print()
    for name, text in lines(found):
        console.print(Text.from_markup(f"[dim]{name:<12}[/dim] {escape(text)}"))


def lines(found: Temperature) -> list[tuple[str, str]]:
    """What is said, each with what it is about."""
    said = [
        ("temperature", f"{units.interval(found.temperature)}, 1 being that of the posterior: {warmth(found)}"),
        ("seen", f"{units.significant(found.seen)}, in the training loss over {found.tests.samples} passes more"),
        (
            "optimal",
            f"rate {units.significant(found.optimal_learning_rate)} at this batch size, or batch size "
            f"{_size(found)} at this rate: formulas, tried by nobody",
        ),
        ("posterior of", f"{found.parameters:,} parameters given {found.examples:,} examples, near this minimum"),
    ]
    return [*said, *(("caution", caution) for caution in found.cautions)]


def warmth(found: Temperature) -> str:
    """What the temperature means."""
    low, high = found.temperature.low or 0.0, found.temperature.high or 0.0
    if low > 1:
        return "noisier than Bayes; a larger batch or a smaller rate would be nearer"
    if high < 1:
        return "colder than Bayes; a smaller batch or a larger rate would be nearer"
    return "about that of Bayes"


def _size(found: Temperature) -> str:
    size = found.optimal_batch_size
    if size < 1:
        return "below 1 (there is none)"
    if size > found.examples:
        return f"{units.significant(size)} (more than all {found.examples:,} examples)"
    return units.significant(size)
