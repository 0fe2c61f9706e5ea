"""Runs of a workload: what their points are, how they end, and that a killed one goes on to the bit."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rightbatch import curves
from rightbatch.engine import WorkloadRunner, use_device
from rightbatch.errors import InputError, WorkloadError
from rightbatch.records import Point, Stop, StopReason, Trial
from rightbatch.workload import Workload

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long()
VALID = (torch.randn(20, 4, generator=torch.Generator().manual_seed(6)), torch.arange(20) % 2)


def per_example(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def loss_and_accuracy(model, batch):
    inputs, labels = batch
    logits = model(inputs)
    return nn.functional.cross_entropy(logits, labels, reduction="none"), (logits.argmax(dim=1) == labels).float()


def sgd(parameters, trial):
    return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.9)


def workload(**changes: Any) -> Workload:
    parts = {
        "name": "signs",
        "model": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
        "data": (X, Y),
        "valid": VALID,
        "loss": per_example,
        "metric": loss_and_accuracy,
        "direction": "max",
        "optimizer": sgd,
    }
    return Workload(**{**parts, **changes})


TRIAL = Trial(8, 0.05, 11, 480)
"""Six steps an epoch and two examples left over; rungs at steps 1, 2, 3 ... 60."""


def begin(work: Workload, trial: Trial = TRIAL):
    return WorkloadRunner(work).start(trial)


def finish(run) -> list[Point]:
    """The points that are left of a run which then ends as planned."""
    points = list(iter(run.advance, Stop(StopReason.FINISHED)))
    assert all(isinstance(point, Point) for point in points)
    return points


def timeless(points: list[Point]) -> list[Point]:
    return [replace(point, seconds=0.0) for point in points]


# ------------------------------------------------------------------------------ killed and continued in a new process


class Augmented(Dataset):
    """Examples that are different each time they are read, from all three random streams."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        shifted = X[index] + 0.1 * torch.randn(4) + 0.1 * np.random.randn()  # noqa: NPY002
        return (shifted if random.random() < 0.5 else -shifted), Y[index]


def noisy_loss(model, batch):
    """A loss that draws from Python's and NumPy's streams; dropout draws from torch's."""
    return per_example(model, batch) * (1 + 0.1 * random.random() + 0.1 * np.random.randn())  # noqa: NPY002


def noisy_network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


