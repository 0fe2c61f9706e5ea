"""What samples of the weights predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from rightbatch.errors import InputError


class Prediction(NamedTuple):
    """What samples predict: the mean over them, the standard deviation between them, and each, first dimension."""

    mean: Tensor
    deviation: Tensor
    each: Tensor


@torch.no_grad()
def predicted(parameters: Sequence[Tensor], samples: Tensor, function: Callable[[], Tensor]) -> Prediction:
    """What a function of a model gives with each sample `[k, d]` in its parameters; they are put back afterwards.

    Raises `InputError` where there is no sample.
    """
    if not len(samples):
        raise InputError("There is no sample yet. Go on with the steps.")
    before, found = parameters_to_vector(parameters).clone(), []
    try:
        for sample in samples:
            vector_to_parameters(sample, parameters)
            found.append(function().clone())
    finally:
        vector_to_parameters(before, parameters)
    each = torch.stack(found)
    return Prediction(each.mean(0), each.std(0, correction=min(1, len(found) - 1)), each)
