"""Where data sets are: in the folder that RIGHTBATCH_DATA names, else in a cache, else downloaded with a checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rightbatch.errors import DataError

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its path below a data folder, where it is published, and its SHA-256."""

    path: str
    address: str
    sha256: str


def find(file: DataFile) -> Path:
    """The local path of a data file, downloaded if need be.

    Raises `DataError` when it can neither be found nor downloaded, or when its content is not what was published.
    """
    named = os.environ.get("RIGHTBATCH_DATA")
    if named and (path := Path(named) / file.path).is_file():
        return path
    cached = cache_folder() / file.path
    if not cached.is_file():
        _download(file, cached)
    return cached


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/rightbatch`, by default `~/.cache/rightbatch`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rightbatch"


def _download(file: DataFile, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{file.path} is not on this machine and {path.parent} cannot be made for it: {error}. "
            f"Set RIGHTBATCH_DATA to a folder that has {file.path}, or XDG_CACHE_HOME to one that can be written."
        ) from error
    digest = hashlib.sha256()
    # Written beside its place and moved when whole and right: a download that breaks off leaves nothing behind.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
        try:
            with urllib.request.urlopen(file.address, timeout=TIMEOUT_SECONDS) as answer:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    part.write(block)
            if digest.hexdigest() != file.sha256:
                raise DataError(
                    f"{file.address} gave a file with SHA-256 {digest.hexdigest()}, expected {file.sha256}. "
                    f"Nothing was kept. Get the file elsewhere and put it at $RIGHTBATCH_DATA/{file.path}."
                )
            part.close()
            Path(part.name).replace(path)
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise DataError(
                f"{file.path} is not on this machine and could not be downloaded from {file.address}: {error}. "
                f"Set RIGHTBATCH_DATA to a folder that has {file.path}, or connect to the network."
            ) from error
        finally:
            Path(part.name).unlink(missing_ok=True)
