"""MLPerf's curves: what returns is counted once, and nothing of the largest batch is known when it is predicted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rightbatch.errors import DataError
from rightbatch.loading import as_module

FOLDER = Path(__file__).parents[1] / "reproductions"
curves = as_module(FOLDER / "_mlperf_curves.py", "_mlperf_curves")()
mlperf = as_module(FOLDER / "mlperf.py", "mlperf")()


def curve(benchmark: str, round_: str, means: dict[int, float], pattern: tuple[float, ...] = (-0.1, 0.0, 0.1)):
    """Runs about these means."""
    return curves.Curve(benchmark, round_, {b: tuple(m * (1 + k) for k in pattern) for b, m in means.items()})


EARLY = curve("bert", "training_1.0.0", {256: 2.0, 512: 2.2, 1024: 2.6})
LATER = curve("bert", "training_2.0.0", {256: 2.0, 512: 2.2, 1024: 2.6, 2048: 3.4})
IN_SAMPLES = curve("bert-large", "training_3.0.0", {256: 200.0, 512: 220.0, 1024: 260.0})
OTHER = curve("resnet", "training_1.0.0", {256: 40.0, 512: 41.0, 1024: 45.0}, (-0.1, 0.02, 0.08))
ANOTHER = curve("gnn", "training_1.0.0", {16: 1.0, 64: 1.3, 256: 2.1, 1024: 5.7}, (-0.1, -0.05, 0.15))


def test_a_curve_within_another_is_not_counted_be_it_in_other_units() -> None:
    assert curves.distinct([EARLY, LATER, IN_SAMPLES, OTHER]) == [LATER, OTHER]


def test_of_the_same_curve_the_latest_is_kept() -> None:
    again = replace(EARLY, round="training_1.1.0")
    assert curves.distinct([EARLY, again]) == [again]


def test_two_versions_with_the_same_last_point_are_one_prediction() -> None:
    revised = curve("bert", "training_2.1.0", {256: 2.1, 2048: 3.4})
    assert curves.distinct([LATER, revised]) == [revised]


def test_another_measurement_is_another_curve() -> None:
    measured_again = curve("bert", "training_2.0.0", {256: 2.0, 512: 2.2, 1024: 2.6}, (-0.2, 0.0, 0.2))
    assert curves.distinct([EARLY, measured_again]) == [EARLY, measured_again]


def test_benchmarks_that_share_a_point_are_one() -> None:
    numbers = curves.families([EARLY, OTHER, IN_SAMPLES, LATER])
    assert numbers[0] == numbers[2] == numbers[3] != numbers[1]


def test_runs_that_are_all_alike_do_not_make_two_benchmarks_one() -> None:
    one, other = (curve(name, "training_1.0.0", {64: mean}, (0.0, 0.0)) for name, mean in (("a", 1.0), ("b", 3.0)))
    assert curves.distinct([one, other]) == [one, other]
    assert len(set(curves.families([one, other]))) == 2


def test_a_run_far_off_is_left_out() -> None:
    odd = curves.Curve("gpt3", "training_4.0.0", {1536: (1.0, 1.1, 1.2, 11.0)})
    assert odd.left_out == 1
    assert odd.means == [pytest.approx(1.1)]


def test_the_largest_batch_is_not_known_when_it_is_predicted() -> None:
    everything = [LATER, OTHER, ANOTHER]
    numbers = curves.families(everything)
    found = mlperf.predict(everything, numbers, 0)
    runs = dict(LATER.runs) | {2048: tuple(10 * run for run in LATER.runs[2048])}
    other = mlperf.predict([replace(LATER, runs=runs), OTHER, ANOTHER], numbers, 0)
    assert {key: found[key] for key in ("predicted", "low", "high")} == {
        key: other[key] for key in ("predicted", "low", "high")
    }
    assert found["predicted"] == pytest.approx(3.4, rel=0.01)  # they are on a line


def test_too_few_sizes_are_not_predicted() -> None:
    short = curve("openfold", "hpc_3.0.0", {128: 1.0, 256: 1.2})
    found = mlperf.predict([short, OTHER, ANOTHER], [0, 1, 2], 0)
    assert "predicted" not in found
    assert "cannot predict" in mlperf.said(found)


def test_files_are_read_whatever_the_unit_is_called(tmp_path: Path) -> None:
    path = tmp_path / "training_9.0.0" / "rcps_new.json"
    path.parent.mkdir()
    record = {"Benchmark": "new", "Creator": "X", "BS": 64, "Hyperparams": {}}
    path.write_text(
        json.dumps(
            {
                "b": record | {"BS": 128, "samples to converge": [3, 4]},
                "a": record | {"Epochs to converge": [2, 1.5]},
                "c": record | {"Epochs to converge": [1]},
            }
        )
    )
    (read,) = curves.read([path])
    assert read == curves.Curve("new", "training_9.0.0", {64: (1.0, 1.5, 2.0), 128: (3.0, 4.0)})
    path.write_text('{"a": {"Benchmark": "new", "BS": 64}}')
    with pytest.raises(DataError, match=r"rcps_new\.json is not a file of reference convergence points"):
        curves.read([path])
