"""Gap and sharpness across batch sizes, in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rightbatch.fit.rank_correlation import RankCorrelation
from rightbatch.generalization import SHARPNESS, Across, EndOfRun, SizeEnd
from rightbatch.minima import MEASURES
from rightbatch.records import Interval
from rightbatch.report import units

COLUMNS = 3
"""Measures beside one another in a table of eighty columns."""


def print_sharpness(
    console: Console, workload: str, metric: str, ends: Sequence[EndOfRun], found: Sequence[Across], missing: int
) -> None:
    """Print for each protocol what the minima of each size are like, and how gap and sharpness go together."""
    measured = [name for name in SHARPNESS if any(name in end.values for end in ends)]
    console.print(f"{workload}: the weights that {len(ends)} runs ended with", highlight=False)
    console.print(f"gap: {metric} on training less validation data; means over seeds, 95 % t intervals")
    for protocol in found:
        console.print()
        console.print(protocol.protocol, style="bold")
        if protocol.sizes == found[0].sizes and protocol is not found[0]:
            console.print("the same: no other rate that was kept gave a better metric")
            continue
        console.print(_table(protocol, ("train loss", metric, "gap"), _ends))
        for names in _groups(measured):
            console.print()
            console.print(_table(protocol, names, partial(_sharpness, names)))
        console.print()
        console.print(_correlations(protocol))
    console.print()
    for name in measured:
        measure = MEASURES[name]
        console.print(Text.from_markup(f"[dim]{name:<11}[/dim] {escape(f'{measure.title}. {measure.source}')}"))
    for text in cautions(missing):
        console.print(Text.from_markup(f"[dim]{'caution':<11}[/dim] {escape(text)}"))


def cautions(missing: int) -> list[str]:
    """How far to trust a comparison of minima."""
    said = [
        "runs are compared where they ended: a size that was trained less far (train loss) differs for that reason "
        "too, and a correlation over sizes does not tell which comes first"
    ]
    if missing:
        said.append(f"{missing} finished runs left no weights; --keep-models last keeps them")
    return said


def _groups(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), COLUMNS):
        yield names[first : first + COLUMNS]


def _ends(size: SizeEnd) -> list[Interval | None]:
    return [size.train_loss, size.quality, size.gap]


def _sharpness(names: Sequence[str], size: SizeEnd) -> list[Interval | None]:
    return [size.sharpness.get(name) for name in names]


def _table(found: Across, names: Sequence[str], of: Callable[[SizeEnd], Sequence[Interval | None]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("size", "rate", "seeds", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for size in found.sizes:
        cells = map(plus_minus, of(size))
        table.add_row(f"{size.batch_size:,}", units.rate(size.learning_rate), f"{size.seeds}", *cells)
    return table


def plus_minus(value: Interval | None) -> str:
    """A mean and half of its interval: "205 ± 70"."""
    if value is None or value.low is None or value.high is None:
        return units.significant(value.estimate) if value else "-"
    return f"{units.significant(value.estimate)} ± {units.significant((value.high - value.low) / 2, 2)}"


def _correlations(found: Across) -> Table | Text:
    """Whether sharper minima generalise worse, as far as these runs tell."""
    names = [name for name in found.with_gap if name in found.with_quality]
    if not names:
        return Text("fewer than six runs, or all alike: no rank correlation", style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("rank correlation", "with the gap", "with the metric", "runs", "sizes"):
        table.add_column(title, justify="left" if title == "rank correlation" else "right", no_wrap=True)
    for name in names:
        gap, quality = found.with_gap[name], found.with_quality[name]
        table.add_row(name, _correlation(gap), _correlation(quality), f"{gap.pairs}", f"{gap.groups}")
    return table


def _correlation(one: RankCorrelation) -> str:
    interval = one.interval()
    if interval.low is None or interval.high is None:
        return f"{one.correlation:+.2f}"
    return f"{one.correlation:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
