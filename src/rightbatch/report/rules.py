"""The rule book in words: a list, one rule explained, the verdicts of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rightbatch.fit.quantiles import t_interval
from rightbatch.records import Interval, to_json
from rightbatch.report import units
from rightbatch.rules import (
    FAMILIES,
    Effect,
    Judgement,
    Prediction,
    Rule,
    Source,
    Unit,
    Untold,
    Verdict,
    Verdicts,
)
from rightbatch.rules.readings import Reading

STYLES = {Verdict.FAILS: "red", Verdict.HOLDS: "green", Verdict.CANNOT_TELL: "yellow", Verdict.DOES_NOT_APPLY: "dim"}

IS_WORSE = {Verdict.HOLDS: "yes", Verdict.FAILS: "no", Verdict.CANNOT_TELL: "cannot tell"}
"""The verdict of "the largest size is worse"."""


# ------------------------------------------------------------------------------------------------------- words


def effect_value(effect: Effect) -> str:
    """An effect with its 95 % interval, in its own unit."""
    found = t_interval(effect.value, effect.error, effect.freedom)
    return units.interval(found, lambda value: _said(effect, value))


def effect_range(effect: Effect) -> str:
    """The range that a rule gives an effect."""
    if math.isinf(effect.low):
        return f"at most {_said(effect, effect.high)}"
    if math.isinf(effect.high):
        return f"at least {_said(effect, effect.low)}"
    return f"{_said(effect, effect.low)} to {_said(effect, effect.high)}"


def _said(effect: Effect, value: float) -> str:
    if effect.unit is Unit.LOG_RATIO:
        return f"{math.exp(min(value, 700.0)):.3g}x"
    if effect.unit is Unit.SHARE:
        return f"{100 * value:+.2f} %"
    return f"{value:.3g}"


def prediction(one: Prediction) -> str:
    """A prediction with its interval, or why it has none."""
    return f"{one.quantity}: {_interval(one.value)}"


def _interval(value: Interval) -> str:
    text = f"{value.estimate:.4g}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:.3g}, {value.high:.3g}]"
    return f"{text} ({value.note})" if value.note else text


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as plain values."""
    return {
        "name": rule.name,
        "family": rule.family,
        "statement": rule.statement,
        "source": rule.source,
        "scope": rule.scope,
        "tolerance": rule.tolerance,
        "popular": rule.popular,
    }


def judgement_json(one: Judgement) -> dict[str, Any]:
    """A judgement as plain values; effects in logs where their unit is "log_ratio"."""
    effects = [to_json(effect) for effect in one.effects]
    return rule_json(one.rule) | {
        "verdict": one.verdict.value,
        "says": one.says,
        "command": one.command,
        "effects": effects,
    }


def reading_json(one: Reading) -> dict[str, Any]:
    """One protocol's reading as plain values."""
    return {
        "protocol": str(one.protocol),
        "assumed_by": one.assumed_by,
        "larger_is_worse": one.verdict.value,
        "effect": to_json(one.effect),
        "rates": {str(size): rate for size, rate in one.rates},
    }


# ---------------------------------------------------------------------------------------------------- terminal


def rule_list(rules: Sequence[Rule]) -> RenderableType:
    """Every rule by family: its name, what it says, who said it."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    family = ""
    for rule in rules:
        if rule.family != family:
            family = rule.family
            table.add_row(Text(family, style="bold"), "")
        cited = ", ".join(f"{source.short} {source.year}" for source in rule.sources)
        table.add_row("  " + rule.name, Text.assemble(rule.statement, (f" ({cited})", "dim")))
    return table


def explanation(rule: Rule, example: Verdicts) -> RenderableType:
    """One rule: what it says, who said it and where, what counts as right, and a worked example."""
    table = _facts()
    table.add_row("says", rule.statement)
    for k, source in enumerate(rule.sources):
        table.add_row("source" if not k else "", source.cited)
    table.add_row("claimed for", rule.scope)
    table.add_row("right if", rule.tolerance)
    facts = example.case.evidence.facts
    table.add_row("example", f"{facts.name} ({facts.train_examples:,} examples, {facts.optimizer}), recorded")
    predicted = rule.predict(example.case) if rule.applies(facts) else ()
    for k, one in enumerate(predicted):
        table.add_row("it predicts" if not k else "", prediction(one))
    return Group(Text(rule.name, style="bold"), table, detail(example.of(rule.name), named=False))


def detail(one: Judgement, *, named: bool = True) -> RenderableType:
    """One verdict with the effects that it rests on."""
    table = _facts()
    table.add_row("verdict", Text.assemble((one.verdict.value, STYLES[one.verdict]), f": {one.says}"))
    if one.command:
        table.add_row("command", Text(one.command))
    parts: list[RenderableType] = [Text(f"{one.rule.name}: {one.rule.statement}", style="bold")] if named else []
    parts.append(table)
    if one.effects:
        effects = Table(box=None, pad_edge=False, header_style="dim")
        effects.add_column("measured")
        effects.add_column("95 % interval", justify="right")
        effects.add_column("the rule", justify="right")
        for effect in one.effects:
            effects.add_row(effect.name, effect_value(effect), effect_range(effect))
        parts += [Text(""), effects]
    return Group(*parts)


def verdict_table(judgements: Sequence[Judgement]) -> RenderableType:
    """The verdicts of a study. Rules that do not apply are only named."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("rule", "verdict", "what was seen"):
        table.add_column(column, no_wrap=column != "what was seen")
    silent = []
    for one in judgements:
        if one.verdict is Verdict.DOES_NOT_APPLY:
            silent.append(one.rule.name)
            continue
        table.add_row(one.rule.name, Text(one.verdict.value, style=STYLES[one.verdict]), one.says)
    parts: list[RenderableType] = [table]
    if silent:
        parts += [Text(""), Text(f"do not apply here: {', '.join(silent)}", style="dim")]
    return Group(*parts)


