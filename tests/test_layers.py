"""Imports go one way, and everything but the tensor wing imports without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rightbatch

ROOT = Path(rightbatch.__file__).parent

LAYERS = [
    ["errors", "findings", "machine", "nearness", "streams", "wording"],
    ["records", "raised", "memory_room"],
    ["batch_schedule"],
    ["minima", "typed"],
    ["curves", "lattice"],
    ["ends", "question"],
    ["fit"],
    ["means", "controllers", "directions"],
    ["another_batch", "cells", "seconds"],
    ["evidence", "generalization"],
    ["temperatures"],
    ["growth", "left_out"],
    ["zones", "rules"],
    ["search"],
    ["answer", "memory_answer", "shortfall"],
    ["advice", "cautions"],
    ["recommend"],
    ["store", "runner", "reproduction"],
    ["tables", "commands", "loops", "worker", "report"],
    ["testing", "worker_process", "replay"],
    ["probing", "workers"],
    ["bundled", "loading"],
    ["pipeline"],
    ["cli", "plots"],
]
"""From the ground up: a room imports only from rows above its own, or from itself."""

TENSOR_WING = {
    "accumulation",
    "adaptive_accumulation",
    "adaptive_sampler",
    "batches",
    "branching",
    "checkpoint",
    "checks",
    "closures",
    "engine",
    "evaluation",
    "gradients",
    "losses",
    "online",
    "measure",
    "parts",
    "retrying",
    "schedules",
    "landscape",
    "optim",
    "steering",
    "stepping",
    "trainers",
    "update",
    "weights",
    "workload",
}
MAY_BE_IMPORTED_THERE = {
    "errors",
    "findings",
    "machine",
    "memory_room",
    "minima",
    "streams",
    "wording",
    "raised",
    "records",
    "curves",
    "batch_schedule",
    "controllers",
    "directions",
    "fit",
    "runner",
}
TENSOR_WING_MAY_IMPORT = MAY_BE_IMPORTED_THERE | TENSOR_WING
TENSOR_FILES_OF_BUNDLED = {
    "char_lm.py",
    "cifar.py",
    "cifar100.py",
    "classification.py",
    "digits.py",
    "fashion_mnist.py",
    "mnist.py",
    "quadratic.py",
    "rows.py",
    "tabular.py",
    "wikitext2.py",
}


def modules() -> list[tuple[Path, str]]:
    """Every file with the room that it belongs to."""
    files = sorted(ROOT.rglob("*.py"))
    return [(f, f.relative_to(ROOT).parts[0].removesuffix(".py")) for f in files if f.name != "__main__.py"]


def imported_rooms(path: Path) -> set[tuple[str, bool]]:
    """Rooms that a file imports, and whether it does so when it is itself imported (not inside a function)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    local = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    rooms = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rightbatch"):
            names = [node.module or ""] if node.module != "rightbatch" else [f"rightbatch.{a.name}" for a in node.names]
            rooms |= {(name.split(".")[1], id(node) not in local) for name in names}
    return rooms


@pytest.mark.parametrize(("path", "room"), modules(), ids=lambda value: getattr(value, "name", value))
def test_imports_go_one_way(path: Path, room: str) -> None:
    if room == "__init__":
        return
    level = {name: k for k, row in enumerate(LAYERS) for name in row}
    for other, at_import in imported_rooms(path):
        if other in (room, "__version__"):
            continue
        if room in TENSOR_WING:
            assert other in TENSOR_WING_MAY_IMPORT, f"{path.name} (tensor wing) imports {other}"
        elif other in TENSOR_WING:
            bundled = room == "bundled" and path.name in TENSOR_FILES_OF_BUNDLED
            assert bundled or not at_import, f"{path.name} imports the tensor wing ({other}) when it is imported"
        else:
            assert level[other] < level[room], f"{path.name} ({room}) imports {other}, which stands no lower"


def test_every_room_has_a_place() -> None:
    placed = {name for row in LAYERS for name in row} | TENSOR_WING | {"__init__"}
    assert {room for _, room in modules()} == placed


def test_only_the_tensor_wing_imports_torch() -> None:
    for path, room in modules():
        text = path.read_text(encoding="utf-8")
        has_torch = any(line.startswith(("import torch", "from torch")) for line in text.splitlines())
        tensor = room in TENSOR_WING or path.name in TENSOR_FILES_OF_BUNDLED
        assert has_torch <= tensor, f"{path} imports torch at the top"


def test_everything_else_works_where_torch_is_not_installed(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "golden" / "version-1.study.db"
    program = f"""
import sys
class NoTorch:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch)
from rightbatch.cli import app
for arguments in (
    ["workloads"],
    ["show", {str(golden)!r}, "--json"],
    ["report", {str(golden)!r}, "--out", {str(tmp_path / "page.html")!r}],
    ["export", {str(golden)!r}, {str(tmp_path / "runs.csv")!r}],
):
    app(args=arguments, standalone_mode=False)
try:
    app(args=["find", "digits", "--study", {str(tmp_path / "x.study.db")!r}], standalone_mode=False)
except Exception as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "pip install 'rightbatch[torch]'" in done.stdout.splitlines()[-1]
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert (tmp_path / "runs.csv").read_text().startswith("workload,batch_size,")
