"""How EMSO solves the subproblem of a batch. Each returns the loss of the batch as it was found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.optim.linear import LinearBatch
from rightbatch.optim.subproblem import Subproblem

HALVINGS = 40
"""A step of coordinate descent is halved at most so often."""


def gradient_descent(subproblem: Subproblem) -> Tensor:
    """Steps against the gradient at the rate of each group."""
    found = None
    for _ in range(subproblem.steps):
        loss = subproblem.differentiate()
        found = loss if found is None else found
        if subproblem.solved():
            break
        with torch.no_grad():
            for group in subproblem.groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=group["lr"])
    assert found is not None
    return found


def l_bfgs(subproblem: Subproblem) -> Tensor:
    """`torch.optim.LBFGS` with a line search, begun anew; `lr` is its first step."""
    (group,) = subproblem.groups
    solver = torch.optim.LBFGS(
        group["params"],
        lr=group["lr"],
        max_iter=subproblem.steps,
        tolerance_grad=subproblem.tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    found: Tensor = solver.step(lambda: subproblem.differentiate() + subproblem.pull())  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def coordinate_descent(subproblem: Subproblem) -> Tensor:
    """Passes over the coordinates, a Newton step each, halved until it descends. For a `LinearBatch` only.

    A pass costs about as much as one gradient, and is counted as one.
    """
    batch = inspect.unwrap(subproblem.closure)
    if not isinstance(batch, LinearBatch):
        raise InputError(
            f'inner="coordinate-descent" solves generalised linear models: step() takes a LinearBatch, '
            f"got {type(batch).__name__}."
        )
    if [id(p) for p in subproblem.parameters] != [id(p) for p in batch.parameters]:
        raise InputError("The LinearBatch is of another model than the optimizer.")
    found = batch.loss()
    scores = batch.scores()
    for _ in range(subproblem.steps):
        subproblem.evaluations += 1
        steepest = 0.0
        for (weights, start, column, ridge), gamma in zip(
            batch.coordinates(subproblem.start), subproblem.gammas, strict=True
        ):
            for j in range(weights.numel()):
                slope = _descend(batch, scores, weights, j, float(start[j]), column(j), ridge, gamma)
                steepest = max(steepest, slope)
        if steepest <= subproblem.tolerance:
            break
    return found


def _descend(
    batch: LinearBatch,
    scores: Tensor,
    weights: Tensor,
    j: int,
    start: float,
    column: Tensor,
    ridge: float,
    gamma: float,
) -> float:
    """A step along one coordinate, in `weights` and in `scores`; the slope that was there."""
    value, own = float(weights[j]), ridge + gamma
    mean, variance = batch.family.mean(scores), batch.family.variance(scores)
    slope = float((column * (mean - batch.labels)).mean()) + ridge * value + gamma * (value - start)
    curvature = float((column.square() * variance).mean()) + own
    if slope == 0 or curvature <= 0:
        return abs(slope)
    step, losses = -slope / curvature, batch.losses(scores)
    rounding = torch.finfo(scores.dtype).eps * float(losses.abs().mean())
    for _ in range(HALVINGS):
        moved = scores + step * column
        quadratic = step * (ridge * value + gamma * (value - start)) + 0.5 * own * step**2
        if float((batch.losses(moved) - losses).mean()) + quadratic <= rounding:
            weights[j] += step
            scores.copy_(moved)
            break
        step /= 2
    return abs(slope)


INNER: Mapping[str, Callable[[Subproblem], Tensor]] = {
    "gradient-descent": gradient_descent,
    "l-bfgs": l_bfgs,
    "coordinate-descent": coordinate_descent,
}
"""The solvers by their names."""
