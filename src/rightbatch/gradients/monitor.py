"""The gradient noise scale of any training loop, watched in two lines."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch.closures import tells_when_first_done
from rightbatch.errors import InputError
from rightbatch.fit.noise import FEWEST_SAMPLES, NoiseEstimate, noise_scale
from rightbatch.gradients.metrics import PRECONDITIONERS, metric_of, preconditions
from rightbatch.gradients.replicas import Replicas
from rightbatch.gradients.rhythm import Rhythm
from rightbatch.gradients.sampling import Sampled, Sampling
from rightbatch.losses import examples_in
from rightbatch.records import GradientSample

FIELDS = [field.name for field in fields(GradientSample)]
PLAIN, PRECONDITIONED, ALONG, LAYER = "plain", "preconditioned", "along", "layer "


class NoiseScale:
    """Watches the gradient noise of a training loop, at a stated share of its time.

        monitor = NoiseScale(model, optimizer)
        ...                                      # train as ever
        print(monitor.estimate().scale)

    A step is sampled every now and then, so often that `overhead` is held. The parts of its batch are the examples: by
    the rules of `gradients.layers`, or, for other modules with parameters, by running the module again for some of
    them (`gradients.rerun`). Where examples have no gradients of their own (batch normalisation), they are the
    micro-batches of a loop that accumulates several backward passes for one step. A parameter that neither covers is
    named in `uncovered`, and left out of both terms. Gradients are seen when backward has made them: before clipping.
    Of a step with a closure, which may be evaluated several times, they are those of the first evaluation.
    Training goes on as without the monitor, to the bit where nothing is compiled.

    With `DistributedDataParallel` over several processes the parts are the replicas, at every step, seen by a
    communication hook: two squared norms and one number more to communicate, in the plain metric, for the whole model.
    All processes have the same samples, and close their monitors at the same step.

    Parameters
    ----------
    model: The module that is called once for each backward pass, with the examples of the batch along the first
        dimension of its inputs.
    optimizer: Its steps count, and its learning rate is kept with every sample. Of Adam and the like
        (`gradients.metrics`) the noise scale in their own metric is had beside the plain one.
    overhead: Share of training time that sampling may add, measured as it goes; `math.inf`: every step is sampled.
    scaler: The `torch.amp.GradScaler` of the loop, if there is one.
    per_layer: Whether `layers` is asked for.
    inner_products: Whether the noise along the gradient is sampled too (`gradients.inner_products`), as
        `controllers.InnerProductTest` needs it. A sampled step then takes about two plain ones longer, within the same
        share of the time. It is had where all layers have a rule and a pass has six examples or more.

    Raises
    ------
    InputError: For a share that is not positive, or a communication hook beside another one. A loop that cannot be
        watched is not disturbed: it is warned of.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        overhead: float = 0.02,
        scaler: torch.amp.GradScaler | None = None,
        per_layer: bool = False,
        inner_products: bool = False,
    ) -> None:
        if not overhead > 0:
            raise InputError(f"The overhead is a positive share of the training time, as 0.02, got {overhead}.")
        self.step = 0
        self.uncovered: Mapping[str, str] = {}
        self._series: dict[str, list[GradientSample]] = {PLAIN: []}
        self._model, self._optimizer, self._scaler, self._per_layer = model, optimizer, scaler, per_layer
        self.inner_products, self._told_of_products = inner_products, False
        self._rhythm = Rhythm(overhead)
        self._watch = Sampling(model, every_step=math.isinf(overhead), inner_products=inner_products)
        for asked, what in ((per_layer, "per_layer"), (inner_products, "inner_products")):
            if asked and Replicas.there_are(model):
                raise InputError(f"The replicas of a model are compared as a whole: leave {what}=True out.")
        self._replicas = Replicas.of(model)
        self._sampling: Sampling | None = None
        self._began: float | None = None
        self._sampled = False
        self._in_closure = False
        self._seen = False  # what there is to be seen of this step: its closure may be evaluated again
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @property
    def samples(self) -> list[GradientSample]:
        """The samples so far, in the plain metric: for `rightbatch.fit.noise`, or `Study.add_gradient_samples`."""
        return self._series[PLAIN]

    def samples_after(self, step: int) -> list[GradientSample]:
        """Those of later steps, by step, in the plain metric and, with `inner_products`, along the gradient."""
        found = [
            sample
            for metric in (PLAIN, ALONG)
            for sample in itertools.takewhile(lambda s: s.step > step, reversed(self._series.get(metric, [])))
        ]
        return sorted(found, key=lambda sample: sample.step)

    @property
    def share(self) -> float:
        """What sampling has added to the time of the steps so far, as a share of it."""
        return self._rhythm.share

    def estimate(self, *, last: int | None = None, level: float = 0.95, preconditioned: bool = False) -> NoiseEstimate:
        """The noise scale over all samples, or the `last` ones.

        `preconditioned`: in the metric of the optimizer, tr(P Sigma) / G^T P G, where it has one that is known.

        Raises `InputError` while there are fewer than 4 samples, or for an optimizer without such a metric.
        """
        if preconditioned and self._replicas is not None:
            raise InputError("The replicas of a model are compared in the plain metric: leave preconditioned=True out.")
        if preconditioned and not preconditions(self._optimizer):
            known = ", ".join(sorted(kind.__name__ for kind in PRECONDITIONERS))
            raise InputError(
                f"The metric of {type(self._optimizer).__name__} is not known: preconditioned=True is for {known}. "
                f"For plain SGD both noise scales are the same."
            )
        return self._estimate(PRECONDITIONED if preconditioned else PLAIN, last, level)

    def layers(self, *, last: int | None = None, level: float = 0.95) -> dict[str, NoiseEstimate]:
        """The noise scale of every module with parameters of its own, by its name in the model.

        Raises `InputError` without `per_layer=True`, and while there are fewer than 4 samples.
        """
        if not self._per_layer:
            raise InputError("Layers were not watched. Make the monitor with NoiseScale(..., per_layer=True).")
        self._estimate(PLAIN, last, level)
        names = [name for name in self._series if name.startswith(LAYER)]
        return {name.removeprefix(LAYER): self._estimate(name, last, level) for name in names}

    def weigh(self, weights: Tensor) -> None:
        """Say how much each example of this batch counts in its mean loss, as the number of its tokens.

        To be called once between the forward pass and the step, where examples do not count alike. Shape [examples].
        """
        if self._sampling is not None:
            self._sampling.weigh(weights)

    def write(self, writer: Any, *, last: int = 100, tag: str = "noise_scale") -> None:
        """Add the noise scale over the `last` samples, its bounds and its terms to a TensorBoard `SummaryWriter`.

        Any object with its `add_scalar(tag, value, step)` will do. Nothing is added where there are too few samples;
        bounds that are infinite are left out.
        """
        for name, of_series in self._series.items():
            if len(of_series) < FEWEST_SAMPLES:
                continue
            found = self._estimate(name, last, 0.95)
            values = {
                "estimate": found.scale.estimate,
                "low": found.scale.low,
                "high": found.scale.high,
                "gradient_squared": found.gradient_squared.estimate,
                "noise_trace": found.noise_trace.estimate,
            }
            for key, value in values.items():
                if value is not None and math.isfinite(value):
                    writer.add_scalar(f"{tag}/{name.replace(LAYER, '')}/{key}", value, self.step)

    def close(self) -> None:
        """Take all hooks away; the samples stay. Allowed more than once."""
        self._sampling = None
        self._watch.close()
        if self._replicas is not None:
            self._replicas.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> NoiseScale:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should hold, so that a resumed training goes on with the same samples."""
        series = {
            name: [[getattr(s, field) for field in FIELDS] for s in found] for name, found in self._series.items()
        }
        return {"step": self.step, "series": series}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.step = int(state["step"])
        self._series = {name: [GradientSample(*row) for row in rows] for name, rows in state["series"].items()}

    # -------------------------------------------------------------------------------------------------- the hooks

    def _before_forward(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self._seen or not (module.training and torch.is_grad_enabled()):
            return
        if self._began is not None and self._left_out():
            self._drop()
        if self._began is None:
            self._began = time.perf_counter()
            if self._replicas is None and self._rhythm.due():
                self._sampling = self._watch
                self._sampling.begin(self._scale(), metric_of(self._optimizer))
        if self._replicas is not None:
            self._replicas.forward(examples_in([*args, *kwargs.values()]))
        if self._sampling is not None:
            fault = self._sampling.forward(examples_in([*args, *kwargs.values()]))
            if fault:
                self._give_up(fault)

    def _before_step(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._see()
            return None
        # What came before the step is not what it goes by, but for backward passes whose gradients are added to.
        self._in_closure = True
        if self._replicas is not None or (self._sampling is not None and not self._sampling.added):
            self._drop()
        kwargs = {**kwargs, "closure": tells_when_first_done(closure, self._see)}
        return args[:1], kwargs

    def _see(self) -> None:
        """The gradients of this step are there."""
        self._seen = True
        sampling, self._sampling = self._sampling, None
        found: Sampled | str | None = None
        if self._replicas is not None:
            found = self._replicas.result(self._scale())
        elif sampling is not None:
            try:
                found = sampling.result()
            except InputError as error:  # of a step that backward went through twice
                found = str(error)
            finally:
                sampling.end()
        if isinstance(found, str):
            self._give_up(found)
        elif found is not None:
            self._keep(found)

    def _keep(self, found: Sampled) -> None:
        series: dict[str, list[tuple[float, float]]] = {PLAIN: []}
        for name, of_metrics in found.by_parameter.items():
            series[PLAIN].append(of_metrics[0])
            if len(of_metrics) > 1:
                series.setdefault(PRECONDITIONED, []).append(of_metrics[1])
            if self._per_layer:
                series.setdefault(LAYER + name.rpartition(".")[0], []).append(of_metrics[0])
        sums = {name: (sum(b for b, _ in rows), sum(p for _, p in rows)) for name, rows in series.items()}
        if not all(math.isfinite(batch + parts) for batch, parts in sums.values()):
            return
        self.uncovered, self._sampled = found.uncovered, True
        rate = float(self._optimizer.param_groups[0]["lr"])
        for name, (batch, parts) in sums.items():
            metric = PRECONDITIONED if name == PRECONDITIONED else PLAIN
            sample = GradientSample(self.step, found.examples, rate, batch, parts, found.shares, metric)
            self._series.setdefault(name, []).append(sample)
        if self.inner_products:
            self._keep_along(found.along_gradient, found.examples, rate)

    def _keep_along(self, found: tuple[float, float] | str, examples: int, rate: float) -> None:
        """As a sample in the metric G G^T, whose terms (`fit.noise.terms`) are |G|^4 and G^T Sigma G."""
        if isinstance(found, str):
            if not self._told_of_products:
                warnings.warn(f"The noise along the gradient is not had ({found}).", stacklevel=5)
            self._told_of_products = True
        elif math.isfinite(sum(found)):
            fourth, variance = found
            squares = fourth + variance / examples, (fourth + variance) / examples
            sample = GradientSample(self.step, examples, rate, *squares, 1 / examples, ALONG)
            self._series.setdefault(ALONG, []).append(sample)

    def _after_step(self, *_: object) -> None:
        self.step += 1
        if self._began is not None:
            self._rhythm.took(time.perf_counter() - self._began, sampled=self._sampled)
        self._began, self._sampled, self._seen, self._in_closure = None, False, False, False

    def _left_out(self) -> bool:
        """Whether the step that had begun was never made: a scaler leaves out those whose gradients overflow."""
        waits = self._sampling is not None and self._sampling.waits
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return not waits and not (any(g.any() for g in gradients) if self._in_closure else gradients)

    def _estimate(self, series: str, last: int | None, level: float) -> NoiseEstimate:
        samples = self._series.get(series, [])
        if len(samples) < FEWEST_SAMPLES:
            raise InputError(
                f"So far {len(samples)} of {self.step} steps were sampled, and an estimate needs {FEWEST_SAMPLES}. "
                f"Train on, or let sampling take a larger share than overhead={self._rhythm.overhead:g}."
            )
        return noise_scale(samples if last is None else samples[-last:], level=level)

    def _scale(self) -> float:
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def _give_up(self, fault: str) -> None:
        warnings.warn(f"The gradient noise is not watched any more: {fault}", stacklevel=4)
        self.close()

    def _drop(self) -> None:
        self._began = None
        if self._replicas is not None:
            self._replicas.forget()
        if self._sampling is not None:
            self._sampling.end()
            self._sampling = None