class Carrying(nn.Module):
    """A model that carries a hidden state from one training batch to the next, and saves it as its extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = noisy_network()
        self.hidden = torch.zeros(4)

    def forward(self, inputs):
        if self.training:
            self.hidden = 0.7 * self.hidden + 0.3 * inputs.detach().mean(dim=0)
        return self.inner(inputs + self.hidden)

    def get_extra_state(self):
        return {"hidden": self.hidden}

    def set_extra_state(self, state):
        self.hidden = state["hidden"]


def shuffled_loader(batch_size, seed):
    return DataLoader(TensorDataset(X, Y), batch_size=batch_size, shuffle=True, drop_last=True)


def ragged_buckets(batch_size, seed):
    """Two buckets, each cut into full batches and a smaller one, in an order of the pass: six of the seven."""
    buckets = torch.split(torch.randperm(50), [21, 29])
    pieces = [piece for bucket in buckets for piece in torch.split(bucket, batch_size)]
    random.shuffle(pieces)
    yield from ((X[piece], Y[piece]) for piece in pieces[1:])


def endless_stream(batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        now = torch.randint(50, (batch_size,), generator=generator)
        yield X[now], Y[now]


def noisy_total(model, batch):
    return noisy_loss(model, batch).sum(), len(batch[1])


def adam(parameters, trial):
    return torch.optim.Adam(parameters, lr=trial.learning_rate)


def one_cycle(optimizer, trial):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=trial.planned_steps)


def milestones(optimizer, trial):
    return lr_scheduler.MultiStepLR(optimizer, [4, 11, 20], gamma=0.5)


def warm_up_then_cosine(optimizer, trial):
    warm_up = 40 // trial.batch_size
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=warm_up),
        lr_scheduler.CosineAnnealingLR(optimizer, trial.planned_steps - warm_up),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, [warm_up])


CASES: dict[str, dict[str, Any]] = {
    "tensors, sgd": {"schedule": one_cycle},
    "tensors, adam": {"optimizer": adam, "schedule": milestones},
    "dataset, sgd": {"data": Augmented(), "schedule": one_cycle},
    "dataset, adam": {"data": Augmented(), "optimizer": adam, "schedule": milestones},
    "shuffled loader": {"data": shuffled_loader, "train_examples": 50},
    "ragged buckets": {"data": ragged_buckets, "train_examples": 50, "loss": noisy_total},
    "endless stream": {"data": endless_stream, "train_examples": 50},
    "averaged weights": {"averaging_examples": 60.0},
    "clipping": {"max_gradient_norm": 0.1},
    "bfloat16": {"autocast": "bfloat16"},
    "float16": {"autocast": "float16", "max_gradient_norm": 0.1, "averaging_examples": 60.0},
    "hidden state": {"model": Carrying},
    "hidden state, averaged": {
        "model": Carrying,
        "averaging_examples": 60.0,
        "data": ragged_buckets,
        "train_examples": 50,
        "loss": noisy_total,
    },
    "planned length": {"optimizer": adam, "schedule": warm_up_then_cosine},
}
KILLED = Trial(8, 0.05, 11, 200)
"""Short, as there are many cases: four epochs and a step."""

PLACES = {"mid epoch": 9, "end of an epoch": 12}


def noisy_run(case: str, state: bytes | None = None):
    # Evaluated as often whatever its schedule, so that all are saved at the same places.
    work = workload(**{"model": noisy_network, "loss": noisy_loss, "length_bound": False, **CASES[case]})
    return WorkloadRunner(work).start(KILLED, state)


def state_file(folder: Path, *words: str) -> Path:
    return folder / "-".join(words).replace(" ", "_")


def save_all_and_die(folder: Path) -> None:
    """What the first process does."""
    torch.set_num_threads(1)
    for case in CASES:
        run = noisy_run(case)
        for place, step in PLACES.items():
            while run.advance().step < step:
                pass
            state_file(folder, case, place).write_bytes(run.save())
    os._exit(9)


def continue_all(folder: Path) -> None:
    """What the second process does."""
    torch.set_num_threads(1)
    torch.manual_seed(999)  # a new process has other random streams
    for case, place in itertools.product(CASES, PLACES):
        run = noisy_run(case, state_file(folder, case, place).read_bytes())
        points = [dataclasses.asdict(point) for point in finish(run)]
        torch.save({"points": points, "state": run.save()}, state_file(folder, case, place, "end"))


def in_a_new_process(call: str, folder: Path) -> int:
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import test_engine; from pathlib import Path; {call}"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert "Error" not in done.stderr, done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def continued(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    assert in_a_new_process("test_engine.save_all_and_die(Path(sys.argv[2]))", folder) == 9
    assert in_a_new_process("test_engine.continue_all(Path(sys.argv[2]))", folder) == 0
    return folder


@functools.cache
def uninterrupted(case: str):
    run = noisy_run(case)
    return timeless(finish(run)), read_state(run.save())


def read_state(saved: bytes) -> dict[str, Any]:
    state = torch.load(io.BytesIO(saved), weights_only=True)
    return {key: value for key, value in state.items() if key != "seconds"}


def differences(one: Any, other: Any, path: str = "state") -> list[str]:
    """Where two states differ, to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [path]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [path]
        return [
            found for k, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{path}.{k}")
        ]
    return [] if one == other else [path]


def test_the_places_of_the_saves_are_what_they_are_called():
    steps_an_epoch = len(X) // KILLED.batch_size
    rungs = curves.rungs_in_steps(200, KILLED.batch_size)
    assert all(step in rungs for step in PLACES.values())
    assert PLACES["mid epoch"] % steps_an_epoch != 0
    assert PLACES["end of an epoch"] % steps_an_epoch == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_goes_on_to_the_bit_in_a_new_process(continued, case, place):
    points, state = uninterrupted(case)
    end = torch.load(state_file(continued, case, place, "end"), weights_only=True)
    left = [Point(**point) for point in end["points"]]

    assert timeless(left) == [point for point in points if point.step > PLACES[place]]
    assert differences(state, read_state(end["state"])) == []


TAKES_PART = {
    "tensors, adam": ("python", "numpy", "random.torch", "model.1.running_mean", "optimizer.state", "schedule"),
    "ragged buckets": ("read_in_epoch", "random.torch", "model"),
    "averaged weights": ("update.average.module.0.weight", "update.average.module.1.running_mean"),
    "float16": ("update.scaler._growth_tracker", "update.average.n_averaged"),
    "hidden state": ("model._extra_state.hidden",),
    "planned length": ("schedule._schedulers",),
}


