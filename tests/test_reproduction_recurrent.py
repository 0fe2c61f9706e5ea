"""What the reproduction on recurrent networks rests on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rightbatch.bundled.wikitext2 import WordModel, next_word, streams
from rightbatch.errors import DataError
from rightbatch.loading import as_module
from rightbatch.records import Point, Run, Target, Trial

FOLDER = Path(__file__).parents[1] / "reproductions"
recurrent, nets, told = (
    as_module(FOLDER / f"{name}.py", f"{name}_of_tests")()
    for name in ("recurrent", "_recurrent_nets", "_recurrent_told")
)
JUDGES = (0.03, -0.02, 0.01, -0.02)
"""What each seed that judges adds to the log of the tokens that it needs."""


def blocks(seconds: dict[int, float], noise: float = 0.0, count: int = 8) -> list[dict[str, float]]:
    """Blocks of step times; each is slower or faster as a whole, which ratios do not see, and every size by noise."""
    generator = np.random.default_rng(0)
    return [
        {str(size): value * math.exp(slow + noise * generator.standard_normal()) for size, value in seconds.items()}
        for slow in generator.standard_normal(count)
    ]


def cell(windows: float, *, edge: bool = False, judges: tuple[float, ...] = JUDGES, tuning: float = 1.0) -> Any:
    """A size whose windows to the target are known, but for what seeds add."""
    return {
        "rate": 0.01,
        "at_edge": edge,
        "tuning": [windows * tuning],
        "judging": [windows * math.exp(more) for more in judges],
    }


# ---------------------------------------------------------------------------------------------------- speeds


def test_a_ratio_of_speeds_does_not_see_what_slows_a_whole_block() -> None:
    found = told.speed_ratio(blocks({1: 0.001, 32: 0.004}), 32, 1)
    assert (found.estimate, found.low, found.high) == pytest.approx((8, 8, 8))


def test_where_speed_drops_is_found_and_where_it_does_not_nothing_is() -> None:
    rises = {1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4, 9: 2.6}
    drops = {**rises, 9: 2.4 * 9 / 8 / 0.8}
    for seconds, least, dropped in ((rises, 9 / 2.6 * 2.4 / 8, []), (drops, 0.8, [(8, 9)])):
        found = told.worst_step(blocks(seconds, noise=0.005))
        assert found.low < least < found.high
        assert found.high - found.low < 0.05
        assert [pair for pair, ratio in told.steps_up(blocks(seconds, noise=0.005)) if ratio.high < 1] == dropped


def test_intervals_of_all_steps_hold_at_once() -> None:
    """Of equal speeds the least ratio is below 1 by luck: nearly always the interval holds 1 nevertheless."""
    missed = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        noisy = [{str(2**k): 2**k * math.exp(0.1 * generator.standard_normal()) for k in range(10)} for _ in range(8)]
        missed += told.worst_step(noisy).high < 1
    assert missed <= 12  # 5 % of 200 at most, but for luck


def test_no_interval_where_there_is_one_block() -> None:
    assert told.worst_step(blocks({1: 1.0, 2: 1.0}, count=1)) is None
    assert told.speed_ratio(blocks({1: 1.0, 2: 1.0}, count=1), 2, 1).low is None


# ------------------------------------------------------------------------------------------- tokens and times

SECONDS = {4: 0.004, 16: 0.008, 64: 0.016, 256: 0.064}
CELLS = {"4": cell(1000), "16": cell(1200), "64": cell(2000), "256": cell(6000)}
"""Seconds to the target: 1, 0.6, 0.5, 1.5."""


def test_tokens_and_times_are_those_of_the_world() -> None:
    speed = blocks(SECONDS)
    assert told.token_ratio(CELLS, ("256",), ("4",)).estimate == pytest.approx(6)
    assert told.best_size(CELLS, speed) == "64"
    assert told.time_ratio_to_best(CELLS, speed, 0).estimate == pytest.approx(2)
    assert told.time_ratio_to_best(CELLS, speed, -1).estimate == pytest.approx(3)
    alike = [dict.fromkeys(("4", "16", "64", "256"), 0.5)]
    assert told.seconds_to(CELLS, alike, "64") == pytest.approx(0.5 * 2000 / 64)


def test_the_best_size_at_an_end_tells_nothing_of_that_end() -> None:
    speed = blocks({4: 0.004, 16: 0.008, 64: 0.016, 256: 0.008})
    assert told.best_size(CELLS, speed) == "256"
    assert told.time_ratio_to_best(CELLS, speed, -1) is None
    assert told.time_ratio_to_best(CELLS, speed, 0).estimate > 1


def test_seeds_that_judge_do_not_choose_the_best_size() -> None:
    lucky = {**CELLS, "16": cell(1200, tuning=0.5)}  # the seed that chose was fast here, the judges were not
    assert told.best_size(lucky, blocks(SECONDS)) == "16"
    assert told.time_ratio_to_best(lucky, blocks(SECONDS), 0).estimate == pytest.approx(1 / 0.6)


def test_variances_of_seeds_and_of_step_times_add_up() -> None:
    """Without noise of step times the interval is Welch's; with it, wider; and it covers the truth."""
    plain = told.time_ratio(CELLS, blocks(SECONDS), "4", "64")
    welch = told.token_ratio(CELLS, ("4",), ("64",))
    assert (plain.low / plain.estimate) == pytest.approx(welch.low / welch.estimate, rel=0.01)
    noisy = told.time_ratio(CELLS, blocks(SECONDS, noise=0.2), "4", "64")
    assert noisy.high / noisy.low > plain.high / plain.low
    covered = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        drawn = {
            size: cell(windows, judges=tuple(0.05 * generator.standard_normal(4)))
            for size, windows in (("4", 1000), ("64", 2000))
        }
        times = [
            {size: SECONDS[int(size)] * math.exp(0.05 * generator.standard_normal()) for size in drawn}
            for _ in range(8)
        ]
        found = told.time_ratio(drawn, times, "4", "64")
        covered += found.low <= 2 <= found.high
    assert 0.92 <= covered / 300 <= 0.99


