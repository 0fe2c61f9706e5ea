"""A workload: what it refuses, what it completes, and what it tells of itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch.engine import WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.records import Settings, Trial
from rightbatch.workload import Workload

X = torch.linspace(-1, 1, 24).reshape(12, 2)
Y = X.sum(dim=1)


def squared_error(model, batch):
    inputs, wanted = batch
    return (model(inputs)[:, 0] - wanted) ** 2


def absolute_error(model, batch):
    inputs, wanted = batch
    return (model(inputs)[:, 0] - wanted).abs()


def sgd(parameters, trial):
    return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=float(trial.settings.get("momentum", 0)))


def workload(**changes) -> Workload:
    parts = {
        "name": "line",
        "model": lambda: nn.Linear(2, 1),
        "data": (X, Y),
        "valid": (X[:5], Y[:5]),
        "loss": squared_error,
        "optimizer": sgd,
    }
    return Workload(**{**parts, **changes})


@pytest.mark.parametrize("what", ["data", "valid", "test"])
def test_not_a_number_in_the_data_is_refused_before_anything_is_trained(what):
    bad = X.clone()
    bad[7, 0] = math.nan
    made = workload(**{what: (bad, Y)})
    for refused in (made.check_finite, lambda: WorkloadRunner(made)):
        with pytest.raises(WorkloadError, match=rf"Tensor 0 of {what} has values that are not finite .* example 7"):
            refused()


def test_finite_data_passes():
    workload(test=(X, Y)).check_finite()


@pytest.mark.parametrize("what", ["data", "valid", "test"])
def test_empty_data_is_refused_when_the_workload_is_made(what):
    with pytest.raises(WorkloadError, match=rf"Tensor 0 of {what} is empty"):
        workload(**{what: (X[:0], Y[:0])})


@pytest.mark.parametrize("what", ["data", "valid", "test"])
def test_ragged_tensors_are_refused_when_the_workload_is_made(what):
    with pytest.raises(WorkloadError, match=rf"tensors of {what} have different numbers of examples"):
        workload(**{what: (X, Y[:3])})


def test_data_that_is_no_data_is_refused_before_anything_is_trained():
    with pytest.raises(WorkloadError, match=r"data is a int\. Give a tensor"):
        workload(data=5).facts()


def test_what_is_made_already_is_refused_where_a_function_is_wanted():
    with pytest.raises(WorkloadError, match=r"model is a Linear, expected a function.*model=lambda: net\(\)"):
        workload(model=nn.Linear(2, 1))
    with pytest.raises(WorkloadError, match=r"optimizer is a SGD, expected a function"):
        workload(optimizer=torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))
    with pytest.raises(WorkloadError, match=r"loss is a str, expected a function"):
        workload(loss="mse")


def test_a_direction_is_min_or_max_and_a_loss_never_goes_up():
    with pytest.raises(WorkloadError, match=r"direction is 'min' or 'max', got 'up'"):
        workload(direction="up")
    with pytest.raises(WorkloadError, match=r"direction='max' without a metric"):
        workload(direction="max")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric_on": "epoch"}, r"metric_on is 'batch' or 'set', got 'epoch'"),
        ({"autocast": "half"}, r"autocast is None or 'bfloat16' or 'float16', got 'half'"),
        ({"max_gradient_norm": 0}, r"max_gradient_norm is a positive number, got 0\. Leave it out"),
        ({"max_gradient_norm": -1.0}, r"max_gradient_norm is a positive number, got -1\.0"),
        ({"averaging_examples": math.nan}, r"averaging_examples is a positive number, got nan"),
        ({"train_examples": 0}, r"train_examples is a positive number, got 0"),
        ({"planned_examples": -5}, r"planned_examples is a positive number, got -5"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused_with_what_it_can(change, message):
    with pytest.raises(WorkloadError, match=message):
        workload(**change)


def loader(batch_size, seed):
    raise AssertionError("a loader is not called to make a workload or to tell of it")


def test_a_loader_must_say_how_many_examples_a_pass_has():
    with pytest.raises(WorkloadError, match=r"data is a function, .* not known\. Say train_examples="):
        workload(data=loader)
    with pytest.raises(WorkloadError, match=r"data is a int\. Give a tensor"):
        workload(data=5, train_examples=10)


def test_the_facts_of_loaders_are_what_the_person_said():
    given = workload(data=loader, valid=loader, test=loader, train_examples=30, evaluation_examples=7)
    facts = given.facts()
    assert (facts.train_examples, facts.valid_examples, facts.planned_examples) == (30, 7, 600)
    assert given.complete(Trial(4, 0.1, 2)).planned_examples == 600
    assert (len(given.source("data")), len(given.source("valid"))) == (30, 0)
    given.check_finite()


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(WorkloadError, match=r"'line' declares no setting 'momentun'; it has momentum, width"):
        workload(settings={"width": 3, "momentum": 0.9}).complete(Trial(4, 0.1, 0, None, Settings({"momentun": 0.5})))
    with pytest.raises(WorkloadError, match=r"declares no setting 'width'; it has none"):
        workload().complete(Trial(4, 0.1, 0, None, Settings({"width": 1})))


def test_a_trial_is_completed_with_every_setting_and_a_planned_length():
    given = workload(settings={"momentum": 0.9, "width": 3})
    assert given.complete(Trial(4, 0.1, 2)) == Trial(4, 0.1, 2, 20 * len(X), Settings({"momentum": 0.9, "width": 3}))
    assert given.complete(Trial(4, 0.1, 2, 70, Settings({"width": 5}))) == Trial(
        4, 0.1, 2, 70, Settings({"momentum": 0.9, "width": 5})
    )
    assert replace(given, planned_examples=99).complete(Trial(4, 0.1, 2)).planned_examples == 99


def test_completing_twice_changes_nothing_more():
    given = workload(settings={"momentum": 0.9})
    once = given.complete(Trial(4, 0.1, 2))
    assert given.complete(once) == once


def test_the_facts_are_those_of_the_data_and_the_callables():
    facts = workload(
        metric=absolute_error, settings={"momentum": 0.9}, present=(4, 0.1), target=0.5, evaluation_examples=3
    ).facts()
    assert (facts.name, facts.train_examples, facts.valid_examples) == ("line", 12, 3)
    assert (facts.planned_examples, facts.metric, facts.direction) == (240, "absolute_error", "min")
    assert (facts.optimizer, facts.target, facts.present) == ("SGD momentum 0.9", 0.5, (4, 0.1))
    assert facts.settings == Settings({"momentum": 0.9})


def test_without_a_metric_the_facts_name_the_validation_loss():
    assert workload().facts().metric == "validation loss"


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate), "SGD"),
        (lambda parameters, trial: torch.optim.SGD(parameters, lr=0.1, momentum=0.95), "SGD momentum 0.95"),
        (lambda parameters, trial: torch.optim.Adam(parameters, lr=trial.learning_rate), "Adam"),
        (
            lambda parameters, trial: torch.optim.Muon(parameters, lr=trial.learning_rate, momentum=0.9),
            "Muon momentum 0.9",
        ),
    ],
)
def test_the_optimizer_is_named_with_its_momentum(optimizer, name):
    without_bias = workload(model=lambda: nn.Linear(2, 1, bias=False), optimizer=optimizer)
    assert without_bias.facts().optimizer == name


def test_an_optimizer_that_asks_for_an_undeclared_setting_is_the_workloads_error():
    def optimizer(parameters, trial):
        return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=float(trial.settings["momentum"]))

    with pytest.raises(WorkloadError, match=r"momentum"):
        workload(optimizer=optimizer).facts()


def test_the_source_hash_changes_with_the_training_code_and_with_nothing_else():
    base = workload()
    same = [workload(), replace(base, name="other", data=(X[:6], Y[:6]), present=(2, 0.3))]
    other = [
        replace(base, loss=absolute_error),
        replace(base, metric=squared_error),
        replace(base, optimizer=lambda parameters, trial: torch.optim.Adam(parameters)),
        replace(base, schedule=lambda optimizer, trial: torch.optim.lr_scheduler.StepLR(optimizer, 3)),
    ]
    assert {w.facts().source for w in same} == {base.facts().source}
    assert len({base.facts().source, *(w.facts().source for w in other)}) == 1 + len(other)


def other_loader(batch_size, seed):
    return [torch.zeros(batch_size, 2)]


def test_the_source_hash_changes_with_the_code_of_a_loader():
    hashes = {workload(data=d, train_examples=3).facts().source for d in (loader, other_loader)}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "change",
    [{"max_gradient_norm": 1.0}, {"averaging_examples": 50.0}, {"autocast": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_the_source_hash_changes_with_the_way_of_training(change):
    assert workload(**change).facts().source != workload().facts().source


def test_a_dataset_counts_its_examples():
    facts = workload(data=TensorDataset(X, Y), valid=TensorDataset(X[:2], Y[:2])).facts()
    assert (facts.train_examples, facts.valid_examples) == (12, 2)
