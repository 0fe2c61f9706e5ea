"""The contract of every rule in the book."""

from __future__ import annotations

import re

import pytest
from worlds import WORLDS

from rightbatch.rules import FAMILIES, RULES, Rule, Verdict, judge_all


def verdict(rule: Rule, *, holds: bool) -> Verdict:
    case = WORLDS[rule.name][0 if holds else 1]()
    return next(one for one in judge_all(case, RULES.values()) if one.rule is rule).verdict


def test_there_are_enough_of_them() -> None:
    assert len(RULES) >= 24
    assert {rule.family for rule in RULES.values()} == set(FAMILIES)
    assert set(WORLDS) == set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_it_holds_in_one_world_and_fails_in_another(rule: Rule) -> None:
    assert verdict(rule, holds=True) is Verdict.HOLDS
    assert verdict(rule, holds=False) is Verdict.FAILS


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_it_is_stated_and_cited(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
    assert rule.statement.endswith(".")
    assert not rule.scope.endswith(".")
    assert not rule.tolerance.endswith(".")
    assert rule.sources
    for source in rule.sources:
        assert 1950 < source.year < 2027
        assert source.cited.startswith(source.short)
        entry = source.bibtex()
        assert entry.count("{") == entry.count("}")
        assert f"@misc{{{source.key}," in entry
        assert str(source.year) in entry


def test_a_source_has_one_key_wherever_it_is_cited() -> None:
    titles = {}
    for rule in RULES.values():
        for source in rule.sources:
            assert titles.setdefault(source.key, source.title) == source.title
