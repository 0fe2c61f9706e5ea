"""A batch that grows in the Trainer of Lightning: as a loop by hand, at the rates it should have, gone on with."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import lightning
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.controllers import AdaDamp, Goodput, Limits, NormTest, Planned
from rightbatch.errors import InputError
from rightbatch.trainers.lightning import AdaptiveBatch

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:The dirpath has changed",
)

X = torch.randn(52, 6, generator=torch.Generator().manual_seed(2))
Y = (X[:, :2].sum(1) > 0).long()
PLAN = "16@40, 32@80*2"
"""Of micro-batches of 4, two in the first step: 8 until 40 examples, then 16, then 32; a pass has 13."""


class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        self.read: list[list[int]] = []
        self.steps: list[tuple[int, float]] = []
        self.divisors: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y, index = batch
        self.read.append(index.tolist())
        return nn.functional.cross_entropy(self.layers(x), y)

    def validation_step(self, batch: Any, number: int) -> None:
        if number == 0:
            self.validated.append(len(self.read))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.steps.append((len(self.read), optimizer.param_groups[0]["lr"]))
        self.divisors.append(self.trainer.accumulate_grad_batches)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, 21)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y, torch.arange(52)), 4)


def trained(
    folder: Path, controller: Any, *, resume: str | None = None, epochs: int = 3, save: bool = False, **how: Any
) -> tuple[Module, Any, AdaptiveBatch | None]:
    module = Module()
    grows = AdaptiveBatch(controller, 4, overhead=math.inf, **how) if controller is not None else None
    callbacks: list[Any] = [] if grows is None else [grows]
    if save:
        callbacks.append(lightning.pytorch.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=2,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=save,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    validation = DataLoader(TensorDataset(X, Y), 52)
    trainer.fit(module, loader(), validation, ckpt_path=resume, **({"weights_only": False} if resume else {}))
    return module, trainer, grows


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_size_that_is_held_is_the_plain_training_to_the_bit(tmp_path: Path) -> None:
    plain, trainer, _ = trained(tmp_path, None)
    held, alike, grows = trained(tmp_path, Planned(""))
    assert same(plain, held)
    assert plain.steps == held.steps
    assert trainer.global_step == alike.global_step == 21
    assert grows is not None
    assert grows.windows.steps == 21


def test_it_is_a_loop_by_hand_at_the_rates_that_examples_say(tmp_path: Path) -> None:
    module, trainer, grows = trained(tmp_path, Planned(PLAN))
    assert grows is not None
    sizes = [end - begin for begin, end in pairwise([0, *(passed for passed, _ in module.steps)])]
    # 13 micro-batches a pass. Four are wanted from the tenth on, and divide twelve; eight from the twentieth on.
    assert sizes == [2, 2, 2, 2, 2, 2, 1, 4, 4, 5, 8, 5]
    assert (sum(sizes), trainer.global_step, trainer.accumulate_grad_batches) == (39, 12, 2)
    assert module.validated == [13, 26, 39]
    assert module.divisors == [2, 2, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8]
    by_hand = Module()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9)
    at = unit = 0
    for size, divisor, (_, rate) in zip(sizes, module.divisors, module.steps, strict=True):
        cosine = 0.5 * (1 + math.cos(math.pi * unit / 21))
        assert rate == pytest.approx(0.05 * cosine * (2 if at >= 20 else 1))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        for chosen in module.read[at : at + size]:
            # Lightning divides by the number of a whole step, in one that the end of a pass cuts short too.
            (nn.functional.cross_entropy(by_hand.layers(X[chosen]), Y[chosen]) / divisor).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
        at, unit = at + size, unit + math.ceil(size / 2)
    for one, other in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("epoch", [0, 1])
def test_from_a_checkpoint_it_goes_on_to_the_bit(tmp_path: Path, epoch: int) -> None:
    whole, _, _ = trained(tmp_path / "whole", Planned(PLAN), save=True)
    checkpoint = tmp_path / "whole" / f"epoch={epoch}.ckpt"
    again, _, grows = trained(tmp_path / "again", Planned(PLAN), save=True, resume=str(checkpoint))
    assert grows is not None
    assert (grows.windows.examples, grows.windows.steps) == (39 * 4, 12)
    assert [rate for _, rate in again.steps] == [rate for _, rate in whole.steps][-len(again.steps) :]
    assert len(again.read) == 13 * (2 - epoch)
    assert same(whole, again)


def test_gradients_and_losses_are_told(tmp_path: Path) -> None:
    limits = Limits(8, 40, most_change=2)
    watch = {"watch": lambda module: module.layers}
    _, _, by_gradients = trained(tmp_path, NormTest(theta=0.2, limits=limits), **watch)
    _, _, by_loss = trained(tmp_path, AdaDamp(limits=limits), epochs=6)
    for grows in (by_gradients, by_loss):
        assert grows is not None
        assert grows.windows.chosen > 8
        assert grows.windows.steps < 21 * (2 if grows is by_loss else 1)
    monitor = by_gradients._monitor  # type: ignore[union-attr]
    assert monitor.samples[0].batch_size == 8
    assert monitor.samples[-1].batch_size > 8


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="alpha_seconds= and beta_seconds="):
        trained(tmp_path, Goodput(), watch=lambda module: module.layers)
    with pytest.raises(InputError, match="not begun"):
        _ = AdaptiveBatch(Planned(""), 4).windows


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "growing.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "rightbatch.trainers.lightning" in block)
    monkeypatch.chdir(tmp_path)
    block = block.replace("epochs=20", "epochs=2")
    names: dict[str, Any] = {"__name__": "growing"}
    exec(compile(block, str(page), "exec"), names)
    assert names["grows"].windows.examples > 1000
