"""Batches of a changing size in two processes: shares of one order, one choice, and the training of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import rightbatch
from rightbatch.controllers import AdaDamp, Limits, Planned

PROGRAM = """
import sys, torch, torch.distributed as dist
from torch import nn
import rightbatch
from rightbatch.controllers import AdaDamp, Limits, NormTest, Planned

rank, store, result = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
x = torch.randn(61, 6, generator=torch.Generator().manual_seed(2))
y = (x[:, :2].sum(1) > 0).long()

def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    replica = nn.parallel.DistributedDataParallel(model)
    return model, replica, torch.optim.SGD(model.parameters(), lr=0.3)

def loss_of(replica, chosen):
    return nn.functional.cross_entropy(replica(x[chosen]), y[chosen])

def train(controller, passes, **how):
    model, replica, optimizer = parts()
    monitor = rightbatch.NoiseScale(replica, optimizer) if "gradients" in controller.needs else None
    batches = rightbatch.AdaptiveBatchSampler(controller, optimizer, 61, batch_size=8, monitor=monitor, **how)
    found = []
    for _ in range(passes):
        for chosen in batches:
            loss = loss_of(replica, chosen)
            batches.saw(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append((chosen, batches.batch_size))
    return model.state_dict(), found, batches.state_dict()

def accumulated():
    model, replica, optimizer = parts()
    batches = rightbatch.AdaptiveAccumulation(Planned("16@32"), optimizer, 2, batch_size=8)
    for k in range(24):
        at = 4 * k % 60 + 2 * rank
        batches.scaled(loss_of(replica, slice(at, at + 2))).backward()
        if batches.due:
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict(), [batches.examples, batches.steps, batches.batch_size]

try:
    rightbatch.AdaptiveBatchSampler(Planned(""), parts()[2], 61, batch_size=1)
except rightbatch.InputError as error:
    assert "at least one for each process" in str(error)
else:
    raise AssertionError("one example for two processes")
limits = Limits(8, 40, most_change=1.5)
torch.save({
    "planned": train(Planned("12@40, 21@90*2"), 3, drop_last=False),
    "loss": train(AdaDamp(limits=limits), 2),
    "gradients": train(NormTest(theta=0.5, limits=limits), 4),
    "accumulated": accumulated(),
}, result)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes had, one after the other."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-c", PROGRAM]
    files = [folder / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder / "store"), str(file)]) for rank, file in enumerate(files)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [load(file) for file in files]


def load(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["planned", "loss", "gradients"])
def test_all_processes_choose_alike_and_have_equal_shares_of_one_order(found: list[dict[str, Any]], kind: str) -> None:
    (weights, mine, state), (same, others, alike) = (each[kind] for each in found)
    assert state == alike
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert [size for _, size in mine] == [size for _, size in others]
    assert len({size for _, size in mine}) > 1
    read = [*map(len, (chosen for chosen, _ in mine))]
    assert read == [len(chosen) for chosen, _ in others]
    first_pass: list[int] = []
    for (one, _), (other, _) in zip(mine, others, strict=True):
        if len(first_pass) + len(one) + len(other) > 61:
            break
        first_pass += one + other
    order = torch.randperm(61, generator=torch.Generator().manual_seed(0)).tolist()
    assert first_pass == order[: len(first_pass)]
    assert len(first_pass) > 30


def parts() -> tuple[nn.Module, torch.optim.SGD]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.3)


X = torch.randn(61, 6, generator=torch.Generator().manual_seed(2))
Y = (X[:, :2].sum(1) > 0).long()


@pytest.mark.parametrize(
    ("kind", "controller", "passes"),
    [("planned", Planned("12@40, 20@90*2"), 3), ("loss", AdaDamp(limits=Limits(8, 40, most_change=1.5)), 2)],
)
def test_it_is_the_training_of_one_process(
    found: list[dict[str, Any]], kind: str, controller: Any, passes: int
) -> None:
    """A planned 21 is 20 in two processes. With the loss, sizes that are odd in one process are not in two."""
    weights, mine, _ = found[0][kind]
    model, optimizer = parts()
    batches = [sorted(a + b) for (a, _), (b, _) in zip(mine, found[1][kind][1], strict=True)]
    sizes = rightbatch.AdaptiveBatchSampler(controller, optimizer, 61, batch_size=8)
    for k, chosen in enumerate(batches):
        loss = nn.functional.cross_entropy(model(X[chosen]), Y[chosen])
        sizes.saw(loss)
        optimizer.zero_grad()
        loss.backward()
        sizes._waiting.append(len(chosen))
        optimizer.step()
        assert abs(sizes.batch_size - mine[k][1]) <= 1
    assert passes == found[0][kind][2]["epoch"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_accumulated_steps_count_the_examples_of_all_processes(found: list[dict[str, Any]]) -> None:
    (weights, counts), (same, alike) = (each["accumulated"] for each in found)
    assert counts == alike == [96, 8, 16]
    model, optimizer = parts()
    batches = rightbatch.AdaptiveAccumulation(Planned("16@32"), optimizer, 4, batch_size=8)
    for k in range(24):
        chosen = slice(4 * k % 60, 4 * k % 60 + 4)
        batches.scaled(nn.functional.cross_entropy(model(X[chosen]), Y[chosen])).backward()
        if batches.due:
            optimizer.step()
            optimizer.zero_grad()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], same[name])
        torch.testing.assert_close(weights[name], value)
