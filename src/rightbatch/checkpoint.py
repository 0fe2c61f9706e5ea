"""Weights that runs start from: read once, and the same for all of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rightbatch.errors import InputError
from rightbatch.raised import MemoryExhausted, explained
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload


@dataclass(frozen=True)
class Checkpoint:
    """Weights that runs start from: a file, and the SHA-256 that it had when it was first read."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """The checkpoint in a file; one that was read before as it is. Raises `InputError` where it cannot be read."""
        if isinstance(path, Checkpoint):
            return path
        return cls(Path(path).absolute(), hashlib.sha256(_bytes_of(Path(path))).hexdigest())

    def __fspath__(self) -> str:
        return str(self.path)

    def weights(self) -> dict[str, Any]:
        """The state dict in the file, or the one it has under "model" or "state_dict". A file never runs code.

        Raises `InputError` where there is none, or the file has changed since it was first read.
        """
        content = _bytes_of(self.path)
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InputError(
                f"The checkpoint {self.path} has changed since this search began, and its runs must all start from "
                f"the same weights. Give a copy that nobody writes."
            )
        try:
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no type for a damaged file, nor for one that would run code
            raise InputError(
                f"The checkpoint {self.path} cannot be read as weights alone ({type(error).__name__}). Save the state "
                f"dict: torch.save(model.state_dict(), PATH)."
            ) from error
        for name in ("model", "state_dict"):
            if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
                return loaded[name]  # type: ignore[no-any-return]
        if not isinstance(loaded, dict):
            raise InputError(
                f"The checkpoint {self.path} holds a {type(loaded).__name__}, expected a state dict, or a dict with "
                f"one under 'model' or 'state_dict'. Save one: torch.save(model.state_dict(), PATH)."
            )
        return loaded


def starting_from(workload: Workload, checkpoint: Checkpoint) -> Workload:
    """The same workload, its model made with the weights of a checkpoint.

    Raises `InputError` where they do not fit the model: it is tried at once.
    """
    weights, make = checkpoint.weights(), workload.model

    @functools.wraps(make)
    def model() -> torch.nn.Module:
        made = make()
        _load_weights(made, weights, checkpoint.path)
        return made

    # A model that does not fit into memory: the first run says so.
    with (
        contextlib.suppress(MemoryExhausted),
        RandomStreams(0).active(),
        explained("while the model was made to be given the weights of a checkpoint"),
    ):
        model()
    return replace(workload, model=model)


def _load_weights(model: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of shapes that differ, each named
        raise InputError(
            f"The checkpoint {path} does not fit the model: {error}. Give weights of this model."
        ) from error
    if missing or unexpected:
        said = [
            f"{what} {_named(names)}"
            for what, names in (("it lacks", missing), ("the model has no", unexpected))
            if names
        ]
        raise InputError(
            f"The checkpoint {path} does not fit the model: {'; '.join(said)}. Give weights of this model."
        )


def _named(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The checkpoint {path} cannot be read: {error.strerror}. Give the path of a file.") from error