def commands(judgements: Sequence[Judgement]) -> list[tuple[str, list[str]]]:
    """What would tell where a study does not: each command with the rules that it may decide, most rules first."""
    found: dict[str, list[str]] = {}
    for one in judgements:
        if one.verdict is Verdict.CANNOT_TELL and one.command:
            found.setdefault(one.command, []).append(one.rule.name)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def reading_table(found: Sequence[Reading] | Untold) -> RenderableType:
    """What becomes of "large batches are worse" by protocol, from the same curves."""
    if isinstance(found, Untold):
        return Text(f"whether large batches are worse, by protocol: {found.why}", style="dim")
    first = found[0].effect
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    table.title = (
        f"Is batch size {first.batch_size} worse? The same curves, by what sizes are given and how they are tuned"
    )
    for column in ("given, tuned", "falls short by", "worse", "as assumed by"):
        table.add_column(column)
    for one in found:
        table.add_row(
            one.given,
            effect_value(one.effect),
            Text(IS_WORSE[one.verdict], style=STYLES[one.verdict]),
            one.assumed_by,
        )
    return table


def _facts() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


# ---------------------------------------------------------------------------------------------------- Markdown


def index_page(rules: Sequence[Rule], example: Verdicts) -> str:
    """The book as one page: every rule with a link to its own, its sources, its verdict on the recorded study."""
    facts = example.case.evidence.facts
    lines = [
        "# The rule book",
        "",
        "Published rules for batch size and learning rate. `rightbatch judge STUDY` holds them against your own runs;",
        "the last column is what the recorded study that comes with the package shows",
        f"({facts.name}: {facts.train_examples:,} examples, {facts.optimizer}).",
    ]
    for family in FAMILIES:
        lines += ["", f"## {family.capitalize()}", "", "| rule | says | source | there |", "|---|---|---|---|"]
        for rule in rules:
            if rule.family == family:
                cited = ", ".join(f"{source.short} {source.year}" for source in rule.sources)
                verdict = example.of(rule.name).verdict.value
                lines.append(f"| [{rule.name}]({rule.name}.md) | {rule.statement} | {cited} | {verdict} |")
    return "\n".join([*lines, ""])


def rule_page(rule: Rule, example: Verdicts) -> str:
    """One rule as a page: what it says, who said it and where, what counts as right, a worked example."""
    facts, one = example.case.evidence.facts, example.of(rule.name)
    lines = [f"# {rule.name}", "", f"**{rule.statement}**", ""]
    lines += [f"- Source: {source.cited}: *{source.title}*{_link(source)}" for source in rule.sources]
    lines += [
        f"- Claimed for: {rule.scope}.",
        f"- Counts as right if: {rule.tolerance}.",
        f"- Family: {rule.family}.",
        f"- On your own runs: `rightbatch judge STUDY --rule {rule.name}`",
        "",
        "## Worked example",
        "",
        f"{facts.name} ({facts.train_examples:,} examples, {facts.optimizer}), as recorded.",
        "",
    ]
    predicted = rule.predict(example.case) if rule.applies(facts) else ()
    if predicted:
        lines += ["It predicts:", "", *(f"- {prediction(p)}" for p in predicted), ""]
    lines += [f"Verdict: **{one.verdict.value}**. {one.says[:1].upper()}{one.says[1:]}.", ""]
    if one.effects:
        lines += ["| measured | 95 % interval | the rule |", "|---|---:|---:|"]
        lines += [f"| {e.name} | {effect_value(e)} | {effect_range(e)} |" for e in one.effects]
        lines.append("")
    return "\n".join(lines)


def _link(source: Source) -> str:
    number = source.where.rpartition("arXiv ")[2] if "arXiv " in source.where else ""
    return f", [arxiv.org/abs/{number}](https://arxiv.org/abs/{number})" if number else ""
