"""Gradients and Hessian-vector products of a loss, by differentiating twice (Pearlmutter 1994)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """In the block, attention and recurrent layers are computed by kernels that have a second derivative."""
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=False),
    ):
        yield


def gradient_of(loss: Tensor, parameters: Sequence[nn.Parameter], *, graph: bool = False) -> list[Tensor]:
    """The gradient of a scalar, a tensor for each parameter: zeros where it does not enter."""
    found = torch.autograd.grad(loss, parameters, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def shaped(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a vector `[d]` in the shapes of tensors that have d entries together, of their kind and device."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [part.to(tensor.device, tensor.dtype).view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def hessian_products(
    loss: Tensor, parameters: Sequence[nn.Parameter], vectors: Sequence[Sequence[Tensor]]
) -> list[list[Tensor]]:
    """H v for each vector v, a tensor for each parameter; the graph of the gradient is built once for all of them."""
    gradient = gradient_of(loss, parameters, graph=True)
    curved = [g for g in gradient if g.requires_grad]  # a loss that is linear in a parameter has no second derivative
    if not curved:
        return [[torch.zeros_like(p) for p in parameters] for _ in vectors]
    found = []
    for vector in vectors:
        along = [v for v, g in zip(vector, gradient, strict=True) if g.requires_grad]
        products = torch.autograd.grad(curved, parameters, along, retain_graph=True, allow_unused=True)
        found.append([torch.zeros_like(p) if h is None else h for p, h in zip(parameters, products, strict=True)])
    return found
