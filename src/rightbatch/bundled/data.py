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
    """One file of a data set: its path below a data folder, where it is published, and its SHA-256.

    Several SHA-256 where the same content is published in several forms (line ends, headers).
    """

    path: str
    address: str
    sha256: str | tuple[str, ...]

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every SHA-256 that a download may have."""
        return (self.sha256,) if isinstance(self.sha256, str) else self.sha256


def find(file: DataFile) -> Path:
    """The local path of a data file, downloaded if need be.

    Raises `DataError` when it can neither be found nor downloaded, or when its content is not what was published.
    """
    if (path := local(file.path)) is not None:
        return path
    cached = cache_folder() / file.path
    _download(file, cached)
    return cached


def local(path: str) -> Path | None:
    """Where a file is on this machine, by its path below a data folder; None where it would have to be downloaded."""
    named = os.environ.get("RIGHTBATCH_DATA")
    folders = [Path(named), cache_folder()] if named else [cache_folder()]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises `DataError` where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}. Delete it and run again.") from error


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
            if digest.hexdigest() not in file.accepted:
                raise DataError(
                    f"{file.address} gave a file with SHA-256 {digest.hexdigest()}, "
                    f"expected {' or '.join(file.accepted)}. "
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
