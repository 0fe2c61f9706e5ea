"""A function out of a person's own Python file."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from rightbatch.errors import InputError, WorkloadError


def load_function(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of the file at `path`, which is run as a module; its folder is importable meanwhile.

    Raises `InputError` when there is no such file or function, `WorkloadError` when the file raises.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(f"There is no file {path}.")
    run = as_module(file, file.stem)
    try:
        module = run()
    except Exception as error:
        raise WorkloadError(
            f"{path} raised {type(error).__name__}: {error}. Run with --debug for the whole traceback."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has no function {name!r}; it has: {', '.join(found) or 'none'}.")
    return function  # type: ignore[no-any-return]


def functions_of(path: str) -> tuple[str, ...]:
    """The public functions at the top of a file, which is not run; none of what cannot be read."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))


def as_module(file: Path, name: str) -> Callable[[], ModuleType]:
    """What runs a file as a module of this name and gives it; the file's folder is importable meanwhile.

    Raises `InputError` for what is no Python; the call raises whatever the file raises.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} cannot be loaded as Python.")
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def run() -> ModuleType:
        sys.path.insert(0, str(file.parent))
        sys.modules[name] = module  # so that classes defined there can be pickled
        try:
            loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
        return module

    return run
