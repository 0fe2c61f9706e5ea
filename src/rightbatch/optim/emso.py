"""EMSO: use a mini-batch harder before it is thrown away (Li et al. 2014; Wang et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.fit.proximal import Schedule, constant

Inner = Literal["gradient-descent", "l-bfgs"]
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
    gamma: The weight of the proximal term, or a function of the step t = 1, 2 ...: see `fit.proximal`.
    inner_steps: At most so many on a batch.
    inner: "gradient-descent", or "l-bfgs" (`torch.optim.LBFGS` with a line search, begun anew on each batch).
    tolerance: The inner solve ends when no entry of the subproblem's gradient is larger: early stopping.
    average: Of the iterates w_1 ... w_t, for `averaged`: "uniform", or "linear" in t, as the theory of strongly convex
        losses has it.

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
    ) -> None:
        if not lr > 0:
            raise InputError(f"The rate is positive, got {lr:g}.")
        if inner_steps < 1:
            raise InputError(f"There is at least 1 inner step, got {inner_steps}.")
        if not tolerance >= 0:
            raise InputError(f"The tolerance is at least 0, got {tolerance:g}.")
        for name, value, known in (("inner", inner, Inner), ("average", average, Average)):
            if value not in get_args(known):
                raise InputError(f"{name} is one of {', '.join(get_args(known))}; got {value!r}.")
        self._gamma: Schedule = gamma if callable(gamma) else constant(gamma)
        defaults = {"lr": lr, "inner_steps": inner_steps, "tolerance": tolerance, "average": average, "steps": 0}
        super().__init__(params, {**defaults, "inner": inner})
        if inner == "l-bfgs" and len(self.param_groups) > 1:
            raise InputError(f"L-BFGS takes one group of parameters, got {len(self.param_groups)}.")
        self.evaluations = 0
        """Gradients of a batch that were computed so far: what the inner solves cost."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Solve the subproblem of a batch; the loss of the batch as it was before.

        Raises `InputError` without a closure: the batch is looked at more than once.
        """
        if closure is None:
            raise InputError(
                "EMSO looks at a batch more than once: step() takes a closure that computes its gradients."
            )
        return self.step_of_workers([closure])

    def step_of_workers(self, closures: Sequence[Callable[[], Any]]) -> Tensor:
        """As many workers, each on a batch of its own, solve their subproblems apart; their solutions are averaged.

        One round of communication for all inner steps. Here one after another; the mean of their first losses.
        Raises `InputError` where there is none.
        """
        if not closures:
            raise InputError("At least one worker has to have a batch, got none.")
        gamma, head = self._gamma(self.param_groups[0]["steps"] + 1), self.param_groups[0]
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        sums, losses = [torch.zeros_like(p) for p in parameters], []
        for closure in closures:
            self._place(parameters, before)
            losses.append(self._solve(closure, gamma, before))
            for own, parameter in zip(sums, parameters, strict=True):
                own.add_(parameter.detach(), alpha=1 / len(closures))
        if len(closures) > 1:
            self._place(parameters, sums)
        for group in self.param_groups:
            group["steps"] += 1
        if head["average"] != "none":
            self._count_in()
        return torch.stack(losses).mean()

    def _solve(self, closure: Callable[[], Any], gamma: float, before: Sequence[Tensor]) -> Tensor:
        parameters = [p for group in self.param_groups for p in group["params"]]

        def proximal() -> Tensor:
            """Loss and gradients of the subproblem."""
            self.evaluations += 1
            with torch.enable_grad():
                loss = torch.as_tensor(closure())
            pull = torch.zeros((), dtype=loss.dtype, device=loss.device)
            with torch.no_grad():
                for parameter, start in zip(parameters, before, strict=True):
                    if gamma and parameter.grad is not None:
                        parameter.grad.add_(parameter - start, alpha=gamma)
                        pull += 0.5 * gamma * (parameter - start).square().sum().to(pull)
            return loss.detach() + pull

        by_lbfgs = self.param_groups[0]["inner"] == "l-bfgs"
        return self._by_lbfgs(proximal) if by_lbfgs else self._by_gradient_descent(proximal)

    def _by_gradient_descent(self, proximal: Callable[[], Tensor]) -> Tensor:
        first = None
        for _ in range(self.param_groups[0]["inner_steps"]):
            loss = proximal()
            first = loss if first is None else first
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            if gradients and max(float(g.abs().max()) for g in gradients) <= self.param_groups[0]["tolerance"]:
                break
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.sub_(parameter.grad, alpha=group["lr"])
        assert first is not None
        return first

    def _by_lbfgs(self, proximal: Callable[[], Tensor]) -> Tensor:
        (group,) = self.param_groups
        solver = torch.optim.LBFGS(
            group["params"],
            lr=group["lr"],
            max_iter=group["inner_steps"],
            tolerance_grad=group["tolerance"],
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        found: Tensor = solver.step(proximal)  # type: ignore[no-untyped-call]
        return found

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
