"""Images and labels as MNIST and Fashion-MNIST are published: gzipped arrays of bytes, with their shape before them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from rightbatch.errors import DataError


def read_idx(path: Path) -> np.ndarray:
    """An array in the idx format: a magic number that ends in the number of dimensions, the sizes, the bytes.

    Raises `DataError` for anything else.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}. Delete it and run again.") from error
    if content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of bytes: it begins with {content[:4]!r}. Delete it and run again.")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if values.size != shape.prod():
        raise DataError(f"{path} has {values.size} values, its header says {shape.prod()}. Delete it and run again.")
    return values.reshape(shape).copy()
