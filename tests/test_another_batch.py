"""Moving a training to another batch size: rate, steps, schedule and passes together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.another_batch import RULES, Plan, moved
from rightbatch.errors import InputError

PLAN = Plan(256, 0.1, 1_281_167 * 90, warm_up_steps=5000, milestones=(150_000, 300_000))
ADAM = Plan(32, 1e-3, 32e5, warm_up_steps=100, beta1=0.9, beta2=0.999, epsilon=1e-8)


def test_linear_is_that_of_goyal_et_al() -> None:
    """Their 8192 for 256: a rate of 3.2, an as many times shorter schedule."""
    plan = moved(PLAN, 8192, "linear")
    assert plan.learning_rate == pytest.approx(3.2)
    assert plan.examples == PLAN.examples
    assert plan.steps == pytest.approx((PLAN.steps or 0) / 32)
    assert plan.warm_up_steps == pytest.approx(5000 / 32)
    assert plan.milestones == pytest.approx((150_000 / 32, 300_000 / 32))


def test_same_steps_are_those_of_hoffer_et_al() -> None:
    plan = moved(PLAN, 4096, "sqrt-same-steps")
    assert plan.learning_rate == pytest.approx(0.4)
    assert plan.steps == pytest.approx(PLAN.steps)
    assert (plan.warm_up_steps, plan.milestones) == (PLAN.warm_up_steps, PLAN.milestones)


def test_adam_is_that_of_malladi_et_al() -> None:
    plan = moved(ADAM, 128, "adam")
    assert plan.learning_rate == pytest.approx(2e-3)
    assert plan.beta1 == pytest.approx(0.6)
    assert plan.beta2 == pytest.approx(0.996)
    assert plan.epsilon == pytest.approx(5e-9)
    with pytest.raises(InputError, match="less than 10 times as large"):
        moved(ADAM, 320, "adam")


def test_what_there_is_not_is_an_error() -> None:
    with pytest.raises(InputError, match="there are linear, sqrt, sqrt-same-steps, adam"):
        moved(PLAN, 512, "cubic")
    with pytest.raises(InputError, match="at least 1"):
        moved(PLAN, 0, "linear")


@pytest.mark.parametrize("rule", RULES)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(size=st.integers(32, 200))
def test_there_and_back_is_the_same_training(rule: str, size: int) -> None:
    there = moved(ADAM, size, rule)
    back = moved(there, ADAM.batch_size, rule)
    for name, value in vars(ADAM).items():
        assert getattr(back, name) == (pytest.approx(value) if value is not None else None)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_where_it_is_from_and_keeps_what_is_not_there(rule: str) -> None:
    assert RULES[rule].source
    assert RULES[rule].statement
    plan = moved(replace(PLAN, examples=None, warm_up_steps=0, milestones=()), 512, rule)
    assert (plan.examples, plan.steps, plan.beta1, plan.epsilon) == (None, None, None, None)
