"""Modules without a rule: what groups of examples add to their gradients, from running the module again for them alone.

Recurrent layers in one piece, attention with its own projections, a module with parameters of its own: the input and
the gradient of the output of each example are known from the pass, and with them any group of examples can be sent
through the module, forwards and backwards, and nothing else of the model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.gradients.capture import when_gradient_comes
from rightbatch.parts import mapped


def _of_recurrent(module: nn.Module) -> tuple[int, int]:
    assert isinstance(module, nn.RNNBase)
    return (0 if module.batch_first else 1), 1


def _of_attention(module: nn.Module) -> tuple[int, int]:
    assert isinstance(module, nn.MultiheadAttention)
    return (0 if module.batch_first else 1), 0


DIMENSIONS: dict[type[nn.Module], Callable[[nn.Module], tuple[int, int]]] = {
    nn.RNN: _of_recurrent,
    nn.GRU: _of_recurrent,
    nn.LSTM: _of_recurrent,
    nn.MultiheadAttention: _of_attention,
}
"""Where a module has the examples: along which dimension of its first input and output, and of all others."""


class Rerun:
    """One call of a module that has no rule, kept so that it can be made again for some of its examples."""

    def __init__(self, module: nn.Module, examples: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.module, self._examples = module, examples
        self._args, self._kwargs = mapped(tuple(args), _detached), mapped(dict(kwargs), _detached)
        dimensions = DIMENSIONS.get(type(module))
        self._first, self._others = dimensions(module) if dimensions is not None else (0, 0)
        device = next(module.parameters()).device.type
        self._autocast = torch.is_autocast_enabled(device)
        self._device, self._precision = device, torch.get_autocast_dtype(device)
        self._gradients: dict[int, Tensor] = {}

    def watch(self, output: Any) -> list[RemovableHandle]:
        """Keep the gradients of the tensors in the output when they come."""
        tensors = [(k, tensor) for k, tensor in enumerate(tensors_in(output)) if tensor.requires_grad]
        return [when_gradient_comes(tensor, functools.partial(self._gradients.__setitem__, k)) for k, tensor in tensors]

    def gradients(self, parameters: Sequence[nn.Parameter], examples: Tensor) -> list[Tensor | None]:
        """What these examples, [group], add to the gradients of the module's parameters.

        Random streams and buffers are afterwards as they were.
        """
        if not self._gradients:
            return [None] * len(parameters)
        kept = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        devices = [torch.cuda.current_device()] if self._device == "cuda" else []
        autocast = torch.autocast(self._device, self._precision) if self._autocast else contextlib.nullcontext()
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), autocast:
            args = [
                self._part(value, examples, self._others if k else self._first) for k, value in enumerate(self._args)
            ]
            kwargs = {
                name: self._part(value, examples, self._others if args or k else self._first)
                for k, (name, value) in enumerate(self._kwargs.items())
            }
            # Not by a call: the hooks of the module, which may be the whole model, are for the pass itself.
            outputs = tensors_in(self.module.forward(*args, **kwargs))
        for name, buffer in self.module.named_buffers():
            buffer.copy_(kept[name])
        chosen = [outputs[k] for k in self._gradients]
        given = [
            self._part(gradient, examples, self._others if k else self._first)
            for k, gradient in self._gradients.items()
        ]
        return list(torch.autograd.grad(chosen, parameters, given, allow_unused=True))

    def _part(self, value: Any, examples: Tensor, dimension: int) -> Any:
        """These examples of every tensor that has as many entries along the dimension as there are examples."""

        def part(tensor: Tensor) -> Tensor:
            if tensor.ndim <= dimension or tensor.shape[dimension] != self._examples:
                return tensor
            return tensor.index_select(dimension, examples)

        return mapped(value, part)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors with a gradient, or that could have one, in a tensor, a tuple, a list or a dict, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for entry in value for tensor in tensors_in(entry)] if isinstance(value, list | tuple) else []


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach()
