"""What a model keeps from its forward pass for the backward pass: counted, tensor by tensor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from rightbatch.accumulation import accumulate, normalising_over_batch
from rightbatch.losses import examples_in, mean_loss
from rightbatch.parts import mapped, split
from rightbatch.records import MemoryParts
from rightbatch.stepping import Stepper
from rightbatch.update import under_autocast

Precision = Literal["bfloat16", "float16"]
HALF: Precision = "bfloat16"


def parts_of(stepper: Stepper) -> MemoryParts:
    """The parts of the memory of a training that has made a step, counted over its next batch.

    Where the model does not let itself be looked at (it is compiled, or its loss fails under autocast) these parts are
    None.
    """
    model, optimizer = stepper.model, stepper.optimizer
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    tensors = [*model.parameters(), *model.buffers()]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    batch = next(stepper.batches())
    if stepper.accumulation_steps > 1:  # there is room for one pass, not for all of the batch, and just room for it
        batch = split(batch, 2 * stepper.accumulation_steps)[0]
    kept = halved = checkpointed = None
    with contextlib.suppress(Exception):  # a person's model may do anything: what is predicted is a courtesy
        kept, checkpointed = _kept(stepper, batch, stepper.workload.autocast)
        halved, _ = _kept(stepper, batch, HALF)
    normalising, difference = tuple(normalising_over_batch(model)), None
    if normalising and stepper.accumulation_steps > 1:
        with contextlib.suppress(Exception):
            difference = _difference(stepper, batch)
    sizes = _bytes(tensors), _bytes(gradients), _bytes(states)
    return MemoryParts(*sizes, kept, halved, checkpointed, normalising, difference)


def _kept(stepper: Stepper, batch: Any, precision: Precision | None) -> tuple[float, float]:
    """Bytes per example that a forward pass keeps, and would keep if every block were recomputed."""
    examples = examples_in(batch) or stepper.trial.batch_size
    # The parameters are there anyway, and so is the batch.
    there = [*stepper.model.parameters(), *stepper.model.buffers()]
    mapped(batch, there.append)
    counted = _Counted({tensor.untyped_storage().data_ptr() for tensor in there})
    loss = under_autocast(stepper.workload.loss, replace(stepper.workload, autocast=precision))
    with counted.within(blocks_of(stepper.model)), counted.hooks():
        mean = mean_loss(loss(stepper.model, batch), None)
    del mean
    return counted.total / examples, counted.with_checkpoints / examples


def _difference(stepper: Stepper, batch: Any) -> float | None:
    """How far the gradient of half a pass is from that of its examples in parts, relative to its norm.

    None where half a pass is too few examples to be cut into parts of two.
    """
    steps, model = min(stepper.accumulation_steps, (examples_in(batch) or 2) // 2), stepper.model
    if steps < 2:
        return None
    loss = under_autocast(stepper.workload.loss, stepper.workload)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    accumulate(loss, model, [batch], parameters)
    whole = [parameter.grad for parameter in parameters]
    model.zero_grad()  # sets them to None: what is in the list stays
    accumulate(loss, model, split(batch, steps), parameters)
    apart, size = 0.0, 0.0
    for one, parameter in zip(whole, parameters, strict=True):
        assert one is not None
        assert parameter.grad is not None
        apart += float((one - parameter.grad).square().sum())
        size += float(one.square().sum())
    return math.sqrt(apart / size)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that people recompute: the members of its longest list of modules, else its children."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    lists = [modules for modules in lists if len(modules) > 1]
    return max(lists, key=len) if lists else list(model.children())


class _Counted:
    """Bytes of the tensors that autograd saves, each storage once, by the block in which it is saved."""

    def __init__(self, owned: set[int]) -> None:
        self._seen = owned
        self._held: list[torch.Tensor] = []  # a storage that is freed could come again at the same address
        self._block: nn.Module | None = None
        self._outside = 0
        self._inputs = 0
        self._blocks: dict[nn.Module, int] = {}

    @property
    def total(self) -> int:
        return self._outside + sum(self._blocks.values())

    @property
    def with_checkpoints(self) -> int:
        """What blocks are given stays; of what they keep, one block's at a time is recomputed."""
        return min(self.total, self._outside + self._inputs + max(self._blocks.values(), default=0))

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    @contextlib.contextmanager
    def within(self, blocks: list[nn.Module]) -> Iterator[None]:
        """Notice which block is being computed."""
        handles = [block.register_forward_pre_hook(self._enter) for block in blocks]
        handles += [block.register_forward_hook(self._leave) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in self._seen:
            self._seen.add(address)
            self._held.append(tensor.detach())
            size = tensor.untyped_storage().nbytes()
            if self._block is None:
                self._outside += size
            else:
                self._blocks[self._block] = self._blocks.get(self._block, 0) + size
        return tensor

    def _enter(self, block: nn.Module, given: tuple[Any, ...]) -> None:
        self._block = block
        self._inputs += sum(tensor.nbytes for tensor in given if isinstance(tensor, torch.Tensor))

    def _leave(self, block: nn.Module, given: Any, returned: Any) -> None:
        self._block = None


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
