"""What the rule book adds to an answer: the rules that it rests on, and the popular ones that fail here."""

from __future__ import annotations

from collections.abc import Mapping

from rightbatch.evidence import Evidence
from rightbatch.generalization import main_records
from rightbatch.rules import RULES, Case, Judgement, Verdict, judge_all
from rightbatch.search.forecast import Forecast

RESTED_ON = ("hyperbola", "noise-scale")
"""Rules that an answer itself makes use of: the law of steps, and the prior that gradients give."""


def case_of(
    evidence: Evidence,
    forecast: Forecast | None = None,
    *,
    study: str = "STUDY",
    known: Mapping[str, float] | None = None,
) -> Case:
    """A study as the rules see it: with the costs that its search forecasts, where it was one of few runs."""
    sizes = forecast.sizes if forecast else ()
    expected = {size.batch_size: size.cost for size in sizes if size.cost is not None}
    return Case(evidence, study, expected, sharpness_of(evidence), known or {})


def sharpness_of(evidence: Evidence) -> dict[tuple[int, float, int], float]:
    """What was measured of the runs, by batch size, rate and seed."""
    boxes = {record.run: record.value for record in main_records(evidence.weights, "box") if record.quantity == "box"}
    return {
        (run.trial.batch_size, run.trial.learning_rate, run.trial.seed): boxes[run.identifier]
        for run in evidence.runs
        if run.identifier in boxes
    }


def advice(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons (rules that the answer rests on, and that could be judged), and cautions (popular rules that fail)."""
    found = {one.rule.name: one for one in judge_all(case, RULES.values())}
    rested = [found[name] for name in RESTED_ON if found[name].effects]
    failing = [one for one in found.values() if one.rule.popular and one.verdict is Verdict.FAILS]
    return tuple(_reason(one) for one in rested), tuple(_caution(one) for one in failing)


def _reason(one: Judgement) -> str:
    verdict = {
        Verdict.HOLDS: "holds here",
        Verdict.FAILS: "does not hold here within its tolerance",
        Verdict.CANNOT_TELL: "can neither be confirmed nor refuted yet",
    }[one.verdict]
    return f"the rule {one.rule.name!r} ({_cited(one)}), which this rests on, {verdict}: {one.says}"


def _caution(one: Judgement) -> str:
    return f"the popular rule {one.rule.name!r} ({_cited(one)}) fails here: {one.says}"


def _cited(one: Judgement) -> str:
    source = one.rule.sources[0]
    return f"{source.short} {source.year}"
