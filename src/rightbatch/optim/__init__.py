"""Optimizers: constant SGD as a sampler, and averages of iterates."""
