"""EMSO: use a mini-batch harder before it is thrown away (Li et al. 2014; Wang et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.fit.proximal import Schedule
from rightbatch.optim.inner import INNER
from rightbatch.optim.subproblem import Subproblem

Inner = Literal["gradient-descent", "l-bfgs", "coordinate-descent"]
Average = Literal["none", "uniform", "linear"]


class EMSO(torch.optim.Optimizer):
    """Solves a conservative subproblem on each batch: its loss, and gamma_t / 2 |w - w_{t-1}|^2.

        optimizer = EMSO(model.parameters(), lr=0.1, gamma=1.0, inner_steps=5)
        for batch in batches:
            def closure():  # of the same batch, as often as it is called
                optimizer.zero_grad()
                value = loss(model, batch).mean()
                value.backward()
                return value
            optimizer.step(closure)

    With one inner step and gamma 0 it is SGD.

    Parameters
    ----------
    params: As of any optimizer; "l-bfgs" takes one group.
    lr: Of gradient descent on the subproblem; of L-BFGS the first step.
    gamma: The weight of the proximal term, or a function of the step t = 1, 2 ...: see `fit.proximal`. In each group.
    inner_steps: At most so many on a batch.
    inner: "gradient-descent", "l-bfgs" (`torch.optim.LBFGS` with a line search, begun anew on each batch), or for
        generalised linear models "coordinate-descent", whose inner steps are passes (see `LinearBatch`).
    tolerance: The inner solve ends when no entry of the subproblem's gradient is larger: early stopping.
    average: Of the iterates w_1 ... w_t, for `averaged`: "uniform", or "linear" in t, as the theory of strongly convex
        losses has it.
    process_group: Of `torch.distributed`: each process solves on its own batch, then their solutions are averaged, as
        Li et al. do it over machines. Begin with the same weights everywhere (and without DistributedDataParallel,
        which would average every gradient).

    Raises
    ------
    InputError: For a number that cannot be, an unknown name, or L-BFGS with several groups.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        gamma: float | Schedule = 0.0,
        inner_steps: int = 5,
        inner: Inner = "gradient-descent",
        tolerance: float = 0.0,
        average: Average = "none",
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if not lr > 0:
            raise InputError(f"The rate is positive, got {lr:g}.")
        if inner_steps < 1:
            raise InputError(f"There is at least 1 inner step, got {inner_steps}.")
        if not tolerance >= 0:
            raise InputError(f"The tolerance is at least 0, got {tolerance:g}.")
        for name, value, known in (("inner", inner, INNER), ("average", average, get_args(Average))):
            if value not in known:
                raise InputError(f"{name} is one of {', '.join(known)}; got {value!r}.")
        self.schedule = gamma if callable(gamma) else None
        """Of gamma; None where it stays as it is in the groups."""
        self.process_group = process_group
        defaults = {"lr": lr, "inner_steps": inner_steps, "tolerance": tolerance, "average": average, "inner": inner}
        start = 0.0 if callable(gamma) else gamma
        super().__init__(params, {**defaults, "gamma": start, "steps": 0, "evaluations": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of any optimizer. Raises `InputError` for a second group with L-BFGS, or a gamma that cannot be."""
        super().add_param_group(param_group)
        gamma, inner = self.param_groups[-1]["gamma"], self.param_groups[-1]["inner"]
        if not (math.isfinite(gamma) and gamma >= 0):
            raise InputError(f"gamma is at least 0, got {gamma:g}.")
        if inner == "l-bfgs" and len(self.param_groups) > 1:
            raise InputError(f"L-BFGS takes one group of parameters, got {len(self.param_groups)}.")

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps groups and state alone: a copy would have forgotten what else it is.
        return {**super().__getstate__(), "schedule": self.schedule, "process_group": self.process_group}

    @property
    def evaluations(self) -> int:
        """Gradients of a batch that were computed so far: what the inner solves cost."""
        return int(self.param_groups[0]["evaluations"])

    def step(self, closure: Callable[[], Any]) -> Tensor:  # type: ignore[override]
        """Solve the subproblem of a batch; the loss of the batch as it was before.

        `closure` computes the gradients of the batch anew as often as it is called; coordinate descent takes a
        `LinearBatch`.
        """
        return self.step_of_workers([closure])

    def step_of_workers(self, closures: Sequence[Callable[[], Any]]) -> Tensor:
        """As many workers, each on a batch of its own, solve their subproblems apart; their solutions are averaged.

        One round of communication for all inner steps. Here one after another; with a `process_group` in every process
        as many as this. The mean of the first losses in this process. Raises `InputError` where there is no batch.
        """
        if not closures:
            raise InputError("At least one worker has to have a batch, got none.")
        if self.schedule is not None:
            for group in self.param_groups:
                group["gamma"] = self.schedule(group["steps"] + 1)
        parameters = [p for group in self.param_groups for p in group["params"]]
        sums, losses = [torch.zeros_like(p) for p in parameters], []
        for closure in closures:
            subproblem = Subproblem(self.param_groups, closure)
            losses.append(INNER[self.param_groups[0]["inner"]](subproblem))
            self.param_groups[0]["evaluations"] += subproblem.evaluations
            if len(closures) > 1:
                for own, parameter in zip(sums, parameters, strict=True):
                    own.add_(parameter.detach(), alpha=1 / len(closures))
                self._place(parameters, subproblem.start)
        if len(closures) > 1:
            self._place(parameters, sums)
        if self.process_group is not None:
            self._average_over_processes(parameters)
        for group in self.param_groups:
            group["steps"] += 1
        if self.param_groups[0]["average"] != "none":
            self._count_in()
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _average_over_processes(self, parameters: Sequence[Tensor]) -> None:
        processes = dist.get_world_size(self.process_group)
        for parameter in parameters:
            # Of a copy: a parameter may not be contiguous.
            mean = parameter.detach() / processes
            dist.all_reduce(mean, group=self.process_group)
            parameter.copy_(mean)

    # ----------------------------------------------------------------------------------------------------- averages

    @torch.no_grad()
    def _count_in(self) -> None:
        for group in self.param_groups:
            step = group["steps"]
            share = 1 / step if group["average"] == "uniform" else 2 / (step + 1)
            for parameter in group["params"]:
                state = self.state[parameter]
                mean = state.setdefault("average", parameter.detach().clone())
                mean.lerp_(parameter, share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block the parameters are the average of the iterates: to evaluate, or to save them.

        Raises `InputError` where no average is kept.
        """
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if any("average" not in self.state[parameter] for parameter in parameters):
            raise InputError('No average is kept: make EMSO with average="uniform" or "linear", and take a step.')
        before = [parameter.detach().clone() for parameter in parameters]
        try:
            self._place(parameters, [self.state[parameter]["average"] for parameter in parameters])
            yield
        finally:
            self._place(parameters, before)

    @staticmethod
    @torch.no_grad()
    def _place(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
