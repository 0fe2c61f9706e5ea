"""Local critical batch sizes in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rightbatch.fit.branches import Fork, LocalCriticalSize
from rightbatch.report import units


def size_text(found: LocalCriticalSize, batch_size: int) -> str:
    """A local critical size with its interval; "at least" where nothing bounds it above, a star where it tells little.

    `batch_size` is that of the trunk: that it is at least that says nothing.
    """
    low, high = found.size.low or 0.0, found.size.high or math.inf
    if math.isinf(high):
        text = f"at least {low:,.0f}" if low > batch_size else "not told"
    else:
        text = f"{units.significant(found.size.estimate, 2)} [{low:,.0f}, {high:,.0f}]"
    return text + ("" if found.telling else " *")


def print_branches(
    console: Console,
    workload: str,
    forks: Sequence[Fork],
    *,
    batch_size: int,
    learning_rate: float,
    seeds: int,
    branch_examples: int,
    cost: str,
    cautions: Sequence[str],
) -> None:
    """Print a row for each checkpoint, what they say together, what it cost, how far to trust it."""
    console.print(f"{workload}: local critical batch size, by branches of {branch_examples:,} examples, {seeds} seeds")
    console.print(f"off a trunk with batch size {batch_size} and rate {units.rate(learning_rate)}")
    worse = f"{units.significant(forks[0].tolerance, 2)} to {units.significant(forks[-1].tolerance, 2)}"
    console.print(f"what keeps up: a loss at most {worse} worse, with the rate by each rule", highlight=False)
    console.print("estimates with 90 % intervals\n", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("steps", "loss", *(found.rule for found in forks[0].sizes)):
        table.add_column(name, justify="right", no_wrap=True)
    for fork in forks:
        table.add_row(
            f"{fork.step:,}",
            f"{fork.loss:.3g}",
            *(size_text(found, batch_size) for found in fork.sizes),
        )
    console.print(table)
    console.print()
    lines = [("along", _along(forks)), ("soon", _soon(forks[-1], batch_size, branch_examples)), ("cost", cost)]
    lines += [("caution", text) for text in (*_cautions(forks, batch_size, branch_examples), *cautions)]
    for title, text in lines:
        console.print(Text.from_markup(f"[dim]{title:<9}[/dim] {escape(text)}"))


def _along(forks: Sequence[Fork]) -> str:
    """Whether it grew, by the best rule at each size."""
    telling = [fork for fork in forks if fork.best.telling]
    if len(telling) < 2:
        return "whether it grows along the training needs two checkpoints at which branches gain something"
    first, last = telling[0].best.size, telling[-1].best.size
    between = f"between steps {telling[0].step:,} and {telling[-1].step:,}"
    if (last.low or 0.0) > (first.high or math.inf):
        return f"it grew {between}"
    if (last.high or math.inf) < (first.low or 0.0):
        return f"it shrank {between}"
    return f"whether it changed {between} cannot be told: the intervals touch; more --seeds make them narrower"


def _soon(fork: Fork, batch_size: int, branch_examples: int) -> str:
    best, low = fork.best, fork.best.size.low or 0.0
    where = f"from step {fork.step:,} on, over {branch_examples:,} examples"
    if not best.telling or low <= batch_size:
        return f"{where}, no batch larger than {batch_size} was shown to keep up"
    return f"{where}, batches up to {units.significant(low)} waste nothing beyond the tolerance, at the best rule"


def _cautions(forks: Sequence[Fork], batch_size: int, branch_examples: int) -> list[str]:
    said = [
        "a branch shows what happens soon after it began, not at the end of a training, and its rate stays constant",
        "of sizes below that of the trunk nothing is known: they may be better still",
    ]
    if not all(found.telling for fork in forks for found in fork.sizes):
        said.append(
            "*: branches at the trunk's own size gained less than the tolerance, so one that stands still would keep "
            "up too; longer branches or a smaller --tolerance tell more"
        )
    high = [f"{fork.step:,}" for fork in forks if fork.rate_too_high]
    if high:
        said.append(
            f"at step {', '.join(high)} a lower rate is better for branches of the trunk's own size too: there sqrt "
            f"and constant look better than they are, and only the column best compares like with like"
        )
    long = [f"{fork.step:,}" for fork in forks if 0 < fork.step * batch_size < branch_examples]
    if long:
        said.append(f"at step {', '.join(long)} a branch is longer than the training before it: not local any more")
    return said
