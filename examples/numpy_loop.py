"""Logistic regression in NumPy alone.

rightbatch find examples/numpy_loop.py:train --target 0.15 --present 32,1 --train-examples 10000
"""

import numpy as np

import rightbatch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12_000, 50)) / np.sqrt(1 + np.arange(50))
Y = (X @ RNG.normal(size=50) + 0.3 * RNG.normal(size=12_000) > 0).astype(float)


def predict(weights, x):
    return 1 / (1 + np.exp(-x @ weights))


def cross_entropy(weights, x, y):
    p = np.clip(predict(weights, x), 1e-9, 1 - 1e-9)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def train(trial):
    size, rate, rng = trial.batch_size, trial.learning_rate, np.random.default_rng(trial.seed)
    weights, step = np.zeros(50), 0
    for _ in range(20):  # passes over the data
        order = rng.permutation(10_000)
        for chosen in np.split(order[: 10_000 // size * size], 10_000 // size):
            weights -= rate * X[chosen].T @ (predict(weights, X[chosen]) - Y[chosen]) / size
            step += 1
            if trial.due(step):
                yield rightbatch.Point(step, valid_loss=cross_entropy(weights, X[10_000:], Y[10_000:]))
