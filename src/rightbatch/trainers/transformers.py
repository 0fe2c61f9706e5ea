"""A batch that changes while training, in the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from rightbatch.controllers.contract import Controller
from rightbatch.errors import InputError, MissingExtra
from rightbatch.steering import monitor_for
from rightbatch.trainers.windows import Windows

try:
    from transformers import TrainerCallback
    from transformers.trainer_callback import DefaultFlowCallback, ExportableState
except ModuleNotFoundError as error:
    raise MissingExtra("transformers, which rightbatch.trainers.transformers needs,", "transformers") from error


class AdaptiveBatch(TrainerCallback, ExportableState):  # type: ignore[misc]  # its package may be missing
    """Has a Trainer accumulate as many micro-batches as a controller's batch has.

        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.add_callback(AdaptiveBatch(trainer, NormTest()))

    The first step has `gradient_accumulation_steps` of them, and every later one a multiple of that. What the Trainer
    counts as a step stays the first batch: a step of a batch four times as large is four of its `global_step`. So
    schedules of the rate, warm-up, `max_steps`, passes, `logging_steps`, `eval_steps` and `save_steps` are where they
    would be, in examples; and from a checkpoint training goes on with the data that comes next. Controllers
    are told the loss where it is logged.

    Parameters
    ----------
    trainer: Whose `add_callback` it is given to.
    controller: One of `rightbatch.controllers`.
    overhead: As of `rightbatch.NoiseScale`.
    alpha_seconds, beta_seconds: As of `rightbatch.AdaptiveBatchSampler`.

    Raises
    ------
    InputError: When training begins, for DeepSpeed or a controller that needs what is not given.
    """

    def __init__(
        self,
        trainer: Any,
        controller: Controller,
        *,
        overhead: float = 0.02,
        alpha_seconds: float | None = None,
        beta_seconds: float | None = None,
    ) -> None:
        self._trainer, self._controller, self._overhead = trainer, controller, overhead
        self._law = {"alpha_seconds": alpha_seconds, "beta_seconds": beta_seconds}
        self._windows: Windows | None = None
        self._monitor: Any = None
        self._done = 0  # micro-batches of this pass

    @property
    def windows(self) -> Windows:
        """What is in force, and what was counted: `micro_batches`, `examples`, `steps`."""
        if self._windows is None:
            raise InputError("The training has not begun.")
        return self._windows

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._trainer.is_deepspeed_enabled:
            raise InputError("DeepSpeed accumulates by itself, always alike: train without it for a batch that grows.")
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])  # not accelerate's own around it
        scaler, self._unit, self._accumulated = self._trainer.accelerator.scaler, args.gradient_accumulation_steps, 0
        self._monitor = monitor_for(self._controller, kwargs["model"], optimizer, self._overhead, scaler)
        stored = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes") if state.global_step else None
        if stored and self._monitor is not None:
            self._monitor.load_state_dict(stored["monitor"])
        self._windows = Windows(
            self._controller,
            optimizer,
            self._unit,
            args.train_batch_size * args.world_size,
            state=stored["windows"] if stored else None,
            schedule=kwargs["lr_scheduler"],
            monitor=self._monitor,
            **self._law,
        )
        self._done = stored["done"] if stored else 0
        args.gradient_accumulation_steps = self._windows.micro_batches

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._loss_before = self._trainer._tr_loss.clone()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._accumulated += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        made, self._accumulated = self._accumulated + 1, 0
        self._done = 0 if state.epoch == int(state.epoch) else self._done + made
        loss = self._trainer._tr_loss - self._loss_before
        for _ in range(self.windows.made(made, self._done)):  # as if each had been a step of the first size
            kwargs["lr_scheduler"].step()
            state.global_step += 1
            self._trainer._tr_loss += loss
            control = DefaultFlowCallback().on_step_end(args, state, control)
        args.gradient_accumulation_steps = self.windows.micro_batches
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_epoch_stop:  # before all of the pass was read
            self._done = 0
            self.windows.align(0)
            args.gradient_accumulation_steps = self.windows.micro_batches

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs and self._windows is not None:
            self._windows.saw(float(logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.gradient_accumulation_steps = self._unit
        if self._monitor is not None:
            self._monitor.close()

    def state(self) -> dict[str, Any]:
        """For checkpoints of the Trainer."""
        if self._windows is None:
            return {"args": {}, "attributes": {}}
        monitor = {} if self._monitor is None else self._monitor.state_dict()
        found = {"windows": self._windows.state_dict(), "monitor": monitor, "done": self._done}
        return {"args": {}, "attributes": found}
