"""A whole table of rules judged by one study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rightbatch.rules.case import Case
from rightbatch.rules.effects import LEVEL, Effect, Finding, Untold, Verdict, holm
from rightbatch.rules.readings import Reading, readings
from rightbatch.rules.rule import Rule


@dataclass(frozen=True)
class Judgement:
    """What a study says of one rule: the verdict, what was seen in a sentence, the effects that it rests on.

    `command` would tell, where the verdict is that it cannot be told; else it repeats the measurement.
    """

    rule: Rule
    verdict: Verdict
    says: str
    effects: tuple[Effect, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Verdicts:
    """Rules judged by one study, the most useful first; and what becomes of "larger is worse" by protocol."""

    case: Case
    judgements: tuple[Judgement, ...]
    readings: tuple[Reading, ...] | Untold

    def of(self, name: str) -> Judgement:
        """That of one rule. Raises `KeyError` for one that was not judged."""
        found = {one.rule.name: one for one in self.judgements}
        return found[name]


def verdicts_of(case: Case, rules: Iterable[Rule]) -> Verdicts:
    """What fails first, of that what people follow unmeasured; then what holds; last what does not apply."""
    order = [Verdict.FAILS, Verdict.HOLDS, Verdict.CANNOT_TELL, Verdict.DOES_NOT_APPLY]
    found = sorted(judge_all(case, rules), key=lambda one: (order.index(one.verdict), not one.rule.popular))
    return Verdicts(case, tuple(found), readings(case.evidence))


def judge_all(case: Case, rules: Iterable[Rule], level: float = LEVEL) -> tuple[Judgement, ...]:
    """Judge each rule by a study; verdicts are corrected for the number of rules that could be judged (Holm 1979)."""
    found = [(rule, rule.judge(case) if rule.applies(case.evidence.facts) else None) for rule in rules]
    verdicts = iter(holm([one for _, one in found if isinstance(one, Finding)], level))
    return tuple(_judgement(case, rule, one, verdicts) for rule, one in found)


def _judgement(case: Case, rule: Rule, found: Finding | Untold | None, verdicts: Iterator[Verdict]) -> Judgement:
    if found is None:
        return Judgement(rule, Verdict.DOES_NOT_APPLY, f"claimed for {rule.scope}")
    if isinstance(found, Untold):
        return Judgement(rule, Verdict.CANNOT_TELL, found.why, command=found.command)
    verdict = next(verdicts)
    if verdict is not Verdict.CANNOT_TELL:
        return Judgement(rule, verdict, found.says, found.effects, case.judging(f"--rule {rule.name}"))
    if found.only_holds:
        text = f"{found.says}; {found.only_holds.why}"
        return Judgement(rule, verdict, text, found.effects, found.only_holds.command)
    more = found.command or case.sweep(seeds=2 * max(1, case.seeds))
    return Judgement(rule, verdict, f"{found.says} (its error is too large to tell)", found.effects, more)
