"""Tables of numbers: read from CSV and libsvm files, split by distinct rows, standardised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from rightbatch.bundled.classification import Pair
from rightbatch.bundled.data import read_text
from rightbatch.errors import DataError


def read_csv(path: Path, *, rows: int, columns: int, first: Callable[[str], float] = float) -> torch.Tensor:
    """The numbers of a file with commas or semicolons, float64 of shape `[rows, columns]`; a header is left out.

    `first` reads the first column where that is no number (a letter): it raises `ValueError` for anything else.
    Raises `DataError` for a line that cannot be read, and for another number of rows or columns.
    """
    table: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split(";" if ";" in line else ",")
        try:
            values = [first(fields[0]), *map(float, fields[1:])]
        except ValueError as error:
            if number == 1:  # a header; a damaged first row is noticed by the number of rows
                continue
            raise _unreadable(path, number, str(error)) from error
        if len(values) != columns:
            raise _unreadable(path, number, f"it has {len(values)} columns, expected {columns}")
        table.append(values)
    _check_rows(path, len(table), rows)
    return torch.tensor(table, dtype=torch.float64)


def read_libsvm(path: Path, *, rows: int, features: int) -> Pair:
    """Inputs, float32 of shape `[rows, features]`, and labels (0 for -1, 1 for +1) of a file in the libsvm format.

    A line is a label and then `index:value` for what is not zero, indices from 1: `-1 3:1 11:0.5`. Empty lines at the
    end are none.
    Raises `DataError` for a line that cannot be read, and for another number of rows.
    """
    labels: list[int] = []
    places: list[tuple[int, int]] = []
    values: list[float] = []
    for number, line in enumerate(read_text(path).rstrip().splitlines(), start=1):
        try:
            label, *pairs = line.split()
            labels.append({"-1": 0, "+1": 1, "1": 1}[label])
            for pair in pairs:
                index, value = pair.split(":")
                if not 1 <= int(index) <= features:
                    raise ValueError(f"feature {index} is not between 1 and {features}")
                places.append((number - 1, int(index) - 1))
                values.append(float(value))
        except (ValueError, KeyError) as error:
            raise _unreadable(path, number, str(error)) from error
    _check_rows(path, len(labels), rows)
    inputs = torch.zeros(rows, features)
    row, column = torch.tensor(places).reshape(-1, 2).unbind(dim=1)
    inputs[row, column] = torch.tensor(values)
    return inputs, torch.tensor(labels)


def split_apart(inputs: torch.Tensor, targets: torch.Tensor, valid_examples: int) -> tuple[Pair, Pair]:
    """Training and validation data, none of whose inputs are in both: a fixed random split by distinct inputs.

    Real tables repeat rows. Repeats all go to the same side: else the validation data would tell how well the training
    data is remembered. What repeats is the input, whatever its target.
    """
    repeats: dict[bytes, list[int]] = {}
    for row, values in enumerate(inputs.numpy()):
        repeats.setdefault(values.tobytes(), []).append(row)
    groups = list(repeats.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).tolist()
    valid = torch.zeros(len(inputs), dtype=torch.bool)
    left = valid_examples
    for group in (groups[k] for k in order):
        if len(group) <= left:  # a group that is too large for what is left stays in training, a later one fits
            valid[group] = True
            left -= len(group)
    return (inputs[~valid], targets[~valid]), (inputs[valid], targets[valid])


def without(data: Pair, other: torch.Tensor) -> Pair:
    """The examples of `data` whose inputs are not among the inputs `other`."""
    known = {row.tobytes() for row in other.numpy()}
    keep = torch.tensor([row.tobytes() not in known for row in data[0].numpy()])
    return data[0][keep], data[1][keep]


def standardise(train: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in units of the training data, as float32: mean 0 and standard deviation 1 along the first dimension."""
    mean, deviation = train.mean(dim=0), train.std(dim=0)
    return ((train - mean) / deviation).float(), ((valid - mean) / deviation).float()


def _unreadable(path: Path, line: int, why: str) -> DataError:
    return DataError(f"Line {line} of {path} cannot be read: {why}. Delete the file and run again.")


def _check_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(f"{path} has {found} rows, expected {expected}. Delete the file and run again.")
