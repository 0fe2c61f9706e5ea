"""The archives of CIFAR-10 and CIFAR-100 as published: pickles of bytes in a tar file (A. Krizhevsky 2009).

Published for research, without a licence of their own, at https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from rightbatch.bundled.classification import Pair
from rightbatch.bundled.data import DataFile
from rightbatch.errors import DataError

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Archive:
    """Where images are in an archive: its file, the pickles of both parts, the name of the labels, how many classes."""

    file: DataFile
    train: tuple[str, ...]
    test: str
    labels: bytes
    classes: int

    def read(self, path: Path, part: Part = "train") -> Pair:
        """Images, bytes of shape `[n, 3, 32, 32]`, and labels. Raises `DataError` where the file is damaged."""
        try:
            with tarfile.open(path, "r:gz") as archive:
                pickles = [_unpickled(archive, name) for name in (self.train if part == "train" else (self.test,))]
            images = np.concatenate([content[b"data"] for content in pickles])
            labels = np.concatenate([content[self.labels] for content in pickles])
        except Exception as error:  # a damaged archive may raise anything
            raise damaged(path, error) from error
        images = images.reshape(-1, 3, 32, 32) if images.shape[1:] == (3072,) else images
        return checked(path, images, labels, self.classes)


CIFAR10 = Archive(
    DataFile(
        "cifar10/cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    train=tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
    test="cifar-10-batches-py/test_batch",
    labels=b"labels",
    classes=10,
)
CIFAR100 = Archive(
    DataFile(
        "cifar100/cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    train=("cifar-100-python/train",),
    test="cifar-100-python/test",
    labels=b"fine_labels",
    classes=100,
)


def checked(path: Path, images: np.ndarray, labels: np.ndarray, classes: int) -> Pair:
    """Both as tensors. Raises `DataError` where they are not bytes `[n, 3, 32, 32]` and a class for each."""
    fits = images.shape == (len(labels), 3, 32, 32) and images.dtype == np.uint8 and labels.ndim == 1
    if not fits or not len(labels) or not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(
            f"{path} has images of shape {images.shape} ({images.dtype}) and labels of shape {labels.shape}, expected "
            f"bytes of 32x32 in three colours, and a label of 0 to {classes - 1} for each. "
            f"Delete the file and run again."
        )
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def damaged(path: Path, error: Exception) -> DataError:
    """What to say of a file that cannot be read."""
    return DataError(f"{path} is damaged: {type(error).__name__}: {error}. Delete it and run again.")


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays, and nothing else: a pickle could run any code."""

    # NumPy has moved this function between versions; the archives name its place of 2009.
    _rebuild = np.empty(0).__reduce__()[0]
    _allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _rebuild,
        ("numpy._core.multiarray", "_reconstruct"): _rebuild,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array does not need") from None


def _unpickled(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    return PlainUnpickler(io.BytesIO(member.read()), encoding="bytes").load()
