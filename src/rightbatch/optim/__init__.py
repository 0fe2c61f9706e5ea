"""Optimizers: constant SGD as a sampler of the posterior, means of iterates, and EMSO."""

from rightbatch.optim.constant_sgd import ConstantSGDSampler
from rightbatch.optim.emso import EMSO
from rightbatch.optim.iterate_average import IterateAverage
from rightbatch.optim.linear import LinearBatch

__all__ = ["EMSO", "ConstantSGDSampler", "IterateAverage", "LinearBatch"]
