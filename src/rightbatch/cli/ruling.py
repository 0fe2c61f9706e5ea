"""The verbs of the rule book: rules, judge."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, out, print_json
from rightbatch.cli.arguments import asked
from rightbatch.cli.options import Json, Present, SettingOption, StudyPath, TargetOn, TargetOption
from rightbatch.errors import InputError
from rightbatch.pipeline import judge as judging
from rightbatch.report import rules as words
from rightbatch.rules import FAMILIES, RULES, Untold


@app.command("rules")
def rules_command(
    name: Annotated[str | None, typer.Argument(help="A rule to explain, with a worked example.")] = None,
    family: Annotated[str | None, typer.Option(help=f"Only this family: {', '.join(FAMILIES)}.")] = None,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print the sources as BibTeX.")] = False,
    as_json: Json = False,
) -> None:
    """List the published rules, or explain one."""
    check_family(family)
    if name is not None:
        judging.check_rule(name)
    chosen = [r for r in RULES.values() if name in (None, r.name) and family in (None, r.family)]
    if bibtex:
        entries = {source.key: source.bibtex() for rule in chosen for source in rule.sources}
        typer.echo("\n\n".join(entries[key] for key in sorted(entries)))
    elif as_json:
        print_json([words.rule_json(rule) for rule in chosen])
    elif name is None:
        out.print(words.rule_list(sorted(chosen, key=lambda rule: FAMILIES.index(rule.family))))
    else:
        out.print(words.explanation(RULES[name], judging.example()))


@app.command("judge")
def judge_command(
    study: StudyPath,
    rule: Annotated[
        str | None, typer.Option(help="Only this rule, with the numbers that its verdict rests on.")
    ] = None,
    family: Annotated[str | None, typer.Option(help=f"Only this family: {', '.join(FAMILIES)}.")] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(help="A fact that the study does not hold: compute=1e18, tokens_per_example=512."),
    ] = None,
    objective: Annotated[str | None, typer.Option(help="time, examples, or steps.")] = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    present: Present = None,
    settings: SettingOption = None,
    as_json: Json = False,
) -> None:
    """Judge the published rules by a study: which hold here, which fail, what would tell. Trains nothing."""
    check_family(family)
    if rule is not None:
        judging.check_rule(rule)
    ask = asked(objective=objective, target=target, target_on=target_on, present=present, settings=settings)
    # Verdicts are corrected for all rules, also where only some are shown: what is looked at changes no verdict.
    found = judging.judge(study, known=facts_of(known or []), **ask)
    shown = [one for one in found.judgements if rule in (None, one.rule.name) and family in (None, one.rule.family)]
    if as_json:
        by_protocol = [] if isinstance(found.readings, Untold) else [words.reading_json(one) for one in found.readings]
        print_json({"rules": [words.judgement_json(one) for one in shown], "larger_is_worse": by_protocol})
    elif rule is not None:
        out.print(words.detail(shown[0]))
    else:
        out.print(words.verdict_table(shown))
        if family in (None, "quality"):
            out.print()
            out.print(words.reading_table(found.readings))
        for command, names in words.commands(shown):
            out.print()
            out.print(f"would tell: {', '.join(names)}", style="dim", markup=False)
            out.print(command, markup=False, soft_wrap=True)


def check_family(family: str | None) -> None:
    """Raises `InputError` for a name that is no family of rules."""
    if family is not None and family not in FAMILIES:
        raise InputError(f"There is no family {family!r} of rules. Choose one of: {', '.join(FAMILIES)}.")


def facts_of(texts: list[str]) -> dict[str, float]:
    """NAME=NUMBER texts as a mapping. Raises `InputError` for another form."""
    facts = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            facts[name] = float(value)
        except ValueError:
            raise InputError(f"A known fact is NAME=NUMBER, as compute=1e18; got {text!r}.") from None
    return facts
