"""What the reproduction of Marek et al. rests on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rightbatch.bundled import char_lm
from rightbatch.errors import DataError
from rightbatch.lattice import rate_at
from rightbatch.loading import as_module
from rightbatch.records import Settings, Trial

FOLDER = Path(__file__).parents[1] / "reproductions"
marek, nets, told = (
    as_module(FOLDER / f"{name}.py", f"{name}_of_tests")() for name in ("marek", "_marek_nets", "_marek_told")
)
NOISE = (0.0, 0.0, 0.004, -0.001, 0.002, -0.003)
"""What each seed adds; the first two tune."""


def cell(
    size: int, losses: dict[int, float], *, edge: bool = False, noise: tuple[float, ...] = NOISE
) -> dict[str, Any]:
    """A cell whose losses by lattice index are known, but for what seeds add."""
    return {
        "batch_size": size,
        "chosen": rate_at(min(losses, key=lambda k: losses[k])),
        "at_edge": edge,
        "losses": {
            f"{rate_at(k):g}": {str(seed): loss + more for seed, more in enumerate(noise)} for k, loss in losses.items()
        },
    }


def bowl(top: float, bend: float, least: float = 2.0) -> dict[int, float]:
    """Losses about a best lattice position, not a whole number."""
    return {k: least + bend * (k - top) ** 2 for k in range(round(top) - 3, round(top) + 4)}


def named(*of: Any) -> str:
    return str(told.named(*of))


# ---------------------------------------------------------------------------------------------------- the rule


def test_the_half_life_in_tokens_is_the_same_at_every_size() -> None:
    for size in (1, 4, 16, 64, 256):
        beta2 = told.beta2_of(size)
        assert size * 64 * math.log(2) / math.log(1 / beta2) == pytest.approx(told.tokens_of(1.0))
        steps = math.log(0.5) / math.log(beta2)  # after so many steps half is forgotten
        assert beta2**steps == pytest.approx(0.5)
    assert told.beta2_of(64) == 0.95
    assert told.beta2_of(1) == pytest.approx(0.9992, abs=1e-5)


def test_what_is_kept_at_every_size_is_beta2_itself() -> None:
    assert {told.beta2_of(size, factor) for _, size, factor in marek.FIXED} == {0.95}
    assert {told.beta2_of(size, factor) for _, size, factor in marek.USUAL} == {told.beta2_of(1)}
    assert told.tokens_of(4.0) == pytest.approx(4 * told.tokens_of(1.0))


# ----------------------------------------------------------------------------------------------- rates are tuned


@pytest.mark.parametrize("start", [-12, -9, -6, -4])
def test_the_best_rate_is_found_from_either_side_and_is_no_edge(start: int) -> None:
    tuned = marek.settle(lambda tried: {k: (k + 8.3) ** 2 for k in tried}, start)
    assert marek.best_of(tuned) == -8
    assert min(tuned) < -8 < max(tuned)


def test_a_best_rate_that_is_not_found_remains_an_edge() -> None:
    tuned = marek.settle(lambda tried: {k: float(k) for k in tried}, 0)
    assert marek.best_of(tuned) == min(tuned) == -1 - marek.WIDENINGS


def test_a_rate_that_diverges_is_not_gone_beyond() -> None:
    tuned = marek.settle(lambda tried: {k: math.inf if k > 3 else -float(k) for k in tried}, 2)
    assert marek.best_of(tuned) == 3
    assert max(tuned) == 4
    assert marek.mean_loss({"0": 2.0, "1": None}, 2) == math.inf
    assert marek.mean_loss({"0": 2.0, "1": 3.0, "2": 9.0}, 2) == 2.5


def test_rates_about_the_best_reach_to_where_losses_are_not_near() -> None:
    flat = marek.spread(lambda tried: {k: 0.1 * told.NEAR * k**2 for k in tried}, 0)
    steep = marek.spread(lambda tried: {k: 9 * told.NEAR * k**2 for k in tried}, 0)
    assert flat == list(range(-4, 5))  # 0.1 x 16 is the first beyond 1.5
    assert steep == [-2, -1, 0, 1, 2]


# ------------------------------------------------------------------------------------------ what the claims rest on


def test_a_difference_is_of_runs_with_the_same_seed_and_of_judging_seeds_alone() -> None:
    lucky = (-1.0, -1.0, *NOISE[2:])  # what tuned must not judge
    cells = {
        named("adam", 1, 1 / 64): cell(1, bowl(-11, 0.01, 2.3)),
        named("adam", 1, 1.0): cell(1, bowl(-10, 0.01, 2.1), noise=lucky),
    }
    found = told.costs(cells, ("adam", 1, 1 / 64), ("adam", 1, 1.0))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))
    cells[named("adam", 1, 1.0)]["at_edge"] = True
    assert told.costs(cells, ("adam", 1, 1 / 64), ("adam", 1, 1.0)) is None


def test_a_run_that_diverged_leaves_nothing_to_compare() -> None:
    cells = {named("adam", size, 1.0): cell(size, bowl(-9, 0.01)) for size in (1, 64)}
    chosen = cells[named("adam", 64, 1.0)]
    chosen["losses"][f"{chosen['chosen']:g}"]["4"] = None
    assert told.costs(cells, ("adam", 1, 1.0), ("adam", 64, 1.0)) is None


def test_the_gap_of_sgd_shrinks_by_what_it_shrinks() -> None:
    least = {("sgd", 64, 0.0): 2.7, ("adam", 64, 1.0): 2.4, ("sgd", 1, 0.0): 2.15, ("adam", 1, 1.0): 2.1}
    cells = {named(*of): cell(of[1], bowl(-9, 0.01, loss)) for of, loss in least.items()}
    assert told.gap_shrinks(cells, 1, 64).estimate == pytest.approx(0.25)
    del cells[named("sgd", 1, 0.0)]
    assert told.gap_shrinks(cells, 1, 64) is None


@pytest.mark.parametrize("power", [0.0, math.log(3) / math.log(1024), 0.5])
def test_best_rates_that_grow_by_a_power_have_that_power(power: float) -> None:
    sizes = (1, 4, 16, 64)
    cells = {named("adam", size, 1.0): cell(size, bowl(4 * math.log10(0.002 * size**power), 0.02)) for size in sizes}
    found = told.best_rate_power(cells, sizes)
    assert found.estimate == pytest.approx(power, abs=0.02)  # log loss is not quite a parabola
    assert found.high - found.low < 0.02


def test_a_best_rate_outside_of_what_was_tried_is_none() -> None:
    assert told.best_rate({10.0**k: 5.0 + k for k in (-3, -2.75, -2.5)}) is None
    assert told.best_rate({10.0**k: 2 + (k + 4) ** 2 for k in (-3, -2.75, -2.5)}) is None
    assert told.best_rate({0.001: 2.0, 0.01: 2.1}) is None


def test_the_width_of_a_valley_is_exact_and_says_where_it_is_cut_off() -> None:
    curve = {10.0**k: 2 + 0.1 * abs(k + 2) for k in range(-5, 2)}
    assert told.width(curve, 0.05) == (pytest.approx(1.0), False)
    assert told.width(curve, 0.15) == (pytest.approx(3.0), False)
    assert told.width(curve, 0.35) == (pytest.approx(6.0), True)
    assert told.width({0.001: 2.1, 0.01: 2.0, 0.1: math.inf}, 0.05) == (pytest.approx(0.5), False)


def test_a_valley_twice_as_wide_is_found_to_be() -> None:
    cells = {
        named("adam", size, 1.0): cell(size, {k: 2 + slope * abs(k + 9) for k in range(-14, -3)})
        for size, slope in ((1, 0.01), (64, 0.02))
    }
    found = told.width_ratio(cells, 1, 64)
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2, 2), rel=1e-3)  # rates are rounded
    assert told.width_ratio(cells, 1, 64, near=1.0) is None


@pytest.mark.parametrize("power", [0.0, 0.25])
def test_a_best_half_life_that_grows_by_a_power_has_that_power(power: float) -> None:
    sizes = (1, 16, 64)
    cells = {
        named("adam", size, factor): cell(size, bowl(-9, 0.02, 2 + 0.005 * math.log(factor / (0.8 * size**power)) ** 2))
        for size in sizes
        for factor in (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
    }
    found = told.best_half_life_power(cells, sizes)
    assert found.estimate == pytest.approx(power, abs=0.02)


def test_a_best_half_life_that_is_the_last_tells_nothing() -> None:
    assert told.best_factors({0.25: [2.3, 2.3], 1.0: [2.2, 2.2], 4.0: [2.1, 2.1]}) is None
    assert told.best_factors({0.25: [2.3, 2.3], 4.0: [2.1, 2.1]}) is None
    found = told.best_factors({0.25: [2.1, 2.2], 1.0: [2.0, 2.1], 4.0: [2.1, 2.0]})
    assert found == [pytest.approx(1.0), pytest.approx(4.0)]  # the second does not bend: the best of its three


# ----------------------------------------------------------------------------------------------- what is trained


def test_the_rate_rises_to_its_own_and_falls_to_nothing() -> None:
    shares = [nets.share_of_rate(step, 100, 10) for step in range(101)]
    assert max(shares) == 1.0
    assert shares[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert shares[99] == pytest.approx(1 / 90)
    assert shares[100] == 0.0
    assert nets.share_of_rate(0, 1, 1) == 1.0


def test_the_optimizers_have_the_rate_and_beta2_of_the_trial() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = nets.adam_optimizer([parameter], Trial(4, 0.01, 0, 100, Settings({"beta2": 0.9})))
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.9)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    plain = nets.sgd_optimizer([parameter], Trial(4, 0.3, 0, 100))
    assert (plain.param_groups[0]["momentum"], plain.param_groups[0]["weight_decay"]) == (0, 0)


def test_the_network_is_the_first_half_of_the_bundled_one() -> None:
    torch.manual_seed(0)
    whole = char_lm.Transformer(nets.KINDS)
    torch.manual_seed(0)
    half = nets.one_block()
    assert len(half.blocks) == 1
    text = torch.randint(nets.KINDS, (2, 64), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(half(text), whole.head(whole.blocks[0](whole.embedding(text) + whole.place)))


def test_every_run_sees_as_many_windows_and_none_twice() -> None:
    try:
        workload = nets.adam()
    except DataError as error:
        pytest.skip(str(error))
    for size in ("small", "paper"):
        assert all(marek.PLANS[size]["examples"] % b == 0 for _, b, _ in marek.PLANS[size]["cells"])
    assert marek.PLANS["small"]["examples"] <= len(workload.data)
    assert not workload.facts().length_bound


# ------------------------------------------------------------------------------------------------- all of it, told


def made_up() -> dict[str, Any]:
    """Every cell of the small size, in a world as the paper says it is."""
    cells = {}
    for optimizer, size, factor in dict.fromkeys(marek.PLANS["small"]["cells"]):
        bend = 0.03 if size >= 64 else 0.012
        least = 2.1 + (0.01 * math.log(factor) ** 2 if factor else 0.05 + 0.001 * size)
        cells[named(optimizer, size, factor)] = cell(size, bowl(4 * math.log10(0.002 * size**0.16), bend, least))
    return {"examples": 12_288, "cells": cells}


def test_in_a_world_as_the_paper_has_it_every_claim_holds() -> None:
    measured = made_up()
    found = marek.compare(measured)
    assert [one.claim for one in found] == [claim.identifier for claim in marek.CLAIMS]
    assert {one.claim: one.verdict for one in found if one.verdict != "holds"} == {"SGD at 1": "fails"}
    assert any("12,288 steps of batch size 1" in note for note in marek.notes(measured))
    assert marek.figure(measured).to_dict()


def test_best_rates_at_an_edge_leave_their_claims_open_and_are_named() -> None:
    measured = made_up()
    measured["cells"][named("adam", 64, 1.0)]["at_edge"] = True
    verdicts = {one.claim: one.verdict for one in marek.compare(measured)}
    assert {name for name, verdict in verdicts.items() if verdict == "cannot tell"} >= {"as 64", "SGD", "SGD at 1"}
    assert any("left out: Adam, batch size 64, 1.00 x" in note for note in marek.notes(measured))
    assert marek.figure(measured).to_dict()
