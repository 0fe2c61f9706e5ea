"""Optimizers: constant SGD as a sampler of the posterior, and means of iterates."""

from rightbatch.optim.constant_sgd import ConstantSGDSampler
from rightbatch.optim.iterate_average import IterateAverage

__all__ = ["ConstantSGDSampler", "IterateAverage"]
