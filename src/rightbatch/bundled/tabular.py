"""Tables: wine quality, protein structure, adult income (a9a), letter recognition.

* Wine quality (white): 4,898 wines, 11 measurements, a quality of 0 to 10. P. Cortez, A. Cerdeira, F. Almeida,
  T. Matos and J. Reis, "Modeling wine preferences by data mining from physicochemical properties", Decision Support
  Systems 47(4), 2009; UCI Machine Learning Repository (CC BY 4.0).
* Protein: 45,730 decoys, 9 features, their distance (RMSD) from the native structure. P. Rana, "Physicochemical
  Properties of Protein Tertiary Structure", UCI Machine Learning Repository, 2013 (CC BY 4.0).
* a9a: 32,561 people, 123 binary features, income above 50,000 dollars. B. Becker and R. Kohavi, "Adult", UCI Machine
  Learning Repository, 1996 (CC BY 4.0), in the form of J. Platt (1998) as LIBSVM publishes it (Chang and Lin 2011).
* Letters: 20,000 printed capitals, 16 features. P. W. Frey and D. J. Slate, "Letter Recognition Using Holland-Style
  Adaptive Classifiers", Machine Learning 6(2), 1991; UCI Machine Learning Repository (CC BY 4.0).

All four repeat rows (a fifth of the wines): they are split by distinct rows, see `rows.split_apart`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from string import ascii_uppercase

import torch
from torch import nn

from rightbatch.bundled.classification import Pair, accuracy, cross_entropy, sgd_with_momentum
from rightbatch.bundled.data import DataFile, find
from rightbatch.bundled.rows import read_csv, read_libsvm, split_apart, standardise, without
from rightbatch.optim.emso import EMSO
from rightbatch.records import Trial
from rightbatch.workload import Workload

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/"
LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
WINE = DataFile(
    "uci/winequality-white.csv",
    UCI + "wine-quality/winequality-white.csv",
    "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
)
PROTEIN = DataFile(
    "uci/CASP.csv",
    UCI + "00265/CASP.csv",
    (  # with the line ends of Windows, as published, and without
        "712d2759f8113622a3ba93a47e451397147df946111f6ffdd8c655385d564aef",
        "b36f6442f1b9b78da962eaa828f7b856a581c646b3ff748dd3301e1267f9f26e",
    ),
)
ADULT = DataFile("libsvm/a9a", LIBSVM + "a9a", "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906")
ADULT_TEST = DataFile(
    "libsvm/a9a.t", LIBSVM + "a9a.t", "1f7bae8e9729ad2bf9d18f66e5fa622e503e615114f92c37b274dfd24f2e5725"
)
LETTERS = DataFile(
    "tabular/letter-recognition.data",
    UCI + "letter-recognition/letter-recognition.data",
    "2b89f3602cf768d3c8355267d2f13f2417809e101fc2b5ceee10db19a60de6e2",
)


def wine() -> Workload:
    """Quality of white wines by an MLP 11-64-64-1, to a squared error of 0.62 of the variance.

    Batch size 128 at rate 0.03 reaches it after 4,300 examples (one pass) and 0.60 after two; then it overfits.
    """
    table = read_csv(find(WINE), rows=4898, columns=12)
    return _regression("tabular:wine", table[:, :11], table[:, 11], 898, target=0.62, passes=20)


def protein() -> Workload:
    """Distance of protein decoys from the native structure by an MLP 9-64-64-1, to 0.52 of the variance.

    Batch size 128 at rate 0.03 reaches it after 370,000 examples (9 passes) and 0.47 at the planned length.
    """
    table = read_csv(find(PROTEIN), rows=45_730, columns=10)
    return _regression("tabular:protein", table[:, 1:], table[:, 0], 5730, target=0.52, passes=20)


def a9a() -> Workload:
    """Income from 123 binary features by logistic regression with plain SGD, to a validation loss of 0.325 nats.

    Batch size 128 at rate 0.3 reaches it after 47,000 examples (two passes); the best is about 0.32. The test data are
    the published ones but for rows that the training data have: a linear model is evaluated on them in no time.
    """
    return _adult("tabular:a9a", sgd_with_momentum, {"momentum": 0.0})


def a9a_emso() -> Workload:
    """The same by EMSO: several steps of gradient descent on each batch, held back by a proximal term.

    With `inner_steps` 1 it is plain SGD, so that both can be compared in one study. The proximal term weighs
    1 / (rate x inner steps): as much as lets an exact solution go as far as the inner steps would.
    """
    return _adult("tabular:a9a-emso", _emso, {"inner_steps": 5})


def _emso(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    steps = int(trial.settings["inner_steps"])
    return EMSO(parameters, trial.learning_rate, gamma=1 / (trial.learning_rate * steps), inner_steps=steps)


def _adult(
    name: str,
    optimizer: Callable[[Iterable[nn.Parameter], Trial], torch.optim.Optimizer],
    settings: Mapping[str, float | int | str],
) -> Workload:
    train, valid = split_apart(*read_libsvm(find(ADULT), rows=32_561, features=123), valid_examples=4561)
    test = without(read_libsvm(find(ADULT_TEST), rows=16_281, features=123), train[0])
    return Workload(
        name=name,
        model=lambda: nn.Linear(123, 2),
        data=train,
        valid=valid,
        test=test,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=optimizer,
        settings=settings,
        present=(32, 0.1),
        target=0.325,
        target_quantity="valid_loss",
        planned_examples=10 * 28_000,
    )


def letter() -> Workload:
    """Printed capitals by an MLP 16-128-128-26, to 93 % validation accuracy.

    Batch size 32 at rate 0.03 reaches it after 69,000 examples (4 passes) and 97 % at the planned length.
    """
    table = read_csv(find(LETTERS), rows=20_000, columns=17, first=ascii_uppercase.index)
    train, valid = split_apart(table[:, 1:], table[:, 0].long(), valid_examples=4000)
    inputs, judged = standardise(train[0], valid[0])
    return Workload(
        name="letter",
        model=lambda: nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 26)),
        data=(inputs, train[1]),
        valid=(judged, valid[1]),
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=sgd_with_momentum,
        settings={"momentum": 0.9},
        present=(32, 0.03),
        target=0.93,
        planned_examples=40 * 16_000,
    )


def squared_error(model: nn.Module, batch: Pair) -> torch.Tensor:
    """Squared error of each example, shape `[batch_size]`."""
    inputs, targets = batch
    errors: torch.Tensor = model(inputs)[:, 0] - targets
    return errors.square()


def _regression(
    name: str, inputs: torch.Tensor, targets: torch.Tensor, valid_examples: int, *, target: float, passes: int
) -> Workload:
    """A regression by an MLP with two hidden layers; inputs and targets in units of the training data."""
    train, valid = split_apart(inputs, targets, valid_examples)
    columns = [standardise(one, other) for one, other in zip(train, valid, strict=True)]
    data, judged = zip(*columns, strict=True)
    features = inputs.shape[1]
    return Workload(
        name=name,
        model=lambda: nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)),
        data=data,
        valid=judged,
        loss=squared_error,
        optimizer=sgd_with_momentum,
        settings={"momentum": 0.9},
        present=(32, 0.01),
        target=target,
        planned_examples=passes * len(train[0]),
    )
