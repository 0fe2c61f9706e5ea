"""A linear classifier of scikit-learn, trained batch by batch with `partial_fit`.

    rightbatch find examples/sklearn_partial_fit.py:train --target 0.95 --direction max --present 32,0.01 \\
        --train-examples 1197
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import rightbatch

X, Y = load_digits(return_X_y=True)
X_TRAIN, X_VALID, Y_TRAIN, Y_VALID = train_test_split(X / 16, Y, test_size=600, random_state=0)


def train(trial):
    size, rate, seed = trial.batch_size, trial.learning_rate, trial.seed
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=rate, alpha=1e-5, random_state=seed)
    rng, step = np.random.default_rng(seed), 0
    for _ in range(30):  # passes over the data
        order = rng.permutation(len(X_TRAIN))
        for chosen in np.split(order, range(size, len(order), size)):
            model.partial_fit(X_TRAIN[chosen], Y_TRAIN[chosen], classes=np.arange(10))
            step += 1
            if trial.due(step):
                yield rightbatch.Point(step, valid_metric=model.score(X_VALID, Y_VALID))
