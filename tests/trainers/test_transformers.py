"""A batch that grows in the Trainer of transformers: as a loop by hand, at the rates it should have, gone on with."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("transformers", minversion="5.10")

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from rightbatch.controllers import AdaDamp, Limits, NormTest, Planned
from rightbatch.errors import InputError
from rightbatch.trainers.transformers import AdaptiveBatch

X = torch.randn(52, 6, generator=torch.Generator().manual_seed(2))
Y = (X[:, :2].sum(1) > 0).long()
DATA = [{"x": X[k], "labels": Y[k], "index": torch.tensor(k)} for k in range(52)]
PLAN = "16@40, 32@80*2"
"""Of micro-batches of 4, two in the first step: 8 until 40 examples, then 16, then 32; a pass has 13."""


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        self.read: list[list[int]] = []

    def forward(self, x: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        self.read.append(index.tolist())
        return {"loss": nn.functional.cross_entropy(self.layers(x), labels)}


class Recorder(TrainerCallback):
    """Of each step of the optimizer: the forward passes so far, and its rate."""

    def __init__(self, network: Network) -> None:
        self.network, self.steps, self.logged = network, [], []  # type: ignore[var-annotated]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append((len(self.network.read), kwargs["optimizer"].param_groups[0]["lr"]))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.logged.append((state.global_step, logs["loss"]))


def trained(
    folder: Path, controller: Any, *, resume: str | None = None, **how: Any
) -> tuple[Network, Trainer, Recorder, AdaptiveBatch | None]:
    network = Network()
    arguments = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "learning_rate": 0.05,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 4,
        "save_strategy": "no",
        "logging_steps": 2,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "max_grad_norm": 1.0,
    }
    trainer = Trainer(network, TrainingArguments(str(folder), **{**arguments, **how}), train_dataset=DATA)
    grows = AdaptiveBatch(trainer, controller, overhead=math.inf) if controller is not None else None
    if grows is not None:
        trainer.add_callback(grows)
    recorder = Recorder(network)
    trainer.add_callback(recorder)
    trainer.train(resume_from_checkpoint=resume)
    return network, trainer, recorder, grows


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_size_that_is_held_is_the_plain_training_to_the_bit(tmp_path: Path) -> None:
    plain, trainer, steps, _ = trained(tmp_path, None)
    held, same_trainer, same_steps, grows = trained(tmp_path, Planned(""))
    assert same(plain, held)
    assert steps.steps == same_steps.steps
    assert steps.logged == same_steps.logged
    assert trainer.state.global_step == same_trainer.state.global_step == 21
    assert grows is not None
    assert grows.windows.steps == 21


def test_it_is_a_loop_by_hand_at_the_rates_that_examples_say(tmp_path: Path) -> None:
    network, trainer, recorder, grows = trained(tmp_path, Planned(PLAN))
    assert grows is not None
    ends = [0, *(passed for passed, _ in recorder.steps)]
    sizes = [end - begin for begin, end in pairwise(ends)]
    # 13 micro-batches a pass. Four are wanted from the tenth on, and divide twelve; eight from the twentieth on.
    assert sizes == [2, 2, 2, 2, 2, 2, 1, 4, 4, 5, 8, 5]
    assert sum(sizes) == 39
    assert trainer.state.global_step == 21
    assert trainer.args.gradient_accumulation_steps == 2
    by_hand = Network()
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.05, weight_decay=0.0)
    at = unit = 0
    for size, (_, rate) in zip(sizes, recorder.steps, strict=True):
        warm = unit / 4 if unit < 4 else 0.5 * (1 + math.cos(math.pi * (unit - 4) / (21 - 4)))
        assert rate == pytest.approx(0.05 * warm * (2 if at >= 20 else 1), abs=1e-12)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        for chosen in network.read[at : at + size]:
            (by_hand(X[chosen], Y[chosen], torch.tensor(chosen))["loss"] / size).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
        at, unit = at + size, unit + math.ceil(size / 2)
    for one, other in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    for start in (0, 13, 26):  # passes are whole
        assert sorted(k for chosen in network.read[start : start + 13] for k in chosen) == list(range(52))


def test_losses_are_logged_where_they_would_be_and_are_means_over_examples(tmp_path: Path) -> None:
    network, _, recorder, _ = trained(tmp_path, Planned(PLAN), learning_rate=1e-9, num_train_epochs=1)
    assert [step for step, _ in recorder.logged] == [2, 4, 6]
    fixed = Network()
    losses = [float(fixed(X[k], Y[k], torch.tensor(k))["loss"].detach()) for k in network.read[:12]]
    for j, (_, loss) in enumerate(recorder.logged):
        assert loss == pytest.approx(sum(losses[4 * j : 4 * j + 4]) / 4, abs=1e-4)


@pytest.mark.parametrize("at", [4, 7, 11, 14])
def test_from_a_checkpoint_it_goes_on_to_the_bit(tmp_path: Path, at: int) -> None:
    """In the middle of a pass, at its end, and once the batch has grown."""
    whole, _, steps, _ = trained(tmp_path / "whole", Planned(PLAN), save_strategy="steps", save_steps=1)
    checkpoint = tmp_path / "whole" / f"checkpoint-{at}"
    assert checkpoint.is_dir()
    again, _, more, grows = trained(tmp_path / "again", Planned(PLAN), resume=str(checkpoint))
    assert grows is not None
    assert more.steps[-1][1] == steps.steps[-1][1]
    assert [rate for _, rate in more.steps] == [rate for _, rate in steps.steps][-len(more.steps) :]
    assert again.read == whole.read[-len(again.read) :]
    assert grows.windows.examples == 39 * 4
    assert same(whole, again)


def test_gradients_and_losses_are_told(tmp_path: Path) -> None:
    limits = Limits(8, 40, most_change=2)
    _, _, _, by_gradients = trained(tmp_path, NormTest(theta=0.2, limits=limits))
    _, _, _, by_loss = trained(tmp_path, AdaDamp(limits=limits), num_train_epochs=6)
    for grows in (by_gradients, by_loss):
        assert grows is not None
        assert grows.windows.chosen > 8
        assert grows.windows.steps < 21 * (2 if grows is by_loss else 1)


def test_it_is_said_what_is_missing(tmp_path: Path) -> None:
    from rightbatch.controllers import Goodput

    with pytest.raises(InputError, match="alpha_seconds= and beta_seconds="):
        trained(tmp_path, Goodput())


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "growing.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "rightbatch.trainers.transformers" in block)
    monkeypatch.chdir(tmp_path)
    block = block.replace("epochs=20", "epochs=2")
    names: dict[str, Any] = {"__name__": "growing"}
    exec(compile(block, str(page), "exec"), names)
