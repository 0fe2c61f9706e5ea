"""Gap and sharpness across batch sizes, from records made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from rightbatch.generalization import across, ends_of, paths_of
from rightbatch.means import difference_of_means, mean_of, ratio_of_means
from rightbatch.minima import WeightsRecord
from rightbatch.records import Run, Settings, Stop, StopReason, Trial


def made(cells: dict[tuple[int, float], list[tuple[float, float]]], planned: int = 1000) -> tuple[list, list]:
    """Runs and records: of each cell the validation metric and sharpness of each seed; the training metric is 1."""
    runs, records = [], []
    for (size, rate), seeds in cells.items():
        for seed, (metric, sharp) in enumerate(seeds):
            number = len(runs) + 1
            runs.append(Run(Trial(size, rate, seed, planned), (), Stop(StopReason.FINISHED), 0.0, number))
            records += [
                WeightsRecord(number, "ends", "train_metric", 1.0),
                WeightsRecord(number, "ends", "valid_metric", metric),
                WeightsRecord(number, "box", "box", sharp, evaluations=12.0),
                WeightsRecord(number, "box", "rise", 99.0),
            ]
    return runs, records


CELLS = {
    (32, 0.1): [(0.90, 1.0), (0.92, 1.2)],
    (256, 0.1): [(0.80, 9.0), (0.82, 12.0)],
    (256, 0.3): [(0.89, 3.0), (0.91, 4.0)],
}


def test_one_rate_and_tuned() -> None:
    ends = ends_of(*made(CELLS), "max")
    assert [end.values["box"] for end in ends] == [1.0, 1.2, 9.0, 12.0, 3.0, 4.0]
    assert ends[0].gap == pytest.approx(0.1)
    assert ends[0].evaluations == {"box": 12.0}
    one, tuned = across(ends, "max", None)
    assert [(size.batch_size, size.learning_rate) for size in one.sizes] == [(32, 0.1), (256, 0.1)]
    assert [(size.batch_size, size.learning_rate) for size in tuned.sizes] == [(32, 0.1), (256, 0.3)]
    assert one.sizes[1].sharpness["box"].estimate == pytest.approx(10.5)
    assert one.with_gap == {}  # four runs are too few


def test_of_a_metric_that_goes_down_less_is_better() -> None:
    ends = ends_of(*made(CELLS), "min")
    assert ends[0].gap == pytest.approx(-0.1)
    _, tuned = across(ends, "min", None)
    assert [(size.batch_size, size.learning_rate) for size in tuned.sizes] == [(32, 0.1), (256, 0.1)]


def test_what_the_person_trains_with_is_the_one_rate_where_it_was_measured() -> None:
    cells = {(8, 0.1): [(0.9, 1.0)], (32, 0.1): [(0.9, 1.0)], (8, 0.3): [(0.9, 1.0)], (32, 0.3): [(0.9, 1.0)]}
    ends = ends_of(*made(cells), "max")
    assert [size.learning_rate for size in across(ends, "max", 0.1)[0].sizes] == [0.1, 0.1]
    assert [size.learning_rate for size in across(ends, "max", 5.0)[0].sizes] == [0.3, 0.3]
    assert across((), "max", None) == ()


def test_runs_that_were_planned_shorter_do_not_take_part() -> None:
    runs, records = made(CELLS)
    short, more = made({(512, 0.1): [(0.5, 50.0)]}, planned=100)
    moved = [Run(short[0].trial, (), short[0].stop, 0.0, 99)]
    found = across(
        ends_of(
            [*runs, *moved],
            [*records, *(WeightsRecord(99, r.measure, r.quantity, r.value) for r in more)],
            "max",
        ),
        "max",
        None,
    )
    assert all(size.batch_size != 512 for protocol in found for size in protocol.sizes)


def test_sharp_and_bad_go_together_where_they_do() -> None:
    cells = {(2**k, 0.1): [(0.9 - 0.01 * k, 2.0**k), (0.9 - 0.01 * k, 2.0**k + 0.1)] for k in range(5)}
    (one,) = across(ends_of(*made(cells), "max"), "max", None)
    assert one.with_gap["box"].correlation > 0.9
    assert one.with_quality["box"].correlation < -0.9
    assert one.with_gap["box"].pairs == 10


def test_means_differences_and_factors_are_those_of_t_tests() -> None:
    draw = np.random.default_rng(2)
    left, right = draw.normal(3, 1, 6).tolist(), draw.normal(1, 2, 9).tolist()
    difference = difference_of_means(left, right)
    welch = ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert difference.estimate == pytest.approx(np.mean(left) - np.mean(right))
    assert (difference.low, difference.high) == pytest.approx((welch.low, welch.high))
    # Where one group does not vary it is the t of the other, whatever the last digits of its freedom.
    for shift in range(100):
        own = [shift + value for value in (0.1, 0.2, 0.4)]
        alone, beside = mean_of(own), difference_of_means(own, [5.0] * 3)
        assert alone is not None
        assert alone.low is not None
        assert beside.low == pytest.approx(alone.low - 5, abs=1e-6)
    factor = ratio_of_means(np.exp(left).tolist(), np.exp(right).tolist())
    assert math.log(factor.estimate) == pytest.approx(difference.estimate)
    assert math.log(factor.low or 0) == pytest.approx(difference.low)
    assert mean_of([]) is None
    assert (mean_of([2.0]), difference_of_means([1.0], [0.5])) != (None, None)
    assert difference_of_means([1.0], [0.5]).note == ratio_of_means([1.0], [0.5]).note == "one seed"
    assert difference_of_means([1.0, 1.0], [0.5, 0.5]).low == 0.5


def test_lines_are_put_together_by_kind_and_position() -> None:
    records = [
        WeightsRecord(1, "path", name, at + k, choices=Settings({"kind": kind, "at": at, "to": 2, "examples": "all"}))
        for kind in ("straight", "curved")
        for at in (1.0, -1.0, 0.0)
        for k, name in enumerate(("train_loss", "train_metric", "valid_loss", "valid_metric"))
    ]
    found = paths_of(records)
    assert list(found) == [(1, 2)]
    assert [(point.kind, point.at) for point in found[1, 2]][:3] == [("curved", -1.0), ("curved", 0.0), ("curved", 1.0)]
    assert (found[1, 2][0].train_loss, found[1, 2][0].valid_metric) == (-1.0, 2.0)