def test_a_recorded_speed_has_no_variance() -> None:
    once = [{str(size): value for size, value in SECONDS.items()}]
    found = told.time_ratio(CELLS, once, "4", "64")
    assert found.estimate == pytest.approx(2)
    assert told.time_ratio({size: cell(100, judges=(0.0, 0.0)) for size in CELLS}, once, "4", "64").low == (
        pytest.approx(16 * 0.004 / 0.016)
    )


@pytest.mark.parametrize(
    "useless",
    [cell(2000, edge=True), cell(2000, judges=(0.1,)), {**cell(2000), "judging": [2000.0, None, 2100.0]}],
)
def test_a_size_that_cannot_be_judged_is_left_out(useless: Any) -> None:
    cells = {**CELLS, "64": useless}
    assert told.at_sizes(cells) == ["4", "16", "256"]
    assert told.best_size(cells, blocks(SECONDS)) == "16"
    assert told.token_ratio(cells, ("64",), ("4",)) is None
    assert told.quality_difference(cells, 4, 64) is None


def test_quality_is_the_larger_less_the_smaller() -> None:
    cells = {"8": {**cell(1), "judging": [2.20, 2.21, 2.19]}, "128": {**cell(1), "judging": [2.25, 2.26, 2.24]}}
    found = told.quality_difference(cells, 8, 128)
    assert found.estimate == pytest.approx(0.05)
    assert 0 < found.low < 0.05 < found.high


# --------------------------------------------------------------------------------------------- what runs told


def test_a_run_is_read_at_its_crossing_and_at_its_end() -> None:
    losses = (4.0, 3.0, 2.0, 1.9, 2.5)
    points = tuple(
        Point(step=k, examples=8 * 2**k if k else 0, valid_loss=loss, valid_metric=loss)
        for k, loss in enumerate(losses)
    )
    run = Run(Trial(8, 0.01, 1), points)
    assert recurrent.windows_to(run, Target(2.0, "valid_metric", "min")) == pytest.approx(32)
    assert recurrent.windows_to(run, Target(1.9, "valid_metric", "min")) is None  # touched once only
    assert recurrent.end_of(run) == 2.5
    assert recurrent.best_at(run) == 0.5
    assert recurrent.of_cell(run, 8, 0.01)
    assert not recurrent.of_cell(run, 8, 0.02)


def test_of_the_table_two_seeds_choose_and_the_others_judge() -> None:
    cells = recurrent.recorded()
    assert told.at_sizes(cells) == ["16", "32", "64", "128", "256"]
    assert {len(one["tuning"]) for one in cells.values()} == {2}
    assert {len(cells[size]["judging"]) for size in told.at_sizes(cells)} == {4}
    assert [cells[size]["rate"] for size in ("16", "64")] == [0.01, 0.03162]
    # An independent look at the first seed of 64 at its rate: the file, and nothing of what reads it.
    import csv
    import gzip

    with gzip.open(recurrent.TABLE, "rt") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["batch_size"], float(row["learning_rate"]), row["seed"]) == ("64", 0.03162, "0")
        ]
    steps = [int(row["step"]) for row in rows]
    reached = [float(row["valid_metric"]) >= recurrent.TABLE_TARGET for row in rows]
    first = next(k for k in range(len(rows) - 1) if reached[k] and reached[k + 1])
    assert 64 * steps[first - 1] <= cells["64"]["tuning"][0] <= 64 * steps[first]


# ------------------------------------------------------------------------------------------- streams and words


def text(length: int) -> torch.Tensor:
    return torch.randint(50, (length,), generator=torch.Generator().manual_seed(0))


