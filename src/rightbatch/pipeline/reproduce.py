"""`reproduce`: run one file of `reproductions/`, hold what it measures to what was claimed, write record and page."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from rightbatch.errors import InputError, RightbatchError
from rightbatch.loading import as_module
from rightbatch.machine import processor
from rightbatch.reproduction import (
    SIZES,
    Claim,
    Comparison,
    Measured,
    Reproduction,
    Result,
    Size,
    Store,
    Watch,
    unwatched,
)

T = TypeVar("T")

FOLDER = Path("reproductions")
"""Where reproductions lie, seen from the top of a clone."""

PACKAGES = ("rightbatch", "numpy", "scipy", "torch")
"""The packages whose versions a record names, where they are installed."""


def reproductions(folder: str | Path | None = None) -> tuple[Reproduction, ...]:
    """Every reproduction of a folder, by name: the folder is the registry.

    Raises `InputError` when there is no such folder, or a file of it is not a reproduction.
    """
    return tuple(_load(path) for path in _files(Path(folder or FOLDER)))


def recorded(name: str, size: Size, folder: str | Path | None = None) -> Result | None:
    """The result that is recorded in the folder for a size; None if there is none."""
    path = Path(folder or FOLDER) / "results" / f"{name}-{size}.json"
    return Result.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def reproduce(
    name: str,
    *,
    size: Size = "small",
    folder: str | Path | None = None,
    out: str | Path | None = None,
    again: bool = False,
    watch: Watch = unwatched,
) -> Result:
    """Run a reproduction, or go on where it was interrupted; write `NAME-SIZE.json` and `NAME-SIZE.html`.

    A claim that fails is part of the result and no error: `Result.holds` says whether all hold (the command line
    returns 0 if they do and 3 if not).

    Parameters
    ----------
    name: That of a file in the folder, without `.py`.
    size: "smoke", "small" or "paper".
    folder: Where reproductions lie; None: `reproductions` in the current folder.
    out: Where to write, and to keep units of work until then and after; None: `results` in the folder.
    again: Forget the units that were kept and begin anew.
    watch: Is told of every unit of work as it is done.

    Raises
    ------
    InputError: For an unknown name or size, a reproduction that raises, or a folder that cannot be written.
    """
    path = _path_of(name, size, folder)
    home, reproduction = path.parent, _load(path)
    target = Path(out) if out else home / "results"
    # Of the file and of those that help it, _NAME*.py.
    code = hashlib.sha256(b"".join(file.read_bytes() for file in (path, *sorted(home.glob(f"_{name}*.py")))))
    units = target / f"{name}-{size}.units.jsonl"
    header = {"name": name, "size": size, "code": code.hexdigest()[:16], "rightbatch": version("rightbatch")}
    with Store(units, header, again=again, watch=watch) as store:
        # Through JSON, so that what is compared now is what anyone can compare again from the record.
        measured: Measured = _told(path, lambda: json.loads(json.dumps(reproduction.run(size, store), allow_nan=False)))
        seconds = store.seconds
    result = Result(
        name=name,
        size=size,
        measured=measured,
        command=f"rightbatch reproduce {name} --size {size}",
        code=header["code"],
        date=datetime.now(UTC).date().isoformat(),
        seconds=seconds,
        machine=_machine(),
        versions=_versions(),
        **_judged(path, reproduction, size, measured),
    )
    _write(path, reproduction, result, target)
    return result


def retell(
    name: str, *, size: Size = "small", folder: str | Path | None = None, out: str | Path | None = None
) -> Result:
    """Hold what was recorded to today's claims, and tell it with today's notes and figure; nothing is measured again.

    When, where, by which code and in how many seconds it was measured stays as it was recorded. Parameters and errors
    as of `reproduce`; also `InputError` where nothing is recorded.
    """
    path = _path_of(name, size, folder)
    reproduction, result = _load(path), recorded(name, size, path.parent)
    if result is None:
        raise InputError(f"Nothing is recorded of {name!r} in the size {size!r}. Measure it, without --retell.")
    result = replace(result, **_judged(path, reproduction, size, result.measured))
    _write(path, reproduction, result, Path(out) if out else path.parent / "results")
    return result


def _judged(path: Path, reproduction: Reproduction, size: Size, measured: Measured) -> dict[str, Any]:
    """The fields of a result that what was measured, and the file as it is, decide."""
    comparisons = _told(path, lambda: reproduction.compare(measured))
    claims = reproduction.claims_of(size)
    _check_complete(path, claims, comparisons)
    return {
        "title": reproduction.title,
        "source": reproduction.source,
        "claims": claims,
        "comparisons": comparisons,
        "smallest_effect": reproduction.smallest_effect,
        "smallest_effect_reason": reproduction.smallest_effect_reason,
        "notes": _told(path, lambda: reproduction.notes(measured) if reproduction.notes else ()),
        "seed": reproduction.seed,
        "budget_seconds": reproduction.budget_seconds[size],
    }


def _write(path: Path, reproduction: Reproduction, result: Result, folder: Path) -> None:
    from rightbatch.report.reproduction_page import reproduction_page  # charts take half a second to import

    chart = _told(path, lambda: reproduction.figure(result.measured) if reproduction.figure else None)
    page = reproduction_page(result, chart, reproduction.caption)
    try:
        (folder / f"{result.name}-{result.size}.json").write_text(result.to_json(), encoding="utf-8")
        (folder / f"{result.name}-{result.size}.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Choose another folder with --out.") from error


# -------------------------------------------------------------------------------------------------- the registry


def _path_of(name: str, size: Size, folder: str | Path | None) -> Path:
    """The file of a reproduction. Raises `InputError` for a size or a name that there is not."""
    if size not in SIZES:
        raise InputError(f"A reproduction has the sizes {', '.join(SIZES)}, got {size!r}.")
    home = Path(folder or FOLDER)
    path = home / f"{name}.py"
    if path not in _files(home):
        names = ", ".join(file.stem for file in _files(home)) or "none"
        raise InputError(f"There is no reproduction {name!r} in {home}; it has: {names}.")
    return path


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}. Reproductions are part of a clone of rightbatch, not of the installed "
            f"package: run this at its top, or name the folder with --folder."
        )
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def _load(path: Path) -> Reproduction:
    # Under a name of its own, so that a reproduction may be called like any module.
    # It imports files of its own, `_<name>*.py`.
    module = _told(path, as_module(path, f"rightbatch_reproduction_{path.stem}"))
    found = getattr(module, "REPRODUCTION", None)
    if not isinstance(found, Reproduction):
        raise InputError(f"{path} has no REPRODUCTION = Reproduction(...), found {type(found).__name__}.")
    if found.name != path.stem:
        raise InputError(f"{path} holds a reproduction named {found.name!r}. Name the file or the reproduction anew.")
    return found


def _told(path: Path, work: Callable[[], T]) -> T:
    """What a file's own code gives; what it raises becomes an error that says where."""
    try:
        return work()
    except RightbatchError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} raised {type(error).__name__}: {error}. Run with --debug for the whole traceback; units of work "
            f"that were done are kept."
        ) from error


def _check_complete(path: Path, claims: tuple[Claim, ...], comparisons: tuple[Comparison, ...]) -> None:
    """Every claim of the size is compared once, in the order of the claims: none can be forgotten."""
    due, done = [claim.identifier for claim in claims], [comparison.claim for comparison in comparisons]
    if due != done:
        missing = [name for name in due if name not in done]
        extra = [name for name in done if name not in due]
        raise InputError(
            f"{path} must compare every claim of the size once and in their order; missing: {missing}, "
            f"unexpected: {extra}."
        )


# ------------------------------------------------------------------------------------------- where it was made


def _machine() -> dict[str, str | int]:
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