@pytest.mark.parametrize(("case", "parts"), TAKES_PART.items(), ids=TAKES_PART.keys())
def test_what_a_case_is_about_took_part_in_what_was_continued(case, parts):
    run = noisy_run(case)
    run.advance()
    before = read_state(run.save())
    run.advance()
    changed = " ".join(differences(before, read_state(run.save())))
    for part in parts:
        assert part in changed


def augmented_loader(batch_size, seed):
    """A loader whose examples are different each time they are read."""
    return DataLoader(Augmented(), batch_size=batch_size, shuffle=True, drop_last=True)


def test_a_loader_that_augments_goes_on_to_the_bit():
    runner = WorkloadRunner(workload(data=augmented_loader, train_examples=50))
    whole = timeless(finish(runner.start(TRIAL)))
    for points in (5, 9):
        run = runner.start(TRIAL)
        for _ in range(points):
            run.advance()
        assert timeless(finish(runner.start(TRIAL, run.save()))) == whole[points:]


def test_training_seconds_go_on_from_where_they_were():
    runner = WorkloadRunner(workload())
    run = runner.start(TRIAL)
    last = [run.advance() for _ in range(5)][-1]
    other = runner.start(TRIAL, run.save())
    following = other.advance()
    assert following.step > last.step
    assert following.seconds > last.seconds > 0


def test_a_state_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    buffer = io.BytesIO()
    torch.save({"stepper": Evil()}, buffer)
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        WorkloadRunner(workload()).start(TRIAL, buffer.getvalue())
    assert not (tmp_path / "was here").exists()


# ----------------------------------------------------------------------------------------------------- what points are


def test_a_run_of_which_only_the_end_counts_is_evaluated_less_often_and_ends_as_before():
    often = finish(begin(workload(schedule=one_cycle, length_bound=False)))
    seldom = finish(begin(workload(schedule=one_cycle)))
    assert len(seldom) < len(often) / 2
    assert [point.step for point in (seldom[0], seldom[-1])] == [0, 60]
    assert replace(seldom[-1], seconds=0.0, train_loss=None) == replace(often[-1], seconds=0.0, train_loss=None)


def test_a_state_that_was_saved_at_other_evaluations_goes_on_at_the_next_one():
    often, seldom = (workload(schedule=one_cycle, **changes) for changes in ({"length_bound": False}, {}))
    run, uninterrupted = begin(often), finish(begin(seldom))
    while run.advance().step < 13:
        pass
    left = finish(WorkloadRunner(seldom).start(TRIAL, run.save()))
    after = [point for point in uninterrupted if point.step > 13]
    assert [point.step for point in left] == [point.step for point in after]
    assert left[-1].valid_loss == after[-1].valid_loss


def by_hand(work: Workload, trial: Trial) -> list[tuple]:
    """The independent twin of a whole run: step, mean training loss since the rung before, loss and accuracy."""
    torch.manual_seed(trial.seed)
    model = work.model()
    optimizer = work.optimizer(model.parameters(), trial)
    generator = torch.Generator().manual_seed(trial.seed)
    rungs = curves.rungs_in_steps(trial.planned_examples, trial.batch_size)
    rows, losses, step, order = [], [], 0, []
    while step < rungs[-1]:
        if len(order) < trial.batch_size:
            order = torch.randperm(len(X), generator=generator).tolist()
        now, order = order[: trial.batch_size], order[trial.batch_size :]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X[now]), Y[now])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        step += 1
        if step in rungs:
            with torch.no_grad():
                logits = model(VALID[0])
            rows.append(
                (
                    step,
                    np.mean(losses),
                    nn.functional.cross_entropy(logits, VALID[1]).item(),
                    (logits.argmax(dim=1) == VALID[1]).double().mean().item(),
                )
            )
            losses = []
    return rows


@pytest.mark.parametrize("batch_size", [1, 8, 50])
def test_the_points_of_a_run_are_those_of_a_loop_by_hand(batch_size):
    work = workload()
    trial = work.complete(replace(TRIAL, batch_size=batch_size))
    start, *points = finish(begin(work, trial))
    rows = by_hand(work, trial)

    assert (start.step, start.examples, start.seconds, start.train_loss) == (0, 0, 0.0, None)
    assert [p.step for p in points] == [row[0] for row in rows]
    assert [p.examples for p in points] == [row[0] * batch_size for row in rows]
    assert [p.train_loss for p in points] == pytest.approx([row[1] for row in rows], rel=1e-4)
    assert [p.valid_loss for p in points] == pytest.approx([row[2] for row in rows], rel=1e-4)
    assert [p.valid_metric for p in points] == pytest.approx([row[3] for row in rows], abs=0.051)


