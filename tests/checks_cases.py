"""Workloads and loops with exactly one fault each, for `test_check.py`."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from rightbatch import Point, Trial, Workload
from rightbatch.commands import Command
from rightbatch.findings import Fault
from rightbatch.loops import Loop, LoopTrial

SIZE = 8


def examples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + x[:, 1] > 0).long()


TRAIN, VALID = examples(700, 0), examples(700, 1)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(SIZE, 8), nn.ReLU(), nn.Linear(8, 2))


def losses(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def accuracy(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]).argmax(dim=1) == batch[1]).float()


def sgd(parameters: Any, trial: Trial) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=trial.learning_rate)


def good(**changes: Any) -> Workload:
    """A workload without a fault, with some fields changed. So long that no evaluation is dearer than training."""
    workload = Workload(
        name="good",
        model=net,
        data=TRAIN,
        valid=VALID,
        loss=losses,
        metric=accuracy,
        direction="max",
        optimizer=sgd,
        present=(32, 0.1),
        planned_examples=10_000_000,
    )
    return replace(workload, **changes)


# ------------------------------------------------------------------------------------------------ parts with a fault


def refuse(*_: Any) -> Any:
    raise RuntimeError("the cat sat on it")


def with_nan() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = TRAIN[0].clone(), TRAIN[1]
    x[[5, 9], 2] = torch.nan
    return x, y


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(SIZE, 2), nn.Linear(SIZE, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def without_first(parameters: Any, trial: Trial) -> torch.optim.Optimizer:
    parameters = list(parameters)
    return sgd(parameters[1:] if len(parameters) > 1 else parameters, trial)


def two_groups(parameters: Any, trial: Trial) -> torch.optim.Optimizer:
    """A factor between groups, which is no fault; made of one group where there is one parameter."""
    parameters = list(parameters)
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.1 * trial.learning_rate}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=trial.learning_rate)


def one_object() -> Callable[[], nn.Module]:
    torch.manual_seed(0)
    model = net()
    return lambda: model


def shared_memory() -> Callable[[], nn.Module]:
    torch.manual_seed(0)
    model = nn.Linear(SIZE, 2)
    return lambda: copy.copy(model)


def remembering() -> Callable[[], nn.Module]:
    """Begins where the model before has ended, in memory of its own."""
    made: list[nn.Module] = []

    def model() -> nn.Module:
        new = nn.Linear(SIZE, 2)
        if made and sum(module.weight.grad is not None for module in made):
            new.load_state_dict(made[-1].state_dict())
        made.append(new)
        return new

    return model


def own_generator() -> Callable[..., torch.Tensor]:
    generator = torch.Generator().manual_seed(0)  # goes on from run to run

    def noisy(model: nn.Module, batch: Any) -> torch.Tensor:
        found = losses(model, batch)
        return found * (1 + torch.rand(len(found), generator=generator)) if model.training else found

    return noisy


def unseeded_start() -> Callable[[], nn.Module]:
    generator = torch.Generator().manual_seed(0)

    def model() -> nn.Module:
        made = nn.Linear(SIZE, 2)
        nn.init.normal_(made.weight, generator=generator)
        return made

    return model


def overlapping() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([TRAIN[0][:140], VALID[0][140:]]), torch.cat([TRAIN[1][:140], VALID[1][140:]])


class Slow(Dataset[Any]):
    """Takes 5 ms an example."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)
        return TRAIN[0][index], TRAIN[1][index]


def loader(batch_size: int, seed: int) -> Iterator[Any]:
    """Much faster than a step, also on a busy machine: nothing waits for it."""
    order = torch.randperm(len(TRAIN[0]), generator=torch.Generator().manual_seed(seed))
    return ((TRAIN[0][chosen], TRAIN[1][chosen]) for chosen in order.split(batch_size))


