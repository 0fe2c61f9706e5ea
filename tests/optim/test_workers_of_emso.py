"""EMSO over processes of torch.distributed, against workers simulated in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from rightbatch.optim import EMSO, LinearBatch

WORKERS, STEPS = 3, 4

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the gloo backend")


def made(**options) -> tuple[nn.Linear, EMSO]:
    model = nn.Linear(4, 1).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.2)
    return model, EMSO(model.parameters(), 0.3, gamma=0.5, inner_steps=6, average="linear", **options)


def batch(model: nn.Linear, step: int, worker: int) -> LinearBatch:
    draw = torch.Generator().manual_seed(100 * step + worker)
    inputs = torch.randn(8, 4, generator=draw, dtype=torch.float64)
    return LinearBatch(model, inputs, (inputs.sum(1) > 0).double(), "bernoulli", 0.01)


def work(worker: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=worker, world_size=WORKERS)
    model, optimizer = made(process_group=dist.group.WORLD)
    losses = [float(optimizer.step(batch(model, step, worker))) for step in range(STEPS)]
    with optimizer.averaged():
        torch.save((model.state_dict(), losses, optimizer.evaluations), Path(folder) / f"{worker}.pt")
    dist.destroy_process_group()


def test_processes_agree_with_simulated_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=WORKERS)
    model, optimizer = made()
    losses = [
        float(optimizer.step_of_workers([batch(model, step, worker) for worker in range(WORKERS)]))
        for step in range(STEPS)
    ]
    found = [torch.load(tmp_path / f"{worker}.pt") for worker in range(WORKERS)]
    with optimizer.averaged():
        for state, _, evaluations in found:
            assert evaluations == STEPS * 6
            for name, truth in model.state_dict().items():
                torch.testing.assert_close(state[name], truth, rtol=0, atol=1e-14)
    of_workers = torch.tensor([own for _, own, _ in found])
    torch.testing.assert_close(of_workers.mean(0), torch.tensor(losses))
    assert optimizer.evaluations == WORKERS * STEPS * 6