def test_the_first_point_is_the_model_before_training():
    run = begin(workload())
    point = run.advance()
    with torch.no_grad():
        losses, right = loss_and_accuracy(run.model, VALID)
    assert point.valid_loss == pytest.approx(losses.mean().item(), rel=1e-6)
    assert point.valid_metric == pytest.approx(right.mean().item())
    assert point.train_loss is None


def test_points_carry_the_learning_rate_then_in_force():
    halving = workload(schedule=lambda optimizer, trial: torch.optim.lr_scheduler.StepLR(optimizer, 10, gamma=0.5))
    for point in finish(begin(halving)):
        assert point.learning_rate == pytest.approx(0.05 * 0.5 ** (point.step // 10))


def test_seconds_count_training_and_nothing_else(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("rightbatch.engine.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def loss(model, batch):
        clock.now += 1
        return per_example(model, batch)

    def metric(model, batch):
        clock.now += 100
        return loss_and_accuracy(model, batch)

    points = finish(begin(workload(loss=loss, metric=metric, test=VALID)))
    assert [p.seconds for p in points] == [float(p.step) for p in points]


def test_a_metric_given_alone_or_in_a_pair_is_the_same_and_without_one_it_is_the_loss():
    pair = finish(begin(workload()))
    alone = finish(begin(workload(metric=lambda model, batch: loss_and_accuracy(model, batch)[1])))
    none = finish(begin(workload(metric=None, direction="min")))
    assert timeless(pair) == timeless(alone)
    assert [p.valid_loss for p in none] == [p.valid_loss for p in pair]
    assert [p.valid_metric for p in none] == [p.valid_loss for p in pair]


def test_test_data_is_reported_beside_and_changes_nothing():
    points = finish(begin(workload()))
    tested = finish(begin(workload(test=(X, Y), valid=VALID)))
    same = finish(begin(workload(test=VALID)))
    assert timeless([replace(p, test_metric=None) for p in tested]) == timeless(points)
    assert all(p.test_metric is None for p in points)
    assert [p.test_metric for p in same] == [p.valid_metric for p in same]
    assert [p.test_metric for p in tested] != [p.valid_metric for p in tested]


def test_a_diverging_run_goes_on_with_what_is_not_finite():
    points = finish(begin(workload(loss=lambda model, batch: per_example(model, batch) * float("inf"))))
    assert len(points) == len(curves.rungs_in_steps(480, 8)) + 1
    assert curves.diverged(points)


def test_evaluation_is_in_evaluation_mode_and_without_gradients_and_training_in_training_mode():
    modes = []

    def metric(model, batch):
        modes.append(("evaluation", model.training, torch.is_grad_enabled()))
        return loss_and_accuracy(model, batch)

    def loss(model, batch):
        modes.append(("training", model.training, torch.is_grad_enabled()))
        return per_example(model, batch)

    finish(begin(workload(metric=metric, loss=loss)))
    assert set(modes) == {("evaluation", False, False), ("training", True, True)}


def test_a_part_that_the_model_keeps_in_evaluation_mode_stays_there():
    def frozen():
        model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
        model[0].eval()
        return model

    run = begin(workload(model=frozen))
    finish(run)
    assert run.model[0].num_batches_tracked == 0
    assert torch.equal(run.model[0].running_mean, torch.zeros(4))


def drawing_metric(model, batch):
    torch.rand(1)
    return loss_and_accuracy(model, batch)


@pytest.mark.parametrize("metric", [loss_and_accuracy, drawing_metric])
def test_a_run_leaves_the_random_streams_of_the_process_alone(metric):
    torch.manual_seed(0)
    random.seed(0)
    before = torch.get_rng_state(), random.getstate()
    finish(begin(workload(model=noisy_network, data=Augmented(), loss=noisy_loss, metric=metric)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


# ------------------------------------------------------------------------------------------------- what may go wrong


def test_a_loss_of_a_wrong_shape_is_refused_in_training():
    run = begin(workload(loss=lambda model, batch: per_example(model, batch)[:, None]))
    run.advance()
    with pytest.raises(WorkloadError, match=r"returned shape \(8, 1\) for a batch of 8"):
        run.advance()


def raises(kind, *words):
    def function(*_):
        raise kind(*words)

    return function


def test_an_error_of_the_persons_loss_is_told_with_the_place():
    run = begin(workload(loss=raises(ValueError, "seventeen")))
    run.advance()
    where = r"batch_size=8, learning_rate=0\.05, seed=11, after step 0"
    with pytest.raises(WorkloadError, match=rf"The workload raised ValueError: seventeen \({where}\)") as caught:
        run.advance()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("part", ["model", "schedule", "optimizer"])
def test_an_error_in_what_builds_the_run_is_told_too(part):
    with pytest.raises(WorkloadError, match="raised ValueError: eighteen"):
        begin(workload(**{part: raises(ValueError, "eighteen")}))


def test_an_empty_validation_dataset_is_named():
    with pytest.raises(WorkloadError, match=r"valid.* (empty|no examples)"):
        begin(workload(valid=TensorDataset(X[:0], Y[:0]))).advance()


@pytest.mark.parametrize(
    "error",
    [(torch.OutOfMemoryError, "CUDA out of memory."), (MemoryError, "no more"), (MemoryError,)],
    ids=["torch's own", "Python's with a message", "Python's without"],
)
@pytest.mark.parametrize("part", ["loss", "metric"])
def test_out_of_memory_is_a_stop_and_not_an_error(part, error):
    run = begin(workload(**{part: raises(*error)}))
    outcomes = [run.advance()]
    if part == "loss":
        assert isinstance(outcomes[0], Point)
        outcomes.append(run.advance())
    assert isinstance(outcomes[-1], Stop)
    assert outcomes[-1].reason is StopReason.OUT_OF_MEMORY
    assert all(words in outcomes[-1].message for words in error[1:])


def test_the_allocators_own_words_are_understood():
    run = begin(workload(loss=lambda model, batch: torch.empty(1 << 50, dtype=torch.uint8)))
    run.advance()
    stop = run.advance()
    assert isinstance(stop, Stop)
    assert stop.reason is StopReason.OUT_OF_MEMORY
    assert "allocate" in stop.message


def test_a_model_that_does_not_fit_is_out_of_memory_too():
    stop = begin(workload(model=raises(torch.OutOfMemoryError, "CUDA out of memory."))).advance()
    assert isinstance(stop, Stop)
    assert stop.reason is StopReason.OUT_OF_MEMORY


def test_a_trial_that_cannot_be_run_is_refused_at_its_start():
    runner = WorkloadRunner(workload())
    with pytest.raises(InputError, match=r"batch_size=51 is larger than the data"):
        runner.start(Trial(51, 0.1, 0))
    with pytest.raises(InputError, match=r"declares no setting 'width'"):
        runner.start(Trial(8, 0.1, 0, None, {"width": 3}))


def test_an_error_while_steps_are_timed_says_so():
    runner = WorkloadRunner(workload(loss=raises(ValueError, "nineteen")))
    with pytest.raises(
        WorkloadError, match=r"raised ValueError: nineteen \(while measuring step times at batch size 8\)"
    ):
        list(runner.step_times([8], rounds=1))


def test_the_steps_that_are_timed_update_the_weights_at_every_size():
    updates: dict[int, set[bool]] = {}
    timed: list[int] = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            moved = any(p.grad is not None for group in self.param_groups for p in group["params"])
            updates.setdefault(timed[-1], set()).add(moved)
            return super().step(closure)

    def loss(model, batch):
        timed.append(len(batch[1]))
        return per_example(model, batch)

    work = workload(loss=loss, optimizer=lambda parameters, trial: Counting(parameters, lr=trial.learning_rate))
    assert len(list(WorkloadRunner(work).step_times([4, 8, 16], rounds=1))) == 3
    assert updates == {4: {True}, 8: {True}, 16: {True}}


def test_a_device_that_is_not_there_is_refused_by_name():
    with pytest.raises(InputError, match="Device 'nowhere' cannot be used here"):
        use_device(workload(), "nowhere")
    assert use_device(workload(), "cpu").device == "cpu"


def test_the_environment_is_that_of_this_process():
    environment = WorkloadRunner(workload()).environment
    assert (environment.device, environment.threads, environment.precision) == ("cpu", 1, "float32")
    assert environment.torch == torch.__version__
    assert environment.processor
