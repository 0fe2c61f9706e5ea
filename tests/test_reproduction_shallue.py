"""What the reproduction of Shallue et al. rests on: its search, against slow twins, and laws made up."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rightbatch import Point, Settings, Stop, StopReason, Target, Trial
from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.loading import as_module

FOLDER = Path(__file__).parents[1] / "reproductions"
reproduction = as_module(FOLDER / "shallue.py", "shallue_of_tests")()
nets = as_module(FOLDER / "_shallue_nets.py", "shallue_nets_of_tests")()

import _shallue_laws as laws  # noqa: E402  # the modules that the reproduction itself has loaded
import _shallue_search as search  # noqa: E402
import _shallue_told as told  # noqa: E402

TARGET = Target(0.1, "valid_metric", "min", rule="first_touch")
PLAN = search.Plan(trials=16, closer=8, moves=2, candidates=2, choosing=2, judging=3)
BOX = search.Box(-1.0, 1.0, -2.0)


# ------------------------------------------------------------------------------------------------ runs made up


class MadeUpRun:
    """Evaluated at steps 1.05 apart; the error passes the goal exactly at `needs` steps."""

    def __init__(self, needs: float, log: list[int]) -> None:
        self._needs, self._log, self._step = needs, log, 0.0
        self.closed = False

    def advance(self) -> Point | Stop:
        self._step = self._step * 1.05 + 1
        if self._step > 1000:
            return Stop(StopReason.FINISHED)
        step = round(self._step)
        self._log.append(step)
        error = TARGET.value - 0.01 * math.log(step / self._needs)  # linear in log steps, as it is interpolated
        return Point(step, examples=step, valid_metric=error, valid_loss=1.0)

    def close(self) -> None:
        self.closed = True


class MadeUpCrew:
    """Runs that need 100 steps at a best rate and momentum, and more elsewhere; as many places as wanted."""

    places = 2

    def __init__(self, needs: Callable[[Trial], float]) -> None:
        self._needs = needs
        self.advanced: list[int] = []
        self.runs: list[MadeUpRun] = []

    def start(self, trial: Trial, state: bytes | None = None) -> MadeUpRun:
        assert sum(not run.closed for run in self.runs) < self.places
        self.runs.append(MadeUpRun(self._needs(trial), self.advanced))
        return self.runs[-1]

    def next(self, runs: Sequence[MadeUpRun]) -> MadeUpRun:
        return runs[len(self.advanced) % len(runs)]  # whichever comes first


def valley(rate: float, momentum: float = 0.5) -> Callable[[Trial], float]:
    """Steps that a trial needs: fewest at an effective rate and a momentum; seeds matter a little."""

    def needs(trial: Trial) -> float:
        left = 1 - float(trial.settings["momentum"])
        away = math.log10(trial.learning_rate / left / rate) ** 2 + 0.1 * math.log10(left / (1 - momentum)) ** 2
        return 100 * math.exp(away) * (1 + 0.01 * (trial.seed % 7))

    return needs


def of_search(crew: MadeUpCrew, box: Any = BOX, keys: tuple[int, ...] = (1,)) -> dict[str, Any]:
    trial = Trial(8, 1.0, 0, 1000)
    return search.side_by_side(crew, {"a": search.searched(crew.start, TARGET, trial, box, PLAN, keys, 0)})["a"]


def test_the_fastest_are_those_of_runs_that_nothing_stops_and_bad_ones_are_stopped() -> None:
    needs = [300.0, 120.5, 250.0, 90.25, 2000.0, 100.0, 110.0, 800.0]
    trials = [Trial(1, 0.1, seed) for seed in range(len(needs))]
    crew = MadeUpCrew(lambda trial: needs[trial.seed])
    found = search.side_by_side(crew, {"a": search.fastest(crew.start, trials, TARGET, 3)})["a"]
    assert [trial.seed for _, trial in found] == [3, 5, 6]
    assert [steps for steps, _ in found] == pytest.approx([90.25, 100.0, 110.0], rel=0.01)
    assert all(run.closed for run in crew.runs)
    longest_alone = [step for step in crew.advanced if step > 330]
    assert not longest_alone, "the run that would need 2000 steps was not stopped"


def test_fewer_than_asked_for_where_few_reach_the_goal() -> None:
    crew = MadeUpCrew(lambda trial: 50.0 if trial.seed == 1 else 5000.0)
    trials = [Trial(1, 0.1, seed) for seed in range(3)]
    found = search.side_by_side(crew, {"a": search.fastest(crew.start, trials, TARGET, 2)})["a"]
    assert [trial.seed for _, trial in found] == [1]


def test_a_run_that_diverges_is_stopped() -> None:
    class Diverging(MadeUpRun):
        def advance(self) -> Point | Stop:
            point = super().advance()
            return point if isinstance(point, Stop) else Point(point.step, valid_metric=0.9, valid_loss=math.nan)

    log: list[int] = []
    generator = search.steps_to(lambda trial: Diverging(50.0, log), Trial(1, 0.1, 0), TARGET)
    run = next(generator)
    with pytest.raises(StopIteration) as ended:
        generator.send(run.advance())
    assert ended.value.value is None
    assert len(log) == 1


def test_side_by_side_comes_to_the_same_as_one_by_one() -> None:
    trial = Trial(8, 1.0, 0, 1000)

    def searches(crew: MadeUpCrew) -> dict[str, Any]:
        return {
            name: search.searched(crew.start, TARGET, trial, BOX, PLAN, (k,), 2000 * k)
            for k, name in enumerate(("a", "b"))
        }

    crew = MadeUpCrew(valley(0.5))
    together = search.side_by_side(crew, searches(crew))
    for name in ("a", "b"):
        alone = MadeUpCrew(valley(0.5))
        assert together[name] == search.side_by_side(alone, {name: searches(alone)[name]})[name]
    assert together["a"] != together["b"]


def test_a_search_finds_the_valley_and_fresh_seeds_judge_it() -> None:
    crew = MadeUpCrew(valley(0.5, 0.7))
    found = of_search(crew)
    assert not found["at_edge"]
    assert found["boxes"] == 2
    assert found["chosen"]["rate"] == pytest.approx(0.5, rel=0.3)
    assert len(found["steps"]) == PLAN.judging
    assert len(found["chosen"]["choosing"]) == PLAN.choosing
    assert 95 < min(found["steps"]) < max(found["steps"]) < 125


@pytest.mark.parametrize(
    ("rate", "boxes", "at_edge"), [(1.0, 2, False), (20.0, 3, False), (0.05, 3, False), (1e6, 4, True)]
)
def test_a_search_goes_on_while_its_best_is_at_an_edge(rate: float, boxes: int, at_edge: bool) -> None:
    crew = MadeUpCrew(lambda trial: 100 * 10 ** (0.1 * abs(math.log10(trial.learning_rate / rate))))
    found = of_search(crew, search.Box(-0.9, 0.9))
    assert (found["boxes"], found["at_edge"]) == (boxes, at_edge)
    assert at_edge or found["chosen"]["rate"] == pytest.approx(rate, rel=0.3)


def test_a_search_that_never_reaches_the_goal_says_so() -> None:
    found = of_search(MadeUpCrew(lambda trial: 1e9))
    assert found["chosen"] is None
    assert not laws.told(found)


def of(rate: float, momentum: float) -> Trial:
    """A trial with this effective rate."""
    return Trial(8, rate * (1 - momentum), 0, 1000, Settings({"momentum": momentum}))


def test_trials_fill_the_box_evenly_and_anew_for_each_search() -> None:
    drawn = search.drawn(BOX, of(1.0, 0.0), 16, (1, 2), 100)
    rates = np.log10([search.effective_rate(trial) for trial in drawn])
    left = np.log10([search.left_of(trial) for trial in drawn])
    for values, low, width in ((rates, -1, 2), (left, -2, 2)):
        assert np.histogram((values - low) / width, bins=16, range=(0, 1))[0].tolist() == [1] * 16
    assert [trial.seed for trial in drawn] == list(range(100, 116))
    assert drawn != search.drawn(BOX, of(1.0, 0.0), 16, (1, 3), 100)
    assert drawn == search.drawn(BOX, of(1.0, 0.0), 16, (1, 2), 100)
    assert {search.left_of(trial) for trial in search.drawn(search.Box(-1, 1), of(1.0, 0.0), 16, (1,), 0)} == {1.0}


@pytest.mark.parametrize(
    ("rate", "momentum", "at_edge"),
    [(0.11, 0.5, True), (9.5, 0.5, True), (1.0, 0.5, False), (1.0, 0.0, False), (1.0, 0.989, True), (1.0, 0.98, False)],
)
def test_edges_of_a_box(rate: float, momentum: float, at_edge: bool) -> None:
    assert BOX.has_at_edge(of(rate, momentum)) is at_edge


def test_plain_sgd_is_at_no_edge_of_momentum_and_stays_without() -> None:
    plain = search.Box(-1.0, 1.0)
    assert not plain.has_at_edge(of(1.0, 0.0))
    assert plain.about(of(10.0, 0.0)) == search.Box(1 - search.HALF_WIDTH / 2, 1 + search.HALF_WIDTH / 2)


def test_a_closer_box_is_half_as_wide_and_ends_at_no_momentum() -> None:
    closer = BOX.about(of(1.0, 0.9))
    assert closer.high - closer.low == pytest.approx(search.HALF_WIDTH)
    assert (closer.left_low, closer.left_high) == pytest.approx((-1.5, -0.5))
    assert BOX.about(of(1.0, 0.0)).left_high == 0.0
    assert search.hull([BOX, closer]) == BOX


def test_no_two_searches_share_a_seed() -> None:
    for how in reproduction.PLANS.values():
        plan = how["plan"]
        assert plan.closer <= plan.trials
        assert plan.trials * (plan.moves + 2) < search.CHOSEN_BY
        assert search.CHOSEN_BY + plan.choosing < search.JUDGED_BY
        assert plan.judging < search.JUDGED_BY
        numbers = [
            reproduction.number_of(problem, optimizer, size, k)
            for problem in laws.PROBLEMS
            for optimizer in laws.OPTIMIZERS
            for size in how["sizes"]
            for k in range(reproduction.SEARCHES)
        ]
        assert len(set(numbers)) == len(numbers)


# ----------------------------------------------------------------------------------------------- laws made up


def one(steps: float, rate: float = 1.0, choosing: float | None = None) -> dict[str, Any]:
    """What a search comes to whose runs all need so many steps."""
    chosen = {"rate": rate, "momentum": 0.5, "choosing": [choosing or steps] * 2}
    return {"boxes": 1, "at_edge": False, "chosen": chosen, "steps": [steps] * 3}


def measured_of(apart: float = 0.0) -> dict[str, Any]:
    """Exact laws: critical sizes of 100 and 400, fewest steps 200 and 60; searches `apart` in the log of steps."""
    exact = {"sgd": (100, 200), "nesterov": (400, 60)}

    def steps(optimizer: str, size: int) -> float:
        knee, least = exact[optimizer]
        return least * (1 + knee / size)

    def rate(size: int) -> float:
        return float(min(size, 128) * max(size / 128, 1) ** 0.25)

    cells = {
        problem: {
            optimizer: {
                str(size): [one(steps(optimizer, size), rate(size)), one(steps(optimizer, size) * math.exp(apart))]
                for size in reproduction.SIZES
            }
            for optimizer in exact
        }
        for problem in laws.PROBLEMS
    }
    for of in cells.values():
        for by_size in of.values():
            for size, searches in by_size.items():
                searches[1]["chosen"]["rate"] = rate(int(size))
    claims = [claim.identifier for claim in reproduction.CLAIMS]
    return {"cells": cells, "claims": claims, "net": "small"}


def test_what_is_told_of_exact_laws() -> None:
    found = laws.found_of(measured_of(apart=0.01))
    assert found["mnist: extended"].estimate == pytest.approx(4.0, rel=1e-3)
    assert found["fashion, sgd: perfect"].estimate == pytest.approx((1 + 8 / 100) / (1 + 2 / 100))
    assert found["mnist, nesterov: diminishing"].estimate == pytest.approx(
        math.log((1 + 400 / 128) / (1 + 400 / 512), 4)
    )
    assert found["mnist, nesterov: none"].estimate == pytest.approx(math.log((1 + 400 / 2048) / (1 + 400 / 8192), 4))
    assert found["mnist, sgd: law"].estimate == pytest.approx(0.0, abs=1e-3)
    ratios = [200 * (1 + 100 / b) / (60 * (1 + 400 / b)) for b in (2048, 8192)]
    assert found["mnist: momentum, large"].estimate == pytest.approx(math.sqrt(ratios[0] * ratios[1]))
    verdicts = {done.claim: done.verdict for done in reproduction.REPRODUCTION.compare(measured_of(apart=0.01))}
    assert verdicts["mnist: extended"] == verdicts["mnist, sgd: law"] == verdicts["rates: no one power"] == "holds"
    assert verdicts["mnist: momentum, small"] == "holds"  # 0.83 and 0.85
    assert verdicts["mnist, sgd: diminishing"] == "holds"


def test_searches_far_apart_leave_nothing_to_tell() -> None:
    verdicts = {done.claim: done.verdict for done in reproduction.REPRODUCTION.compare(measured_of(apart=1.5))}
    assert verdicts["mnist: momentum, small"] == verdicts["mnist, sgd: diminishing"] == "cannot tell"


def test_powers_of_the_best_rate() -> None:
    found = laws.powers(list(laws.chosen_rates(measured_of())))
    assert found["small"].estimate == pytest.approx(1.0)
    assert found["large"].estimate == pytest.approx(0.25)
    assert found["difference"].estimate == pytest.approx(0.75)
    assert laws.powers([(0, 2, 1.0), (0, 8, 2.0)]) is None


def test_the_interval_of_a_power_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        rates = [
            (curve, size, size**0.8 * math.exp(generator.normal(0, 0.3)))
            for curve in range(2)
            for size in reproduction.SIZES
        ]
        held += 0.0 in laws.powers(rates)["difference"]
    assert 0.91 < held / 300 < 0.99


def test_the_noise_of_searches_is_that_of_their_differences() -> None:
    cells = [[one(100 * math.exp(d)), one(100.0)] for d in (0.2, -0.1, 0.3)]
    error, freedom = laws.noise_of(cells)
    assert error == pytest.approx(math.sqrt(sum(d**2 / 2 for d in (0.2, 0.1, 0.3)) / 3))
    assert freedom == 3
    assert laws.noise_of([[one(100.0)]])[1] == 0


def test_a_curve_is_the_mean_of_its_searches_and_less_sure_where_one_is_left_out() -> None:
    measured = measured_of()
    cells = measured["cells"]["mnist"]["sgd"]
    cells["2"] = [one(100.0, rate=1.0), one(400.0, rate=4.0)]
    cells["8"][0]["at_edge"] = True
    curve = laws.curve_of(measured, "mnist", "sgd")
    assert math.exp(curve.logs[0]) == pytest.approx(200.0)
    assert curve.rates[0] == pytest.approx(2.0)
    assert curve.momenta[0] == pytest.approx(0.5)
    assert math.exp(curve.logs[1]) == pytest.approx(200 * (1 + 100 / 8))
    assert curve.errors[1] == pytest.approx(math.sqrt(2) * curve.errors[0])
    assert curve.freedom == 13  # 14 cells, one of them with one search
    assert curve.errors[0] == pytest.approx(math.sqrt(math.log(4) ** 2 / 2 / 13) / math.sqrt(2))


def test_sizes_at_an_edge_or_out_of_reach_are_left_out() -> None:
    measured = measured_of()
    sgd = measured["cells"]["mnist"]["sgd"]
    for of in sgd["2"]:
        of["at_edge"] = True
    for of in sgd["8192"]:
        of["steps"] = [None, None, 5.0]
    curve = laws.curve_of(measured, "mnist", "sgd")
    assert curve.sizes.tolist() == [8, 32, 128, 512, 2048]
    found = {done.claim: done for done in reproduction.REPRODUCTION.compare(measured)}
    assert (found["mnist, sgd: perfect"].verdict, found["mnist, sgd: perfect"].measured) == ("cannot tell", None)
    assert found["mnist, sgd: none"].measured is None
    assert found["mnist: momentum, small"].measured is None


def test_a_median_counts_runs_that_miss_as_slower_than_all() -> None:
    assert search.typical([5.0, None, 3.0]) == 5.0
    assert search.typical([5.0, None]) is None
    assert search.typical([]) is None


def test_the_misfit_of_a_law_grows_with_a_bump_and_its_interval_holds_it() -> None:
    measured = measured_of(apart=0.02)
    for of in measured["cells"]["mnist"]["sgd"]["128"]:
        of["steps"] = [steps * 1.5 for steps in of["steps"]]
    found = laws.misfit_interval(laws.curve_of(measured, "mnist", "sgd"))
    assert 0.1 < found.estimate < math.log(1.5)
    assert found.low < found.estimate < found.high


def test_misfits_on_a_grid_are_those_of_the_fit() -> None:
    generator = np.random.default_rng(0)
    sizes = np.array(reproduction.SIZES, float)
    logs = np.log(100 * (1 + 300 / sizes)) + generator.normal(0, 0.2, (5, len(sizes)))
    fits = [fit_tradeoff(sizes, np.exp(row)).hyperbola for row in logs]
    slow = [fit.deviation * math.sqrt(fit.freedom / len(sizes)) for fit in fits]
    assert laws.misfits(sizes, logs) == pytest.approx(slow, rel=1e-3)


def test_notes_and_figure_are_made_of_all_and_of_little() -> None:
    for problems in (["mnist"], ["mnist", "fashion"]):
        measured = measured_of(apart=0.1)
        measured["cells"] = {problem: measured["cells"][problem] for problem in problems}
        text = " ".join(told.notes(measured))
        assert "critical batch size" in text
        assert "nan" not in text
        assert told.figure(measured).to_dict()["vconcat"]
    alone = {"cells": {"mnist": {"sgd": {"128": [one(5.0)], "512": [one(3.0)]}}}, "claims": [], "net": "small"}
    assert told.notes(alone)
    assert told.figure(alone).to_dict()


# -------------------------------------------------------------------------------------------------- what is trained


def test_published_curves_are_those_of_the_digitised_files() -> None:
    folder = os.environ.get("RIGHTBATCH_DATA")
    path = Path(folder or "nowhere") / "measurements" / "shallue2018" / "steps_to_result_digitized.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found: dict[tuple[str, str], dict[int, float]] = {}
    goals = {"mnist": "val/classification_error<0.01", "fashion_mnist": "val/classification_error<0.1"}
    with path.open() as file:
        for row in csv.DictReader(file):
            figure = "fig4" if row["optimizer"] == "sgd" else "fig1"
            model = (row["model"], row["figure"], row["goal"])
            if model == ("simple_cnn_base", figure, goals.get(row["dataset"])):
                key = (row["dataset"].removesuffix("_mnist"), row["optimizer"].removesuffix("_momentum"))
                found.setdefault(key, {})[int(row["batch_size"])] = float(row["steps_to_result"])
    published = {(problem, name): dict(of) for problem, by in told.PUBLISHED.items() for name, of in by.items()}
    assert published == {key: of for key, of in found.items() if key in published}
    for (problem, name), slope in reproduction.PUBLISHED_SLOPES.items():
        of = published[problem, name]
        assert math.log(of[128] / of[512], 4) == pytest.approx(slope, abs=0.005)


def test_without_momentum_it_is_plain_sgd() -> None:
    def trained(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> list[float]:
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        return weight.tolist()

    def own(momentum: float) -> list[float]:
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        return trained(nets.momentum([weight], Trial(1, 0.1, 0, settings={"momentum": momentum})), weight)

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    assert own(0.0) == trained(torch.optim.SGD([weight], lr=0.1), weight)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    assert own(0.9) == trained(torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True), weight)


def test_networks_and_error() -> None:
    assert sum(p.numel() for p in nets.small_network().parameters()) == 20_710
    assert nets.small_network()(torch.zeros(3, 1, 14, 14)).shape == (3, 10)
    assert nets.simple_network()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    scores = torch.nn.Identity()
    losses, wrong = nets.error(scores, (torch.eye(3), torch.tensor([0, 1, 0])))
    assert wrong.tolist() == [0.0, 0.0, 1.0]
    assert losses.shape == (3,)
