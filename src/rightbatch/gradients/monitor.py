"""The gradient noise scale of any training loop, watched in two lines."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rightbatch.errors import InputError
from rightbatch.fit.noise import FEWEST_SAMPLES, NoiseEstimate, noise_scale
from rightbatch.gradients.passes import Passes
from rightbatch.gradients.per_example import PerExampleNorms
from rightbatch.gradients.rhythm import Rhythm
from rightbatch.losses import examples_in
from rightbatch.records import GradientSample


class NoiseScale:
    """Watches the gradient noise of a training loop, at a stated share of its time.

        monitor = NoiseScale(model, optimizer)
        ...                                      # train as ever
        print(monitor.estimate().scale)

    A step is sampled every now and then, so often that `overhead` is held. The parts of its batch are the examples,
    where every trained parameter belongs to a layer with a rule (`gradients.layers`); else, in a loop that accumulates
    several backward passes for one step, the micro-batches; else the examples still, over the parameters that have a
    rule: `uncovered` then names the others, and both terms leave them out. Gradients are seen when backward has made
    them: before clipping, and before replicas are averaged. Training goes on as without the monitor, to the bit where
    nothing is compiled.

    Parameters
    ----------
    model: The module that is called once for each backward pass, with the examples of the batch along the first
        dimension of its inputs.
    optimizer: Its steps count, and its learning rate is kept with every sample.
    overhead: Share of training time that sampling may add, measured as it goes; `math.inf`: every step is sampled.
    scaler: The `torch.amp.GradScaler` of the loop, if there is one.

    Raises
    ------
    InputError: For a share that is not positive. A loop that cannot be watched is not disturbed: it is warned of.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        overhead: float = 0.02,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if not overhead > 0:
            raise InputError(f"The overhead is a positive share of the training time, as 0.02, got {overhead}.")
        self.samples: list[GradientSample] = []
        self.step = 0
        self.uncovered: Mapping[str, str] = {}
        self._model, self._optimizer, self._scaler = model, optimizer, scaler
        self._rhythm = Rhythm(overhead)
        self._sampling: _Sampling | None = None
        self._began: float | None = None
        self._sampled = False
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @property
    def share(self) -> float:
        """What sampling has added to the time of the steps so far, as a share of it."""
        return self._rhythm.share

    def estimate(self, *, last: int | None = None, level: float = 0.95) -> NoiseEstimate:
        """The noise scale over all samples, or the `last` ones. Raises `InputError` while there are fewer than 4."""
        samples = self.samples if last is None else self.samples[-last:]
        if len(samples) < FEWEST_SAMPLES:
            raise InputError(
                f"So far {len(samples)} of {self.step} steps were sampled, and an estimate needs {FEWEST_SAMPLES}. "
                f"Train on, or let sampling take a larger share than overhead={self._rhythm.overhead:g}."
            )
        return noise_scale(samples, level=level)

    def close(self) -> None:
        """Take all hooks away; the samples stay. Allowed more than once."""
        self._drop()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> NoiseScale:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should hold, so that a resumed training goes on with the same samples."""
        fields = ("step", "batch_size", "learning_rate", "batch_squared", "parts_squared", "shares_squared")
        return {"step": self.step, "samples": [[getattr(sample, name) for name in fields] for sample in self.samples]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.step = int(state["step"])
        self.samples = [GradientSample(*values) for values in state["samples"]]

    # -------------------------------------------------------------------------------------------------- the hooks

    def _before_forward(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        if self._began is not None and self._left_out():
            self._drop()
            self._began = None
        if self._began is None:
            self._began = time.perf_counter()
            if self._rhythm.due():
                self._sampling = _Sampling(module, self._scale())
        if self._sampling is not None:
            fault = self._sampling.forward(examples_in([*args, *kwargs.values()]))
            if fault:
                self._give_up(fault)

    def _before_step(self, *_: object) -> None:
        sampling, self._sampling = self._sampling, None
        if sampling is None:
            return
        try:
            found = sampling.result()
        except InputError as error:  # of a step that backward went through twice
            self._give_up(str(error))
            return
        finally:
            sampling.close()
        if isinstance(found, str):
            self._give_up(found)
            return
        if found is None or not math.isfinite(found.batch_squared + found.parts_squared):
            return
        self.uncovered = found.uncovered
        self.samples.append(
            GradientSample(
                step=self.step,
                batch_size=found.examples,
                learning_rate=float(self._optimizer.param_groups[0]["lr"]),
                batch_squared=found.batch_squared,
                parts_squared=found.parts_squared,
                shares_squared=found.shares_squared,
            )
        )
        self._sampled = True

    def _after_step(self, *_: object) -> None:
        self.step += 1
        if self._began is not None:
            self._rhythm.took(time.perf_counter() - self._began, sampled=self._sampled)
        self._began, self._sampled = None, False

    def _left_out(self) -> bool:
        """Whether the step that had begun was never made: a scaler leaves out those whose gradients overflow."""
        waits = self._sampling is not None and self._sampling.waits
        return not waits and all(p.grad is None for p in self._model.parameters())

    def _scale(self) -> float:
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def _give_up(self, fault: str) -> None:
        warnings.warn(f"The gradient noise is not watched any more: {fault}", stacklevel=4)
        self.close()

    def _drop(self) -> None:
        if self._sampling is not None:
            self._sampling.close()
            self._sampling = None


@dataclass(frozen=True)
class _Found:
    """What one sampled step gave."""

    examples: int
    batch_squared: float
    parts_squared: float
    shares_squared: float
    uncovered: Mapping[str, str]


class _Sampling:
    """One step that is sampled: all its backward passes."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        self._compiled = hasattr(model, "_orig_mod")
        self._model: nn.Module = model._orig_mod if self._compiled else model  # type: ignore[assignment]
        self._scale = scale
        self._passes = Passes(self._model.parameters())
        self._examples: list[int] = []
        self._norms: list[PerExampleNorms] = []
        self._eager = contextlib.ExitStack()
        self._mixes: str | None = None  # why the examples of this model have no gradients of their own

    @property
    def waits(self) -> bool:
        """Whether the last forward pass has not been followed by a backward pass yet."""
        return self._passes.passes < len(self._examples)

    def forward(self, examples: int | None) -> str | None:
        """A forward pass begins, of so many examples; what is wrong with it, if anything."""
        if self.waits:
            return "the model is called more than once for one backward pass, and examples cannot be told apart"
        if examples is None:
            return "no tensor was found among the inputs of the model, so its examples are not known"
        self._passes.begin()
        self._leave()
        self._examples.append(examples)
        if self._compiled:  # compiled code calls no hooks: this makes it eager without compiling anything again
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        if self._mixes is None:
            try:
                self._norms.append(PerExampleNorms(self._model, examples).__enter__())
            except InputError as error:
                self._mixes = str(error)
        return None

    def result(self) -> _Found | str | None:
        """What the step gave, once its last backward pass is done; None if nothing, or why it never will."""
        self._leave()
        passes = self._passes.passes
        if self.waits or not passes:
            return None
        uncovered = self._norms[-1].uncovered if self._norms else {}
        trained = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        if self._mixes is None and (not uncovered or passes == 1):
            covered = [parameter for name, parameter in trained if name not in uncovered]
            parts = torch.stack([norms.squared().double().sum() for norms in self._norms]).sum()
            # The examples of a pass count alike, and so do the passes.
            shares = sum(1 / (passes**2 * examples) for examples in self._examples)
        elif passes > 1:
            covered, uncovered = [parameter for _, parameter in trained], {}
            parts = self._passes.parts_squared(covered)
            shares = 1 / passes
        else:
            return self._mixes
        unscaled = self._scale**2
        batch = float(self._passes.batch_squared(covered)) / unscaled
        return _Found(sum(self._examples), batch, float(parts) / unscaled, shares, uncovered)

    def close(self) -> None:
        """Take all hooks of this step away."""
        self._leave()
        self._passes.close()

    def _leave(self) -> None:
        self._eager.close()
        if self._norms:
            self._norms[-1].__exit__(None, None, None)
