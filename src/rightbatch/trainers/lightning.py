"""A batch that changes while training, in a Trainer of Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rightbatch.controllers.contract import Controller
from rightbatch.errors import InputError, MissingExtra
from rightbatch.steering import monitor_for, processes
from rightbatch.trainers.windows import Windows

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    raise MissingExtra("Lightning, which rightbatch.trainers.lightning needs,", "lightning") from error


class AdaptiveBatch(Callback):  # type: ignore[misc]  # its package may be missing
    """Has a Trainer accumulate as many batches of its loader as a controller's batch has.

        grows = AdaptiveBatch(NormTest(), micro_batch_size=32)
        lightning.Trainer(max_epochs=10, accumulate_grad_batches=4, callbacks=[grows]).fit(module, loader)

    The first step has `accumulate_grad_batches` of them, and every later one a multiple of that. Passes, validation and
    checkpoints stay where they are; schedulers of the rate that are stepped by the step are stepped once for each first
    batch, so that they see the examples that they would have seen. Training goes on from a checkpoint with the batch
    that it had. Lightning's own `max_steps` counts steps of the optimizer, which become fewer: give `max_epochs`. A
    step that the end of a pass cuts short is divided by the number of a whole one, as Lightning does it.

    Parameters
    ----------
    controller: One of `rightbatch.controllers`. The loss that it is told is that of `training_step`.
    micro_batch_size: Of the loader, in each process. The last one of a pass counts as if it were whole.
    watch: From the module, the part of it that is called once for each batch: of controllers that look at gradients.
    overhead: As of `rightbatch.NoiseScale`.
    alpha_seconds, beta_seconds: As of `rightbatch.AdaptiveBatchSampler`.

    Raises
    ------
    InputError: When training starts, for manual optimization, several optimizers or a strategy that accumulates by
        itself, or for a controller that needs what is not given.
    """

    def __init__(
        self,
        controller: Controller,
        micro_batch_size: int,
        *,
        watch: Callable[[Any], torch.nn.Module] = lambda module: module,
        overhead: float = 0.02,
        alpha_seconds: float | None = None,
        beta_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self._controller, self._micro_batch_size, self._watch = controller, micro_batch_size, watch
        self._overhead, self._law = overhead, {"alpha_seconds": alpha_seconds, "beta_seconds": beta_seconds}
        self._windows: Windows | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def windows(self) -> Windows:
        """What is in force, and what was counted: `micro_batches`, `examples`, `steps`."""
        if self._windows is None:
            raise InputError("The training has not begun.")
        return self._windows

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
            raise InputError("The batch grows where Lightning steps one optimizer by itself: automatic_optimization.")
        if trainer.strategy.handles_gradient_accumulation:
            raise InputError(f"{type(trainer.strategy).__name__} accumulates by itself, always alike.")
        self._unit, self._accumulated, self._steps = trainer.accumulate_grad_batches, 0, trainer.global_step
        optimizer, scaler = trainer.optimizers[0], getattr(trainer.precision_plugin, "scaler", None)
        model = self._watch(pl_module)
        self._monitor = monitor_for(self._controller, model, optimizer, self._overhead, scaler)
        configs = trainer.lr_scheduler_configs
        loaded = self._loaded
        if loaded is not None and self._monitor is not None:
            self._monitor.load_state_dict(loaded["monitor"])
        self._windows = Windows(
            self._controller,
            optimizer,
            self._unit,
            self._micro_batch_size * processes(),
            state=loaded and loaded["windows"],
            schedule=configs[0].scheduler if configs else None,
            monitor=self._monitor,
            **self._law,
        )
        trainer.accumulate_grad_batches = self._windows.micro_batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._accumulated += 1
        if outputs is not None:
            self.windows.saw(outputs["loss"] * trainer.accumulate_grad_batches)
        if trainer.global_step == self._steps:
            return
        more = self.windows.made(self._accumulated, batch_idx + 1)
        self._accumulated, self._steps = 0, trainer.global_step
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and not config.reduce_on_plateau:
                for _ in range(more):
                    pl_module.lr_scheduler_step(config.scheduler, None)
        trainer.accumulate_grad_batches = self.windows.micro_batches

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.windows.align(0)
        trainer.accumulate_grad_batches = self.windows.micro_batches

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.accumulate_grad_batches = self._unit
        if self._monitor is not None:
            self._monitor.close()

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints of Lightning."""
        if self._windows is None:
            return {}
        monitor = {} if self._monitor is None else self._monitor.state_dict()
        return {"windows": self._windows.state_dict(), "monitor": monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict or None
