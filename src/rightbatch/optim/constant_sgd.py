"""Constant SGD as a sampler of the posterior, with the rate that its noise asks for (Mandt, Hoffman and Blei 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.fit.iterates import IterateTests, iterate_tests
from rightbatch.gradients.hessian import shaped
from rightbatch.optim.noise import RunningCovariance
from rightbatch.optim.samples import Prediction, predicted

Preconditioner = Literal["none", "diagonal", "full"]
Phase = Literal["estimating", "burning in", "sampling"]


TIMES_SIZE = 10
"""Steps for each parameter that a full covariance is estimated from: its inverse is then about a tenth too large."""


class ConstantSGDSampler(torch.optim.Optimizer):
    """Draws samples of the posterior by SGD at a constant rate, from a model that was trained to its optimum.

        sampler = ConstantSGDSampler(model.parameters(), examples=len(data), batch_size=32)
        for batch in batches_drawn_with_replacement:  # sampler.steps_for(100) of them
            sampler.zero_grad()
            loss(model, batch).mean().backward()
            sampler.step()
        sampler.predict(lambda: model(x)).deviation

    For `estimate_steps` steps the weights stay where they are and the covariance of the gradients of the batches is
    estimated. Then rate or preconditioner are set to what brings the iterates nearest to the posterior (equations 15 to
    17 of the paper), the iterates burn in, and every `thin_steps` steps one is kept. Loss: the mean over the batch of
    -log p(x_n | theta); the prior is `weight_decay`, or in the loss. The theory wants batches drawn with replacement:
    without it the noise of a pass adds up to nothing, and flat directions are disturbed less.

    Parameters
    ----------
    params: As of any optimizer. Groups may have a `momentum` and `weight_decay` of their own.
    examples: N, of the data that the batches are drawn from.
    batch_size: S.
    preconditioner: "none": one rate for all. "diagonal": one for each parameter. "full": a matrix for each group, of
        up to a few thousand parameters.
    momentum: As in `torch.optim.SGD`; the rate is 1 - momentum of what it is without.
    weight_decay: Added to the gradient, times the weights: the precision of a normal prior over N.
    estimate_steps, burn_in_steps, thin_steps: None: a pass, N / S steps; for a full covariance at least ten steps for
        each parameter.
    max_lr: No rate is set above this, and no eigenvalue of a preconditioner: where noise asks for a rate that the
        curvature does not bear. The posterior is then sampled too narrow; `temperature` says by how much.

    Raises
    ------
    InputError: For a number that cannot be, or a preconditioner that is none of the three.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        examples: int,
        batch_size: int,
        preconditioner: Preconditioner = "none",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        estimate_steps: int | None = None,
        burn_in_steps: int | None = None,
        thin_steps: int | None = None,
        max_lr: float = math.inf,
    ) -> None:
        if not 1 <= batch_size <= examples:
            raise InputError(f"The batch size is from 1 to the examples, {examples:,}; got {batch_size}.")
        if preconditioner not in get_args(Preconditioner):
            raise InputError(f"preconditioner is one of {', '.join(get_args(Preconditioner))}; got {preconditioner!r}.")
        if not max_lr > 0:
            raise InputError(f"max_lr is positive, got {max_lr:g}.")
        a_pass = max(2, round(examples / batch_size))
        steps: dict[str, int | None] = {
            "estimate_steps": estimate_steps,
            "burn_in_steps": burn_in_steps,
            "thin_steps": thin_steps,
        }
        for name, least in (("estimate_steps", 2), ("burn_in_steps", 0), ("thin_steps", 1)):
            if (given := steps[name]) is not None and given < least:
                raise InputError(f"{name} is a whole number of at least {least}, got {given}.")
        super().__init__(
            params,
            {
                "lr": 0.0,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "examples": examples,
                "batch_size": batch_size,
                "preconditioner": preconditioner,
                "max_lr": max_lr,
                "steps": 0,
                **{name: a_pass if given is None else given for name, given in steps.items()},
            },
        )
        if preconditioner == "full":
            self._estimate_for(
                max(sum(p.numel() for p in group["params"]) for group in self.param_groups), estimate_steps
            )
        for group in self.param_groups:
            if not 0 <= group["momentum"] < 1:
                raise InputError(f"Momentum is at least 0 and below 1, got {group['momentum']:g}.")
            if group["weight_decay"] < 0:
                raise InputError(f"Weight decay is at least 0, got {group['weight_decay']:g}.")

    def _estimate_for(self, size: int, given: int | None) -> None:
        """See to it that a covariance matrix of this size is estimated from enough steps to be inverted."""
        if given is not None and given <= size:
            raise InputError(
                f"A full preconditioner of {size:,} parameters needs more than {size:,} steps to estimate their noise "
                f"(ten times as many are good), got estimate_steps={given:,}. Take more, or another preconditioner."
            )
        if given is None:
            for group in self.param_groups:
                group["estimate_steps"] = max(group["estimate_steps"], TIMES_SIZE * size)

    # ------------------------------------------------------------------------------------------------------- steps

    @property
    def phase(self) -> Phase:
        """What the next step is for."""
        group = self.param_groups[0]
        if group["steps"] < group["estimate_steps"]:
            return "estimating"
        return "burning in" if group["steps"] < group["estimate_steps"] + group["burn_in_steps"] else "sampling"

    def steps_for(self, samples: int) -> int:
        """How many steps it takes from the first one to so many samples."""
        group = self.param_groups[0]
        return int(group["estimate_steps"] + group["burn_in_steps"] + samples * group["thin_steps"])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Go on by one step, whatever the phase; returns the closure's loss, where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        phase = self.phase
        for group in self.param_groups:
            if phase == "estimating":
                self._noise(group).add(_flat(_gradients(group)))
            else:
                self._move(group)
            group["steps"] += 1
        if phase == "estimating" and self.phase != "estimating":
            self._set_rates()
        if phase == "sampling":
            self._keep()
        return loss

    def _noise(self, group: dict[str, Any]) -> RunningCovariance:
        state = self.state[group["params"][0]]
        return RunningCovariance(state, full=group["preconditioner"] == "full")

    def _move(self, group: dict[str, Any]) -> None:
        velocities = []
        for parameter, gradient in zip(group["params"], _gradients(group), strict=True):
            if group["momentum"]:
                state = self.state[parameter]
                velocity = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                velocities.append(velocity.mul_(group["momentum"]).add_(gradient))
            else:
                velocities.append(gradient)
        scale = self.state[group["params"][0]].get("preconditioner")
        if scale is None:
            for parameter, velocity in zip(group["params"], velocities, strict=True):
                parameter.sub_(velocity, alpha=group["lr"])
            return
        flat = _flat(velocities)
        along = scale @ flat if scale.ndim == 2 else scale * flat
        for parameter, part in zip(group["params"], shaped(along, group["params"]), strict=True):
            parameter.sub_(part, alpha=group["lr"])

    # ------------------------------------------------------------------------------------------------------- rates

    def _set_rates(self) -> None:
        """Equations 15, 17 and the diagonal one: from the covariance of a batch's gradient, C / S."""
        noise_trace = sum(float(self._noise(group).diagonal().sum()) for group in self.param_groups)
        size = sum(parameter.numel() for group in self.param_groups for parameter in group["params"])
        for group in self.param_groups:
            calm = 1 - group["momentum"]
            if group["preconditioner"] == "none":
                wished = calm * 2 * size / (group["examples"] * noise_trace) if noise_trace > 0 else 0.0
                group["lr"] = min(wished, group["max_lr"])
                continue
            group["lr"] = calm
            state, noise = self.state[group["params"][0]], self._noise(group)
            limit = group["max_lr"] / calm
            if group["preconditioner"] == "diagonal":
                state["preconditioner"] = _inverse(noise.diagonal(), group["examples"], limit, least=0.0)
            else:
                values, vectors = torch.linalg.eigh(noise.matrix())
                rounding = len(values) * torch.finfo(values.dtype).eps * float(values[-1])
                inverse = _inverse(values, group["examples"], limit, least=rounding)
                state["preconditioner"] = vectors @ (inverse[:, None] * vectors.T)

    @property
    def temperature(self) -> float:
        """The energy of the iterates over the posterior's, by the noise as estimated: 1 but where `max_lr` cut in.

        It follows `lr`, where a schedule changes it. Raises `InputError` before the noise is estimated.
        """
        if self.phase == "estimating":
            group = self.param_groups[0]
            raise InputError(f"The noise is not estimated yet: step {group['steps']} of {group['estimate_steps']}.")
        energy, size = 0.0, 0
        for group in self.param_groups:
            noise, scale = self._noise(group), self.state[group["params"][0]].get("preconditioner")
            if scale is None:
                product = float(noise.diagonal().sum())
            else:
                product = float((scale * (noise.matrix() if scale.ndim == 2 else noise.diagonal())).sum())
            energy += group["examples"] * group["lr"] / (1 - group["momentum"]) * product / 2
            size += sum(parameter.numel() for parameter in group["params"])
        return energy / size

    # ----------------------------------------------------------------------------------------------------- samples

    def _keep(self) -> None:
        for group in self.param_groups:
            taken = group["steps"] - group["estimate_steps"] - group["burn_in_steps"]
            if taken % group["thin_steps"]:
                continue
            for parameter in group["params"]:
                self.state[parameter].setdefault("samples", []).append(parameter.detach().clone())

    @property
    def samples(self) -> Tensor:
        """All that were kept, `[k, d]`: parameters in the order of the groups."""
        columns = [
            torch.stack([sample.flatten() for sample in self.state[parameter].get("samples", [])])
            if self.state[parameter].get("samples")
            else parameter.new_zeros((0, parameter.numel()))
            for parameter in self._parameters()
        ]
        return torch.cat(columns, dim=1)

    def tests(self) -> IterateTests:
        """Whether the samples bear out what makes them samples. Raises `InputError` for fewer than 8."""
        return iterate_tests(self.samples.double().cpu().numpy())

    def predict(self, function: Callable[[], Tensor]) -> Prediction:
        """What a function of the model gives with each sample as its weights; they are put back afterwards.

        Raises `InputError` where there is no sample yet.
        """
        return predicted(list(self._parameters()), self.samples, function)

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]


def _gradients(group: dict[str, Any]) -> list[Tensor]:
    """Of each parameter, with weight decay; zeros where there is none."""
    return [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()).add_(
            parameter, alpha=group["weight_decay"]
        )
        for parameter in group["params"]
    ]


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])


def _inverse(variances: Tensor, examples: int, limit: float, *, least: float) -> Tensor:
    """2 / (N c) for the variances c of a batch's gradient, at most `limit`; 0 where they are not above `least`."""
    noisy = variances > least
    wished = 2 / (examples * torch.where(noisy, variances, torch.ones_like(variances)))
    return torch.where(noisy, wished.clamp(max=limit), torch.zeros_like(wished))
