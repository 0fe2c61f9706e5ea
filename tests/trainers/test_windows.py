"""When the number of micro-batches of a step can change in a trainer that counts them from the beginning of a pass."""

from __future__ import annotations

import importlib
import sys

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rightbatch.controllers import Planned
from rightbatch.errors import MissingExtra
from rightbatch.trainers.windows import Windows, nearest_divisor


@settings(derandomize=True, deadline=None)
@given(wanted=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_every_step_ends_where_its_number_divides_those_done(wanted: list[int]) -> None:
    now, done = wanted[0], 0
    for want in wanted:
        now = nearest_divisor(want, now, done)
        done += now
        assert done % now == 0
        assert now <= max(wanted)


def test_what_is_wanted_comes_soon() -> None:
    now, done, steps = 1, 7, 0
    while now != 5:
        now = nearest_divisor(5, now, done)
        done, steps = done + now, steps + 1
    assert steps == 5  # 1, 4, 4, 4 and 5 of them
    assert nearest_divisor(9, 4, 0) == 9
    assert nearest_divisor(4, 5, 35) == 5  # rather than 1
    assert nearest_divisor(4, 5, 40) == 4


def test_steps_are_worth_those_of_the_first_size() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    windows = Windows(Planned("24@24"), optimizer, 2, 4)
    assert [windows.micro_batches, windows.made(2, 2), windows.made(2, 4), windows.made(2, 6)] == [2, 0, 0, 0]
    assert (windows.micro_batches, windows.made(6, 12), windows.made(3, 15)) == (6, 2, 1)
    assert (windows.examples, windows.steps) == (60, 5)


@pytest.mark.parametrize("package", ["lightning", "transformers"])
def test_a_package_that_is_missing_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"rightbatch.trainers.{package}", raising=False)
    for name in (package, "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'rightbatch\[{package}\]'"):
        importlib.import_module(f"rightbatch.trainers.{package}")
