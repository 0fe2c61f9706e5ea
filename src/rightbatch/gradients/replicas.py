"""Replicas of a model as parts of a batch: squared norms of their gradients, seen where they are averaged."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.factors import squared
from rightbatch.gradients.sampling import Sampled


class Replicas:
    """Listens to the buckets of gradients of a `DistributedDataParallel` model, and averages them as it would.

    Every process sends the sum of squares of its own gradients along, so that all of them know the parts of the batch.
    The gradient of a replica is that of all its backward passes since the last step (`no_sync`). A communication hook
    cannot be taken away: after `close` it averages, and no more.
    """

    def __init__(self, model: nn.parallel.DistributedDataParallel) -> None:
        self._group: Any = model.process_group
        self._closed = False
        self._examples: list[int]
        self._own: Tensor | None
        self._averaged: list[Tensor]
        self.forget()
        try:
            # Not the method itself: its annotations are strings, and would be taken for wrong ones.
            model.register_comm_hook(None, lambda _, bucket: self._hook(bucket))
        except RuntimeError as error:
            raise InputError(
                f"The replicas cannot be watched ({str(error).splitlines()[0]}). A DistributedDataParallel model has "
                f"one communication hook: make the monitor before registering another, and leave that other one out."
            ) from error

    @staticmethod
    def there_are(model: nn.Module) -> bool:
        """Whether a model has replicas in several processes."""
        if not dist.is_available() or not isinstance(model, nn.parallel.DistributedDataParallel):
            return False
        return dist.get_world_size(model.process_group) > 1

    @classmethod
    def of(cls, model: nn.Module) -> Replicas | None:
        """For a model in several processes; None for any other."""
        parallel = isinstance(model, nn.parallel.DistributedDataParallel) and cls.there_are(model)
        return cls(model) if parallel else None  # type: ignore[arg-type]

    def forward(self, examples: int | None) -> None:
        """A forward pass begins, of so many examples."""
        self._examples.append(examples or 0)

    def result(self, scale: float) -> Sampled | None:
        """What the step gave; None where gradients were not exchanged."""
        examples, own, averaged = sum(self._examples), self._own, self._averaged
        self.forget()
        if own is None:
            return None
        replicas = dist.get_world_size(self._group)
        sent = torch.stack([own, torch.as_tensor(float(examples)).to(own)])
        dist.all_reduce(sent, group=self._group)
        of_replicas, all_examples = sent.tolist()
        batch = float(torch.stack(averaged).sum())
        terms = (batch / scale**2, of_replicas / replicas**2 / scale**2)
        return Sampled(round(all_examples), {"": (terms,)}, 1 / replicas, {})

    def forget(self) -> None:
        """Let go of what was seen of a step that is not made."""
        self._examples, self._own, self._averaged = [], None, []

    def close(self) -> None:
        """Look no more. Allowed more than once."""
        self._closed = True

    def _hook(self, bucket: Any) -> torch.futures.Future[Tensor]:
        gradients = bucket.buffer()
        watched = bool(self._examples) and not self._closed  # not a second evaluation of a closure
        if watched:
            own = squared(gradients)
            self._own = own if self._own is None else self._own + own
        gradients.div_(dist.get_world_size(self._group))
        work = dist.all_reduce(gradients, group=self._group, async_op=True)
        assert work is not None

        def averaged(future: torch.futures.Future[list[Tensor]]) -> Tensor:
            found = future.value()[0]
            if watched:
                self._averaged.append(squared(found))
            return found

        return work.get_future().then(averaged)  # type: ignore[no-any-return]
