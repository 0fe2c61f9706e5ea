"""Two processes with one replica each: what the monitor sees there is what one process sees in two micro-batches."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rightbatch.gradients.monitor import NoiseScale

PROGRAM = """
import sys, torch, torch.distributed as dist
from torch import nn
from rightbatch.errors import InputError
from rightbatch.gradients.monitor import NoiseScale

class LooksAgain(torch.optim.Optimizer):
    def __init__(self, groups):
        super().__init__(groups, {})

    def step(self, closure):
        closure()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(parameter.grad, alpha=-self.param_groups[0]["lr"])
        closure()

rank, accumulated, store, result = int(sys.argv[1]), sys.argv[2] == "yes", sys.argv[3], sys.argv[4]
by_closure = sys.argv[2] == "closure"
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
generator = torch.Generator().manual_seed(1)
x = torch.randn(8, 48, 6, generator=generator, dtype=torch.float64)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
replica = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.0005)
optimizer = (LooksAgain if by_closure else torch.optim.SGD)([{"params": list(model.parameters()), "lr": 0.1}])
try:
    NoiseScale(replica, optimizer, per_layer=True)
except InputError as error:
    assert "leave per_layer=True out" in str(error)
else:
    raise AssertionError("layers of replicas")
with NoiseScale(replica, optimizer) as monitor:
    for batch in x[:6]:
        optimizer.zero_grad()
        mine = batch[24 * rank : 24 * rank + 24]
        if by_closure:
            def closure():
                optimizer.zero_grad()
                replica(mine).square().mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step(closure)
            continue
        if accumulated:
            with replica.no_sync():
                (replica(mine[:12]).square().mean() / 2).backward()
            (replica(mine[12:]).square().mean() / 2).backward()
        else:
            replica(mine).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in x[6:]:  # closed: gradients are averaged as ever
    optimizer.zero_grad()
    replica(batch[24 * rank : 24 * rank + 24]).square().mean().backward()
    optimizer.step()
torch.save([monitor.state_dict(), model.state_dict(), monitor.estimate().scale.estimate], result)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("accumulated", ["no", "yes", "closure"])
def test_replicas_are_parts_of_the_batch(tmp_path: Path, accumulated: str) -> None:
    files = [tmp_path / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), accumulated, str(tmp_path / "store"), str(file)])
        for rank, file in enumerate(files)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    (state, weights, estimate), (other, _, _) = (torch.load(file, weights_only=True) for file in files)
    assert state == other  # all processes know the same

    x = torch.randn(8, 48, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, batch in enumerate(x):
        gradients = []
        for mine in batch.chunk(2):
            micro_batches = mine.chunk(2) if accumulated == "yes" and step < 6 else [mine]
            losses = [model(part).square().mean() for part in micro_batches]
            gradients.append(torch.autograd.grad(sum(losses) / len(losses), list(model.parameters())))
        optimizer.zero_grad()
        for parameter, of_replicas in zip(model.parameters(), zip(*gradients, strict=True), strict=True):
            parameter.grad = torch.stack(of_replicas).mean(0)
        if step < 6:
            sample = dict(zip(_fields(), state["series"]["plain"][step], strict=True))
            whole = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
            parts = sum(float((g / 2).square().sum()) for of_replica in gradients for g in of_replica)
            assert sample["batch_squared"] == pytest.approx(whole, rel=1e-9)
            assert sample["parts_squared"] == pytest.approx(parts, rel=1e-9)
            assert (sample["shares_squared"], sample["batch_size"], sample["step"]) == (0.5, 48, step)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach())
    assert math.isfinite(estimate)


def _fields() -> list[str]:
    from rightbatch.gradients.monitor import FIELDS

    return FIELDS


def test_one_process_needs_no_replicas() -> None:
    model = nn.Linear(3, 1)
    assert NoiseScale(model, torch.optim.SGD(model.parameters(), lr=0.1))._replicas is None
