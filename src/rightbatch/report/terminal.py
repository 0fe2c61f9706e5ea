"""An answer in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rightbatch.answer import Recommendation, SizeRow
from rightbatch.fit.step_time import (
    PowerOfTwo,
    Saturation,
    StepTimeFit,
    fit_step_time,
    median_seconds,
    powers_of_two,
    saturation,
)
from rightbatch.question import Objective
from rightbatch.records import Interval, StepTime
from rightbatch.report import units
from rightbatch.report.growth import growth_text
from rightbatch.wording import counted
from rightbatch.zones import SURE

COST_TITLES = {
    Objective.TIME: "cost",
    Objective.EXAMPLES: "examples",
    Objective.STEPS: "cost (steps)",
    Objective.METRIC: "short by",
}
BAR = 4
"""The bar behind a size is as long as its cost is times the best, up to this."""


def print_answer(answer: Recommendation, console: Console) -> None:
    """Print an answer: what to set, what is as good, why, what to beware of, what it cost to find out."""
    console.print(answer_text(answer))


def answer_text(answer: Recommendation) -> RenderableType:
    """The whole answer, ready to print."""
    return Group(_headline(answer), Text(), _table(answer), Text(), *_lines(answer))


def _headline(answer: Recommendation) -> Text:
    text = Text()
    text.append(f"{answer.workload}: train with batch size ")
    text.append(f"{answer.batch_size}", style="bold")
    text.append(" at learning rate ")
    text.append(units.rate(answer.learning_rate), style="bold")
    text.append(f"\n{describe_target(answer)}\n")
    text.append(f"{cost_text(answer)}\n")
    text.append(as_good_text(answer))
    return text


def cost_text(answer: Recommendation) -> str:
    """What the choice costs in its objective, and in the others."""
    own = units.interval(answer.cost, lambda v: units.cost(v, answer.objective))
    others = {
        Objective.TIME: units.seconds(answer.seconds),
        Objective.STEPS: f"{units.significant(answer.steps)} steps",
        Objective.EXAMPLES: f"{units.significant(answer.examples)} examples",
    }
    also = ", ".join(text for objective, text in others.items() if objective is not answer.objective)
    if answer.objective is Objective.METRIC:
        return f"falls {own} of the gain short of the best run seen, after {also}"
    return f"costs {own}, that is {also}"


def describe_target(answer: Recommendation) -> str:
    """The objective and the target in a line."""
    if answer.objective is Objective.METRIC:
        return "objective metric: best value at equal cost"
    target = answer.target
    sign = "at least" if target.direction == "max" else "at most"
    origin = f" ({target.origin})" if target.origin not in ("given", "workload") else ""
    name = target.quantity.replace("_", " ")
    touch = ", counted at the first evaluation beyond it" if target.rule == "first_touch" else ""
    objective = f"objective {answer.objective.name.lower()}: {answer.objective.value}"
    return f"{objective}, {name} {sign} {target.value:.4g}{origin}{touch}"


def as_good_text(answer: Recommendation) -> str:
    """The equivalent range, and what cannot be excluded."""
    if answer.seed_deviation is None:
        return "which sizes are as good: not known (no interval: one seed)"
    margin = "2 % of the gain" if answer.objective is Objective.METRIC else "10 %"
    sure = f"as good or better (within {margin}, {100 * SURE:.0f} % sure): {units.sizes(answer.as_good)}"
    believed = [str(row.batch_size) for row in answer.sizes if row.batch_size in answer.as_good and not row.seeds]
    if believed:
        sure += f" ({', '.join(believed)} believed to be, not trained to the target)"
    if answer.not_excluded != answer.as_good:
        sure += f"; cannot be excluded: {units.sizes(answer.not_excluded)}"
    return sure


def _table(answer: Recommendation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, side in (
        ("batch", "right"),
        ("best rate", "right"),
        (COST_TITLES[answer.objective], "right"),
        ("95 % interval", "left"),
        ("steps", "right"),
        ("a step", "right"),
        ("seeds", "right"),
        ("", "right"),
    ):
        # In a narrow terminal an interval goes to a second line, before anything is cut off.
        table.add_column(name, justify=side, no_wrap=name != "95 % interval")  # type: ignore[arg-type]
    table.add_column("", overflow="crop")  # the only one that gives way in a narrow terminal
    for row in answer.sizes:
        table.add_row(*_cells(answer, row), style="bold" if row.batch_size == answer.batch_size else "")
    return table


def _cells(answer: Recommendation, row: SizeRow) -> tuple[str, ...]:
    if row.cost is None:
        return str(row.batch_size), "-", "never", "", "-", units.seconds(row.step_seconds), str(row.seeds), "", ""
    # The head of the column says the unit where every row has the same.
    same_unit = answer.objective in (Objective.EXAMPLES, Objective.STEPS)
    own = units.significant if same_unit else lambda v: units.cost(v, answer.objective)
    if answer.objective is Objective.TIME:
        own = units.short_seconds
    spread = ""
    if row.cost.low is not None and row.cost.high is not None:
        ends = row.cost.low, row.cost.high
        spread = units.span_seconds(*ends) if answer.objective is Objective.TIME else units.span(*ends, own)
    factor = row.cost.estimate / answer.cost.estimate
    bar = "▪" * max(1, min(BAR, round(factor)))
    return (
        str(row.batch_size),
        units.rate_of(row),
        own(row.cost.estimate),
        spread,
        units.significant(row.steps),
        units.seconds(row.step_seconds),
        str(row.seeds),
        units.times(factor),
        bar,
    )


def _lines(answer: Recommendation) -> list[RenderableType]:
    lines: list[RenderableType] = []

    def say(title: str, text: str) -> None:
        lines.append(Text.from_markup(f"[dim]{title:<9}[/dim] {escape(text)}"))

    say("rate", units.interval(answer.best_rate, units.rate) + _note(answer.best_rate))
    if any(row.cost is not None and not row.seeds for row in answer.sizes):
        say("0 seeds", "predicted by the search, not trained to the target; so is the range of the best rate")
    if answer.present is not None:
        say("present", present_text(answer))
    if answer.fresh_costs:
        say("fresh run", f"the choice once more, {fresh_text(answer)}")
    if answer.growth is not None:
        say("growing", growth_text(answer.growth))
    for reason in answer.reasons:
        say("because", reason)
    for caution in answer.cautions:
        lines.append(Text.from_markup(f"[yellow]{'caution':<9}[/yellow] {escape(caution)}"))
    say("protocol", answer.protocol)
    spent = ", ".join(f"{name} {units.seconds(value)}" for name, value in answer.spent_seconds.items() if value)
    say("spent", f"{units.seconds(sum(answer.spent_seconds.values()))} ({spent})")
    return lines


def _note(interval: Interval) -> str:
    """What is to be said of an interval; without one, the note is its reason and said already."""
    return f" ({interval.note})" if interval.known and interval.note else ""


def present_text(answer: Recommendation) -> str:
    """What the person trains with now, and what is lost by it."""
    present = answer.present
    if present is None:
        return "-"
    what = f"batch size {present.batch_size} at {units.rate(present.learning_rate)}"
    if present.times_the_best is None:
        return f"{what} did not reach the target in all of its runs"
    if answer.objective is Objective.METRIC:
        own = units.cost(present.times_the_best * answer.cost.estimate, answer.objective)
        return f"{what} falls {own} of the gain short of the best run seen"
    costs = "is expected to cost" if present.predicted else "costs"
    return f"{what} {costs} {units.times(present.times_the_best)} the best"


def fresh_text(answer: Recommendation) -> str:
    """What runs with fresh seeds cost."""
    costs = [math.inf if cost is None else cost for cost in answer.fresh_costs]
    told = ", ".join("missed the target" if math.isinf(c) else units.cost(c, answer.objective) for c in sorted(costs))
    return f"with {counted(len(costs), 'fresh seed')}: {told}"


# ------------------------------------------------------------------------------------------------------- profile


@dataclass(frozen=True)
class ProfileSummary:
    """What `rightbatch profile` prints."""

    step_times: tuple[StepTime, ...]
    fit: StepTimeFit | None
    saturation: Saturation
    powers_of_two: tuple[PowerOfTwo, ...]
    did_not_fit: tuple[int, ...] = ()
    not_measured_again: tuple[int, ...] = ()


def profile_summary(
    records: Sequence[StepTime], asked: Sequence[int] = (), before: Sequence[StepTime] = ()
) -> ProfileSummary:
    """What a profile says: times by size, the law, where throughput saturates, whether powers of two differ.

    A size that was asked for and has no time did not fit into memory. `before`: what the study had already.
    """
    fit = fit_step_time(records) if len(records) > 1 else None
    did_not_fit = tuple(sorted(set(asked) - {record.batch_size for record in records}))
    again = tuple(record.batch_size for record in records if record in before)
    return ProfileSummary(tuple(records), fit, saturation(records), powers_of_two(records), did_not_fit, again)


def print_profile(summary: ProfileSummary, console: Console) -> None:
    """Print seconds per step by batch size, and what follows from them."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("batch", "a step", "spread", "waiting for data", "examples/s", "unsteady"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in summary.step_times:
        times = sorted(record.seconds)
        middle = median_seconds(record)
        table.add_row(
            str(record.batch_size),
            units.seconds(middle),
            units.span(times[0], times[-1], units.seconds),
            units.seconds(sorted(record.wait_seconds)[len(record.wait_seconds) // 2]),
            units.significant(record.batch_size / middle),
            f"{len(record.unsteady)} of {len(times)}" if record.unsteady else "",
        )
    console.print(table)
    fit, peak = summary.fit, summary.saturation
    if fit is not None:
        parts = (fit.floor_seconds, fit.alpha_seconds, fit.beta_seconds)
        floor, alpha, beta = (units.interval(part, units.seconds) for part in parts)
        linear = f"{alpha} + B x {beta}"
        law = f"max({floor}, {linear})" if fit.floor_seconds.estimate > fit.alpha_seconds.estimate else linear
        console.print(f"\na step takes {law}, misfit {100 * fit.deviation:.0f} %")
    beyond = " (the largest measured: it may rise further)" if peak.at_edge else ""
    console.print(
        f"throughput: 90 % of the best ({units.significant(peak.peak_examples_per_second)} examples/s at "
        f"{peak.peak_batch_size}{beyond}) from batch size {peak.batch_size}"
    )
    if summary.not_measured_again:
        sizes = ", ".join(f"{size:,}" for size in summary.not_measured_again)
        console.print(f"as the study had it, not measured again: {sizes} (--again measures anew)")
    if summary.did_not_fit:
        sizes = ", ".join(f"{size:,}" for size in summary.did_not_fit)
        console.print(f"did not fit into memory: {sizes} (`rightbatch memory` finds what does)")
    for power in summary.powers_of_two:
        verdict = "no difference seen"
        if power.differs:
            verdict = "faster than they are" if power.ratio.estimate < 1 else "slower than they are"
        console.print(
            f"power of two {power.batch_size}: {units.interval(power.ratio)} times its neighbours' step: {verdict}"
        )