def model() -> WordModel:
    torch.manual_seed(0)
    return WordModel(50)


def test_eight_streams_with_a_batch_of_eight_are_what_they_are_elsewhere() -> None:
    mine, theirs = list(nets.bundles(text(8 * 35 * 5 + 1), 8, seed=3)), list(streams(text(8 * 35 * 5 + 1), 8, seed=3))
    assert len(mine) == len(theirs) == 5
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[2] == other[2]


def test_a_larger_batch_of_eight_streams_is_their_next_windows() -> None:
    """Every word once, in the same streams; the last window that makes up no batch is left out."""
    whole = list(streams(text(8 * 35 * 5 + 1), 8, seed=3))
    bundled = list(nets.bundles(text(8 * 35 * 5 + 1), 16, seed=3))
    assert [first for _, _, first in bundled] == [True, False]
    for part in (0, 1):
        expected = torch.cat([window[part] for window in whole[:4]], dim=1)
        assert torch.equal(torch.cat([batch[part] for batch in bundled], dim=1), expected)


def test_the_gradient_of_a_bundle_is_that_of_its_windows_accumulated() -> None:
    (bundle, *_), windows = nets.bundles(text(8 * 35 * 4 + 1), 32), list(streams(text(8 * 35 * 4 + 1), 8))
    of_bundle, of_windows = model(), model()
    total, count = nets.next_word_by_window(of_bundle, bundle)
    total.backward()
    summed = 0.0
    for window in windows:
        loss, _ = next_word(of_windows, window)
        loss.backward()
        summed += loss.item()
    assert count == 8 * 35 * 4
    assert total.item() == pytest.approx(summed, rel=1e-5)
    for one, other in zip(of_bundle.parameters(), of_windows.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    for one, other in zip(of_bundle.carried, of_windows.carried, strict=True):
        torch.testing.assert_close(one, other)


def test_rare_words_become_unknown_and_a_text_is_read_back_whole() -> None:
    assert nets._fewer(torch.tensor([0, 999, 1000, 1999])).tolist() == [0, 999, 0, 0]
    whole = text(35 * 6 + 1)
    assert torch.equal(nets._read_through(lambda batch_size, seed: streams(whole, batch_size, seed)), whole)


def test_words_are_those_of_the_bundled_workload_but_for_the_rare_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "flush_tiny_numbers", lambda: None)  # not in the process of the tests
    try:
        workload = nets.words()
    except DataError as error:
        pytest.skip(str(error))
    words, targets, first = next(iter(workload.data(4, 1)))
    assert words.shape == targets.shape == (4, 35)
    assert first
    assert int(torch.cat([words for words, _, _ in workload.data(64, 0)]).max()) == nets.VOCABULARY - 1
    assert sum(words.numel() for words, _, _ in workload.valid(20, 0)) == nets.EVALUATED * 35


def test_claims_are_of_what_is_measured() -> None:
    """A made-up world in which every claim holds, and one in which speed is monotone and batch size does not pay."""
    seconds = {name: {size: 0.004 + 0.0002 * size for size in sizes} for name, sizes in recurrent.SPEED_SIZES.items()}
    for of in seconds.values():
        of[9] *= 1.2
    tokens = {name: {str(size): cell(1000 + 40 * size) for size in sizes} for name, sizes in recurrent.SIZES.items()}
    ends = {
        name: {str(size): {**cell(2.2, judges=(0.001, 0.0, -0.001)), "best": [2.2] * 3, "best_at": [0.9] * 3}
               for size in sizes}
        for name, sizes in recurrent.QUALITY_SIZES.items()
    }  # fmt: skip
    measured = {
        "tokens": {recurrent.RECORDED: recurrent.recorded(), **tokens},
        "speed": {
            recurrent.RECORDED: [recurrent.recorded_speed()],
            **{name: blocks(of, noise=0.01) for name, of in seconds.items()},
        },
        "cut": {size: tokens["words"][size] for size in ("64", "256")},
        "quality": ends,
    }
    done = {one.claim: one.verdict for one in recurrent.compare(measured)}
    assert list(done) == [claim.identifier for claim in recurrent.CLAIMS]
    assert set(done.values()) == {"holds"}
    assert recurrent.notes(measured)
    assert "words, 8 streams" in recurrent.figure(measured).to_json()
    flat = {name: blocks({size: size / 100 for size in of}) for name, of in seconds.items()}
    done = {one.claim: one.verdict for one in recurrent.compare({**measured, "speed": {**measured["speed"], **flat}})}
    assert {done[f"{name}: not monotone"] for name in flat} == {"fails"}
    assert {done[f"{name}: pays"] for name in flat} == {"cannot tell"}  # the smallest is the best itself
    assert {done[f"{name}: up to a point"] for name in flat} == {"holds"}
