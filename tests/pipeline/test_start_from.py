"""Runs that start from a person's own weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from rightbatch.bundled.digits import digits
from rightbatch.commands import Command
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import ChangedCodeError, InputError
from rightbatch.pipeline import runners
from rightbatch.pipeline.runners import as_runner, crew_of
from rightbatch.pipeline.setting_up import open_study
from rightbatch.records import Point, StepTime, Stop, Trial
from rightbatch.runner import Runner
from rightbatch.weights import KeptWeights
from rightbatch.workers import pickled_maker
from rightbatch.workload import Workload

TRIAL = Trial(64, 0.1, 3, 2000)


def small() -> Workload:
    return replace(digits(), model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)))


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    torch.manual_seed(7)
    return {name: value.clone() for name, value in small().model().state_dict().items()}


@pytest.fixture
def saved(weights: dict[str, Any], tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "mine.pt")
    return tmp_path / "mine.pt"


def points_of(run: Any) -> list[Point | Stop]:
    found = [run.advance()]
    while isinstance(found[-1], Point):
        found.append(run.advance())
    run.close()
    return [replace(point, seconds=0.0) if isinstance(point, Point) else point for point in found]


def test_every_run_starts_from_the_weights_and_goes_on_as_a_model_made_with_them(
    saved: Path, weights: dict[str, Any]
) -> None:
    def model() -> torch.nn.Module:
        made = small().model()  # which draws: what comes after is drawn as without a checkpoint
        with torch.no_grad():
            for name, value in made.named_parameters():
                value.copy_(weights[name])
        return made

    runner = as_runner(small(), start_from=saved)
    by_hand = WorkloadRunner(replace(small(), model=model))
    for trial in (TRIAL, replace(TRIAL, seed=4)):
        run = runner.start(trial)
        assert all(torch.equal(run.model.state_dict()[name], value) for name, value in weights.items())  # type: ignore[attr-defined]
        found = points_of(run)
        assert found == points_of(by_hand.start(trial))
        assert found != points_of(WorkloadRunner(small()).start(trial))
    # Training has not changed what the next run starts from.
    assert points_of(runner.start(TRIAL)) == points_of(as_runner(small(), start_from=str(saved)).start(TRIAL))


def test_a_run_goes_on_from_its_own_state_and_not_from_the_checkpoint(saved: Path) -> None:
    runner = as_runner(small(), start_from=saved)
    whole = points_of(runner.start(TRIAL))
    run: Any = runner.start(TRIAL)
    for _ in range(5):
        run.advance()
    assert points_of(runner.start(TRIAL, run.save())) == whole[5:]


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_a_checkpoint_may_have_them_under_a_name(
    saved: Path, weights: dict[str, Any], tmp_path: Path, name: str
) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, name: weights}, tmp_path / "all.pt")
    found = points_of(as_runner(small(), start_from=tmp_path / "all.pt").start(TRIAL))
    assert found == points_of(as_runner(small(), start_from=saved).start(TRIAL))


def test_what_a_search_kept_can_be_started_from(tmp_path: Path) -> None:
    runner = WorkloadRunner(small(), "last")
    run = runner.start(TRIAL)
    *_, last, _ = [run.advance(), *(run.advance() for _ in range(200) if run._next < len(run._rungs)), None]
    assert isinstance(run._kept, KeptWeights)
    assert run.write_weights(tmp_path / "kept.pt")
    first = as_runner(small(), start_from=tmp_path / "kept.pt").start(TRIAL).advance()
    assert isinstance(first, Point)
    assert first.valid_loss == last.valid_loss


def damaged(weights: dict[str, Any], path: Path, how: str) -> Path:
    first = next(iter(weights))
    if how == "missing":
        torch.save({name: value for name, value in weights.items() if name != first}, path)
    elif how == "unexpected":
        torch.save({**weights, "head.weight": torch.zeros(1)}, path)
    elif how == "many":
        torch.save({f"layer{k}.weight": torch.zeros(1) for k in range(9)}, path)
    elif how == "shape":
        torch.save({**weights, first: torch.zeros(3, 3)}, path)
    elif how == "tensor":
        torch.save(torch.zeros(3), path)
    elif how == "code":
        torch.save(small().model(), path)
    elif how == "garbage":
        path.write_bytes(b"not a checkpoint")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"does not fit the model: it lacks 0\.weight\. Give weights of this model"),
        ("unexpected", r"does not fit the model: the model has no head\.weight\."),
        ("many", r"it lacks 0\.weight, 0\.bias, 1\.weight, 1\.bias; the model has no layer0\.weight, .* and 4 more\."),
        ("shape", r"(?s)does not fit the model: .*size mismatch for 0\.weight.*\[3, 3\]"),
        ("tensor", "holds a Tensor, expected a state dict"),
        ("code", r"cannot be read as weights alone \(UnpicklingError\)\. Save the state dict: torch\.save"),
        ("garbage", "cannot be read as weights alone"),
        ("nowhere", "cannot be read: No such file"),
    ],
)
def test_weights_that_do_not_fit_are_refused_at_once_with_what_is_wrong(
    weights: dict[str, Any], tmp_path: Path, how: str, message: str
) -> None:
    path = damaged(weights, tmp_path / "mine.pt", how)
    with pytest.raises(InputError, match=message) as said:
        as_runner(small(), start_from=path)
    assert str(path) in str(said.value)


def test_the_study_is_another_one_with_a_checkpoint_and_with_each(saved: Path, tmp_path: Path) -> None:
    without = WorkloadRunner(small())
    one, same = (as_runner(small(), start_from=saved) for _ in range(2))
    other_weights = damaged(small().model().state_dict(), tmp_path / "other.pt", "")
    torch.save(small().model().state_dict(), other_weights)
    other = as_runner(small(), start_from=other_weights)
    assert one.facts == same.facts
    assert len({runner.facts.source for runner in (without, one, other)}) == 3
    assert replace(one.facts, source="") == replace(without.facts, source="") == replace(other.facts, source="")
    with open_study(tmp_path / "a.study.db", one.facts) as study:
        study.add_step_time(StepTime(8, (1.0,), (0.0,)), one.environment)
    open_study(tmp_path / "a.study.db", same.facts).close()
    for changed in (without, other):
        with pytest.raises(ChangedCodeError):
            open_study(tmp_path / "a.study.db", changed.facts)


def test_the_code_of_the_model_stays_in_the_source(saved: Path) -> None:
    def model() -> torch.nn.Module:
        return small().model()

    changed = replace(small(), model=model)
    assert as_runner(changed, start_from=saved).facts.source != as_runner(small(), start_from=saved).facts.source


def loop(trial: Any) -> Iterator[Point]:
    yield Point(0, valid_loss=1.0)


class Own:
    facts = digits().facts()

    def start(self, trial: Trial, state: bytes | None = None) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (loop, "load it in your own loop, before the first step"),
        (
            Command(argv=("sh", "{batch_size}", "{learning_rate}")),
            "let the program load it, and put its path on the command line",
        ),
        ("curves.csv.gz", "its runs are recorded: leave it out"),
        (Own(), "give a runner that starts from it itself"),
    ],
    ids=["loop", "command", "table", "runner"],
)
def test_where_there_is_no_workload_it_is_said_what_to_do_instead(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"(?s)Only a rightbatch\.Workload .*mine\.pt\): {message}"):
        as_runner(given, start_from="mine.pt")


@pytest.mark.parametrize("named", [False, True], ids=["pickled", "made anew by its name"])
def test_a_worker_starts_from_what_was_in_the_file_at_the_beginning_or_says_that_it_has_changed(
    saved: Path, weights: dict[str, Any], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    sent: list[bytes] = []

    class Recorded:
        """Workers that are not started: what each would be sent."""

        def __init__(self, make: Callable[[], Runner], count: int, threads: int | None) -> None:
            sent.append(pickled_maker(make))

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(runners, "Workers", Recorded)
    monkeypatch.setattr(runners, "from_name", lambda name: small())
    given, how = "small" if named else small(), {"start_from": saved}
    runner = as_runner(given, **how)
    whole = points_of(runner.start(TRIAL))
    with crew_of(given, runner, 2, **how):
        pass
    there = pickle.loads(sent[0])()
    assert there.facts == runner.facts
    assert points_of(there.start(TRIAL)) == whole
    torch.save({name: 2 * value for name, value in weights.items()}, saved)
    with pytest.raises(InputError, match=r"mine\.pt has changed since this search began"):  # a worker that comes later
        pickle.loads(sent[0])()
    assert points_of(runner.start(TRIAL)) == whole  # here it was read once