def half_batches(batch_size: int, seed: int) -> Iterator[Any]:
    return loader(batch_size // 2, seed)


def in_order(batch_size: int, _: int) -> Iterator[Any]:
    return loader(batch_size, 0)


def long_losses(model: nn.Module, batch: Any) -> torch.Tensor:
    """So that a step takes far longer than to read its batch from a dataset, also on a busy machine."""
    if model.training:
        time.sleep(0.01)
    return losses(model, batch)


def total(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    found = losses(model, batch)
    return found.sum(), len(found)


def centred(model: nn.Module, batch: Any) -> torch.Tensor:
    """What a batch normalisation does that stays in training mode."""
    logits = model(batch[0])
    return functional.cross_entropy(logits - logits.mean(dim=0), batch[1], reduction="none")


def mean_called_total(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    found = losses(model, batch)
    return found.mean(), len(found)


def sleepy(model: nn.Module, batch: Any) -> torch.Tensor:
    time.sleep(0.03)
    return accuracy(model, batch)


def cosine(optimizer: Any, trial: Trial) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.planned_steps or 1)


def cosine_of_steps(optimizer: Any, _: Trial) -> Any:
    """Made for a run at the probed batch size, and no other."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)


def rising(parameters: Any, trial: Trial) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=trial.learning_rate, maximize=True)


def losses_of_the_first(model: nn.Module, batch: Any) -> torch.Tensor:
    return losses(model, (TRAIN[0][:32], TRAIN[1][:32]) if model.training else batch)


def zeros_logarithm(model: nn.Module, batch: Any) -> torch.Tensor:
    return losses(model, batch) - torch.log(0 * batch[1])


def exploding(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0])[:, 0] - batch[1]).square()


# ------------------------------------------------------------------------------------------------------------ loops


def _logistic(trial: LoopTrial, *, size: int, rate: float, seed: int, evaluate_seconds: float = 0.0) -> Iterator[Point]:
    generator = np.random.default_rng(seed)
    x, y = TRAIN[0].numpy(), TRAIN[1].numpy()
    weight = np.zeros(SIZE)
    for step in range(1, 100_000):
        chosen = generator.integers(len(x), size=size)
        share = 1 / (1 + np.exp(-x[chosen] @ weight))
        weight -= rate * (share - y[chosen]) @ x[chosen] / size
        if trial.due(step):
            time.sleep(evaluate_seconds)
            yield Point(step, valid_loss=float(np.mean(np.log1p(np.exp((1 - 2 * y) * (x @ weight))))))


def loop(trial: LoopTrial) -> Iterator[Point]:
    yield from _logistic(trial, size=trial.batch_size, rate=trial.learning_rate, seed=trial.seed)


def loop_with_points_of_its_own(trial: LoopTrial) -> Iterator[Point]:
    """Never asks when to evaluate; begins at step 0."""
    generator = torch.Generator().manual_seed(trial.seed)
    weight = torch.zeros(SIZE, requires_grad=True)
    for step in range(100):
        if step % 20 == 0:
            yield Point(step, valid_loss=float(weight.detach().square().sum()) + 1)
        chosen = torch.randint(len(TRAIN[0]), (trial.batch_size,), generator=generator)
        logits = TRAIN[0][chosen] @ weight
        functional.binary_cross_entropy_with_logits(logits, TRAIN[1][chosen].float()).backward()
        with torch.no_grad():
            weight -= trial.learning_rate * weight.grad
            weight.grad = None


def unseeded_loop(trial: LoopTrial) -> Iterator[Point]:
    yield from _logistic(trial, size=trial.batch_size, rate=trial.learning_rate, seed=time.perf_counter_ns())


def loop_that_ignores_rate(trial: LoopTrial) -> Iterator[Point]:
    yield from _logistic(trial, size=trial.batch_size, rate=0.1, seed=trial.seed)


def loop_that_ignores_size(trial: LoopTrial) -> Iterator[Point]:
    yield from _logistic(trial, size=32, rate=trial.learning_rate, seed=trial.seed)


def loop_that_evaluates_long(trial: LoopTrial) -> Iterator[Point]:
    yield from _logistic(trial, size=trial.batch_size, rate=trial.learning_rate, seed=trial.seed, evaluate_seconds=0.03)


def loop_with_infinite_loss(trial: LoopTrial) -> Iterator[Point]:
    for point in loop(trial):
        yield replace(point, train_loss=float("inf"))


def loop_with_an_accuracy(trial: LoopTrial) -> Iterator[Point]:
    for point in loop(trial):
        yield replace(point, valid_metric=1 - (point.valid_loss or 0.0))


def loop_that_raises(trial: LoopTrial) -> Iterator[Point]:
    yield Point(0, valid_loss=1.0)
    raise RuntimeError("the cat sat on it")


def loop_for_small_batches(trial: LoopTrial) -> Iterator[Point]:
    if trial.batch_size > 32:
        raise RuntimeError("the cat sat on it")
    yield from loop(trial)


def a_loop(train: Any, **changes: Any) -> Loop:
    return Loop(train, present=(32, 0.1), **{"planned_examples": 32 * 1000, **changes})


# --------------------------------------------------------------------------------------------------------- commands

PROGRAM = """
import json, random, sys, time
size, rate, seed = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
generator = random.Random(int(seed)) if seed != "none" else random.Random()
value, mode = 1.0, sys.argv[4]
for step in range(1, 200):
    noise = sum(generator.gauss(0, 1) for _ in range(32 if mode == "size" else size)) / size
    value -= (0.1 if mode == "rate" else rate) * (value + noise)
    if step % 10 == 0:
        print(json.dumps({"step": step, "valid_loss": value * value}), flush=True)
        if mode == "exit":
            sys.exit("no more paper")
        if mode == "silent":
            time.sleep(60)
"""


def a_command(mode: str = "", seed: str = "{seed}") -> Command:
    program = PROGRAM.replace("print(json", "(mode == 'silent') or print(json") if mode == "silent" else PROGRAM
    if mode == "exit":
        program = program.replace("if step % 10 == 0:", "if step % 10 == 0:\n        sys.exit('no more paper')")
    if mode == "size":
        program = program.replace("/ size", "/ 32")
    argv = (sys.executable, "-c", program.replace("{", "{{").replace("}", "}}"))
    return Command(
        argv=(*argv, "{batch_size}", "{learning_rate}", seed, mode or "-"), name="program", present=(32, 0.1)
    )


# ------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Case:
    """What has one fault, and a part of what must be said of it."""

    fault: Fault
    make: Callable[[], Any]
    seen: str
    note: bool = False


CASES: dict[str, Case] = {
    "the optimizer raises": Case(Fault.CONSTRUCTION, lambda: good(optimizer=refuse), "the cat sat on it"),
    "a NaN": Case(Fault.DATA_NOT_FINITE, lambda: good(data=with_nan()), r"2 of 700 examples, first in example 5"),
    "the loss raises": Case(
        Fault.RAISED, lambda: good(loss=refuse), r"loss\(model, batch\) raised RuntimeError: the cat sat on it"
    ),
    "the metric raises": Case(
        Fault.RAISED, lambda: good(metric=refuse), r"metric\(model, batch\) raised RuntimeError: the cat"
    ),
    "a loss of tokens": Case(
        Fault.SHAPE, lambda: good(loss=lambda m, b: m(b[0]).square()), r"loss.* returned shape \(32, 2\)"
    ),
    "a metric of tokens": Case(
        Fault.SHAPE, lambda: good(metric=lambda m, b: m(b[0])), r"metric.* returned \(700, 2\) in evaluation"
    ),
    "a metric of half of the batch": Case(
        Fault.SHAPE, lambda: good(metric=lambda m, b: accuracy(m, b)[::2]), r"returned \(350,\).* has 700"
    ),
    "a detached loss": Case(
        Fault.NO_GRADIENT, lambda: good(loss=lambda m, b: losses(m, b).detach()), "without a gradient"
    ),
    "an unused layer": Case(
        Fault.NO_GRADIENT,
        lambda: good(model=Unused),
        r"in 50 steps: 2 trainable parameters, unused.weight, unused.bias",
    ),
    "a parameter left out": Case(
        Fault.NO_GRADIENT,
        lambda: good(optimizer=without_first),
        r"Not given to the optimizer: 1 trainable parameter, 0.weight",
    ),
    "a rate of its own": Case(
        Fault.RATE_IGNORED,
        lambda: good(optimizer=lambda parameters, _: torch.optim.Adam(parameters, lr=0.001)),
        r"1 of 1 groups .* asked for 0.1 and 0.4, group 0 has 0.001 and 0.001",
    ),
    "a rate that is scaled": Case(
        Fault.RATE_IGNORED,
        lambda: good(optimizer=lambda p, t: torch.optim.SGD(p, lr=t.learning_rate * t.batch_size / 256)),
        r"Asked for the rate 0.1, the optimizer has 0.0125",
    ),
    "the logarithm of 0": Case(Fault.NOT_FINITE, lambda: good(loss=zeros_logarithm), r"loss is inf at step 1 "),
    "too high a rate": Case(
        Fault.NOT_FINITE, lambda: good(loss=exploding, present=(32, 1e6)), r"loss is \S+ at step \d+ .*; it began at"
    ),
    "an infinite metric": Case(
        Fault.NOT_FINITE, lambda: good(metric=lambda m, b: accuracy(m, b) / 0), "metric is (inf|nan)"
    ),
    "a constant loss": Case(
        Fault.BATCH_IGNORED, lambda: good(loss=lambda m, b: 1 + 0 * losses(m, b)), "same loss to the last digit, 1"
    ),
    "a loss of other data": Case(
        Fault.BATCH_IGNORED, lambda: good(loss=losses_of_the_first), "After 50 steps, two batches .* have the same loss"
    ),
    "a loss that rises": Case(
        Fault.NO_LEARNING,
        lambda: good(optimizer=rising),
        r"\d in the first 5 steps and \S+ in the last of 50",
        note=True,
    ),
    "an accuracy that is to fall": Case(
        Fault.WRONG_DIRECTION,
        lambda: good(direction="min"),
        r"direction is 'min', .* the loss fell from 0\.\d+ to 0\.\d+ while the metric went from 0\.\d+ to 0\.[6-9]",
    ),
    "a loss that is to rise": Case(
        Fault.WRONG_DIRECTION, lambda: good(metric=losses, direction="max"), "direction is 'max', .* the loss fell"
    ),
    "a loop with an accuracy that is to fall": Case(
        Fault.WRONG_DIRECTION,
        lambda: a_loop(loop_with_an_accuracy, direction="min"),
        r"direction is 'min', and in \d+ steps",
    ),
    "a target in percent": Case(
        Fault.TARGET_OUT_OF_REACH, lambda: good(target=82.0), "The target is 82, and the .* share of right answers"
    ),
    "a target in percent, of a loop": Case(
        Fault.TARGET_OUT_OF_REACH,
        lambda: a_loop(loop_with_an_accuracy, direction="max", target=82.0),
        r"target is 82, and the validation metric was never larger than 0\.\d+",
        note=True,
    ),
    "a target that is reached": Case(
        Fault.TARGET_REACHED, lambda: good(target=0.01), r"0.01 or more, and the .* is 0\.\d+ before any training"
    ),
    "a target that the first evaluation reaches": Case(
        Fault.TARGET_REACHED, lambda: a_loop(loop, target=1.0), r"1 or less, .* at step 10\.", note=True
    ),
    "a run of few steps": Case(
        Fault.FEW_STEPS, lambda: good(planned_examples=320), "planned for 320 examples: 10 steps at batch size 32"
    ),
    "a run of less than a pass": Case(
        Fault.FEW_STEPS,
        lambda: good(planned_examples=640, present=(16, 0.1)),
        r"40 steps at batch size 16, and less than one pass .* Sizes above 32 have fewer than 20",
        note=True,
    ),
    "a loop of few steps": Case(Fault.FEW_STEPS, lambda: a_loop(loop, planned_examples=320), "320 examples: 10 steps"),
    "one model": Case(Fault.MODEL_KEPT, lambda: good(model=one_object()), "same object"),
    "shared memory": Case(Fault.MODEL_KEPT, lambda: good(model=shared_memory()), "share the memory of 2 parameters"),
    "a model that remembers": Case(
        Fault.MODEL_KEPT, lambda: good(model=remembering()), r"After a run of 50 steps, .*other initial weights"
    ),
    "a generator of its own": Case(
        Fault.NOT_REPEATABLE, lambda: good(loss=own_generator()), r"at step 1 their losses are [\d.]+ and [\d.]+"
    ),
    "weights without a seed": Case(
        Fault.NOT_REPEATABLE, lambda: good(model=unseeded_start()), "other initial weights .* seed 0: weight"
    ),
    "a fifth in common": Case(Fault.OVERLAP, lambda: good(valid=overlapping()), r"140 of 700 .* \(20 %\)"),
    "a fifth in common, of datasets": Case(
        Fault.OVERLAP,
        lambda: good(data=TensorDataset(*TRAIN), loss=long_losses, valid=TensorDataset(*overlapping())),
        r"140 of 700 .* \(20 %\)",
    ),
    "repeating data": Case(
        Fault.OVERLAP,
        lambda: good(data=tuple(t[:70].repeat(10, *[1] * (t.ndim - 1)) for t in TRAIN), valid=overlapping()),
        r"70 of 700 .* \(10 %\).* 90 % of the training examples repeat",
        note=True,
    ),
    "a slow dataset": Case(
        Fault.WAITING, lambda: good(data=Slow(), present=(4, 0.1)), r"A step at batch size 4 takes \d.* \(\d\d+ %\)"
    ),
    "batches of half the size": Case(
        Fault.LOADER_SIZE, lambda: good(data=half_batches, train_examples=700), r"Asked for batches of 32, .* gave 16 "
    ),
    "batches of half the size, weighted": Case(
        Fault.LOADER_SIZE, lambda: good(data=half_batches, train_examples=700, loss=total), "gave 16 ", note=True
    ),
    "no shuffling": Case(
        Fault.LOADER_ORDER, lambda: good(data=in_order, train_examples=700), r"The first 5 batches are the same"
    ),
    "statistics of the batch": Case(
        Fault.BATCH_DEPENDENT, lambda: good(loss=centred), r"the losses of 64 examples change by up to 0\.\d+"
    ),
    "a mean called a total": Case(
        Fault.BATCH_DEPENDENT, lambda: good(loss=mean_called_total, present=(32, 1.0)), r"The total of 64 examples is"
    ),
    "a sum": Case(
        Fault.SUMMED_LOSS,
        lambda: good(loss=lambda m, b: losses(m, b).sum(), present=(32, 0.001)),
        r"The loss of 64 examples is [\d.]+, that of 32 of them",
    ),
    "batch normalisation": Case(
        Fault.BATCH_NORM,
        lambda: good(model=lambda: nn.Sequential(nn.Linear(SIZE, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))),
        "1 layer of batch normalisation, the first is '1'",
        note=True,
    ),
    "an accuracy of 300": Case(
        Fault.FEW_EXAMPLES,
        lambda: good(valid=tuple(t[:300] for t in VALID)),
        r"metric is right or wrong on 300 examples: .* up to 2.9 points",
    ),
    "a loss of 50": Case(
        Fault.FEW_EXAMPLES,
        lambda: good(metric=None, direction="min", valid=tuple(t[:50] for t in VALID)),
        "a mean over 50 examples",
    ),
    "a slow metric": Case(
        Fault.EVALUATION,
        lambda: good(metric=sleepy, planned_examples=32 * 100),
        r"One evaluation of 700 examples takes \d.* its 100 steps of",
    ),
    "a cosine": Case(Fault.LENGTH_BOUND, lambda: good(schedule=cosine), "10,000,000 planned", note=True),
    "a cosine of so many steps": Case(
        Fault.SCHEDULE_OF_STEPS,
        lambda: good(schedule=cosine_of_steps, planned_examples=32_000),
        r"ends at 2\.\d+e-06 times its largest rate at batch size 32, and at 0.855 times at 128",
    ),
    "a loop without seed": Case(
        Fault.NOT_REPEATABLE, lambda: a_loop(unseeded_loop), r"seed 0 have valid_loss [\d.]+ and [\d.]+ at step 10"
    ),
    "a loop with a rate of its own": Case(
        Fault.RATE_IGNORED, lambda: a_loop(loop_that_ignores_rate), r"rates 0.1 and 0.001 .*at step 10, valid_loss"
    ),
    "a loop with a size of its own": Case(
        Fault.BATCH_SIZE_IGNORED, lambda: a_loop(loop_that_ignores_size), r"sizes 32 and 64 .*at step 10, valid_loss"
    ),
    "a loop that evaluates long": Case(
        Fault.EVALUATION, lambda: a_loop(loop_that_evaluates_long), r"One evaluation takes \d.*; 1,000 steps of"
    ),
    "a loop with infinite loss": Case(
        Fault.NOT_FINITE, lambda: a_loop(loop_with_infinite_loss), "train_loss is inf at step 10"
    ),
    "a loop that raises": Case(Fault.NO_POINT, lambda: a_loop(loop_that_raises), "the cat sat on it"),
    "a loop for small batches": Case(
        Fault.RAISED, lambda: a_loop(loop_for_small_batches), "a run at batch size 64 and rate 0.1 raised .* the cat"
    ),
    "a program without seed": Case(
        Fault.NO_SEED, lambda: a_command(seed="none"), r"no \{seed\}, and two runs differ by chance", note=True
    ),
    "a program with one seed": Case(
        Fault.NO_SEED, lambda: a_command(seed="5"), r"no \{seed\}, and two runs are the same to the last digit"
    ),
    "a program with a rate of its own": Case(Fault.RATE_IGNORED, lambda: a_command("rate"), "rates 0.1 and 0.001"),
    "a program with a size of its own": Case(
        Fault.BATCH_SIZE_IGNORED, lambda: a_command("size"), "sizes 32 and 64 .* after the same steps"
    ),
    "a program that fails": Case(Fault.NO_POINT, lambda: a_command("exit"), "exit code 1.*no more paper"),
}

CLEAN: dict[str, Callable[[], Any]] = {
    "tensors": good,
    "a dataset": lambda: good(data=TensorDataset(*TRAIN), loss=long_losses),
    "a dict": lambda: good(data={0: TRAIN[0], 1: TRAIN[1]}, valid={0: VALID[0], 1: VALID[1]}),
    "a loader": lambda: good(data=loader, train_examples=700),
    "a total and a weight": lambda: good(loss=total),
    "a mean": lambda: good(loss=lambda m, b: losses(m, b).mean()),
    "dropout": lambda: good(model=lambda: nn.Sequential(nn.Linear(SIZE, 8), nn.Dropout(), nn.Linear(8, 2))),
    "two groups": lambda: good(optimizer=two_groups),
    "half precision": lambda: good(autocast="bfloat16"),
    "averaged, clipped": lambda: good(averaging_examples=1000, max_gradient_norm=1.0),
    "a loop": lambda: a_loop(loop),
    "a loop with points of its own": lambda: a_loop(loop_with_points_of_its_own),
    "a program": a_command,
}
