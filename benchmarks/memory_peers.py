"""The largest batch by published tools and by ours, on the same workloads under the same limits.

    PYTHONPATH=/where/the/tools/are python benchmarks/memory_peers.py --out benchmarks/memory_peers.json

Lightning's tuner (power, binsearch), Accelerate's `find_executable_batch_size`, the HF Trainer's
`auto_find_batch_size`, `rightbatch memory` and `rightbatch.within_memory`, each as it is by itself, in a process of its
own. A batch of 16,384 (GRU: 4,096) is wished where a tool takes a wish; Accelerate, the HF Trainer and `within_memory`
train at most 8 steps. Two kinds of limit: "raises", an allocation beyond it fails, as on a GPU; "kills", a control
group has it and the kernel kills who takes more, as in a container (as root, version 1). What a process holds before
there is a model counts.

The truth is the largest size that trains a pass over the data while it holds no more than the limit, to 1 %.
`answer_trains`: whether the answer does. `tries`: sizes begun; `answer_ran`: whether the answer was one of them.
`effective_batch` and `rate_factor`: what is trained with in the end, and by how much the tool has changed the rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from memory_limits import CASES, group, held_in_a_pass  # a file beside this one
from torch.utils.data import DataLoader, Dataset

import rightbatch
from rightbatch.memory_room import data_limit, held_bytes, parse_bytes
from rightbatch.pipeline.runners import as_runner
from rightbatch.records import Trial
from rightbatch.workload import Workload

WISHES = {"fashion_mnist:cnn": 16384, "char_lm:gru": 4096}
RATE, STEPS = 1e-3, 8


class Rows(Dataset[Any]):
    """The training data as most people have it: an example at a time."""

    def __init__(self, data: Any) -> None:
        self.data = data if isinstance(data, tuple) else (data,)

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> Any:
        row = tuple(column[index] for column in self.data)
        return row if len(row) > 1 else row[0]


class Seen:
    """The loss of a workload, and of which sizes it was asked."""

    def __init__(self, workload: Workload) -> None:
        self.workload, self.rows, self.wish = workload, Rows(workload.data), WISHES[workload.name]
        self.sizes: list[int] = []

    def losses(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        size = len(batch[0] if isinstance(batch, list | tuple) else batch)
        if size not in self.sizes:
            self.sizes.append(size)
        losses: torch.Tensor = self.workload.loss(model, batch)
        return losses

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return self.losses(model, batch).mean()

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return self.workload.optimizer(model.parameters(), self.workload.complete(Trial(self.wish, RATE, 0)))

    def batches(self, size: int) -> Iterator[Any]:
        return iter(DataLoader(self.rows, batch_size=size, shuffle=True, drop_last=True))


Found = dict[str, Any]
"""The answer, and what is trained with: micro-batch, effective batch, rate."""


def lightning(seen: Seen, mode: str) -> Found:
    import lightning as pl
    from lightning.pytorch.tuner import Tuner

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.batch_size = seen.workload.model(), 2

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return seen.loss(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return seen.optimizer(self.model)

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(seen.rows, batch_size=self.batch_size, shuffle=True)

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        module = Module()
        answer = Tuner(trainer).scale_batch_size(module, mode=mode)
    return {"answer": answer, "effective_batch": module.batch_size, "rate_factor": 1.0}


def accelerate(seen: Seen) -> Found:
    from accelerate.utils import find_executable_batch_size

    @find_executable_batch_size(starting_batch_size=seen.wish)  # type: ignore[untyped-decorator]
    def train(batch_size: int) -> Found:
        model = seen.workload.model()
        optimizer = seen.optimizer(model)
        for _, batch in zip(range(STEPS), seen.batches(batch_size), strict=False):
            optimizer.zero_grad()
            seen.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        return {"answer": batch_size, "effective_batch": batch_size, "rate_factor": rate / RATE}

    found: Found = train()
    return found


def trainer(seen: Seen) -> Found:
    from transformers import Trainer, TrainingArguments

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = seen.workload.model()

        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": seen.loss(self.model, batch)}

    def collate(rows: list[Any]) -> dict[str, Any]:
        return {"batch": torch.utils.data.default_collate(rows)}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=seen.wish, auto_find_batch_size=True, max_steps=STEPS,
            learning_rate=RATE, lr_scheduler_type="constant", use_cpu=True, report_to=[], save_strategy="no",
            disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip
        model = Wrapped()
        optimizer = seen.optimizer(model)
        made = Trainer(
            model=model, args=arguments, train_dataset=seen.rows, data_collator=collate, optimizers=(optimizer, None)
        )
        made.train()
        answer = made.state.train_batch_size
    rate = optimizer.param_groups[0]["lr"]
    said = arguments.per_device_train_batch_size
    return {"answer": answer, "effective_batch": answer, "rate_factor": rate / RATE, "its_arguments_say": said}


def within_memory(seen: Seen, limit: int | None) -> Found:
    @rightbatch.within_memory(batch_size=seen.wish, limit=limit)
    def train(attempt: Any) -> Found:
        model = seen.workload.model()
        optimizer = seen.optimizer(model)

        for _, batch in zip(range(STEPS), seen.batches(seen.wish), strict=False):
            optimizer.zero_grad()
            attempt.backward(seen.losses, model, batch)
            optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        answer = attempt.micro_batch_size
        return {"answer": answer, "effective_batch": attempt.batch_size, "rate_factor": rate / RATE}

    return train()


TOOLS: dict[str, Callable[[Seen], Found]] = {
    "Lightning, power": partial(lightning, mode="power"),
    "Lightning, binsearch": partial(lightning, mode="binsearch"),
    "Accelerate": accelerate,
    "HF Trainer": trainer,
}
OURS = ("rightbatch memory", "rightbatch.within_memory")


def one(tool: str, workload: str, limit: int | None) -> Found:
    """What a tool answers, in this process; with `limit`, an allocation beyond it fails."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seen = Seen(as_runner(workload).workload)
    if tool == OURS[1]:
        found = within_memory(seen, limit)
    else:
        with data_limit(2**50 if limit is None else limit - held_bytes()):
            found = TOOLS[tool](seen)
    return {**found, "tried": seen.sizes}


def apart(tool: str, workload: str, limit: int, kind: str) -> dict[str, Any]:
    """What a tool answers, in a process of its own, and whether that trains."""
    stated = str(limit) if kind == "raises" else None
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as ends:
        if tool == OURS[0]:
            study = ["--study", f"{scratch}/a.study.db", *(["--limit", stated] if stated else [])]
            wish = ["--wish", str(WISHES[workload]), "--threads", "1", "--json"]
            command = [sys.executable, "-m", "rightbatch", "memory", workload, *wish, *study]
        else:
            command = [sys.executable, __file__, "--one", tool, workload, *([stated] if stated else [])]
        if kind == "kills":
            folder = ends.enter_context(group(limit))
            if folder is None:
                return {}
            command = ["bash", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "enter", *command]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    row: dict[str, Any] = {"workload": workload, "limit_bytes": limit, "kind": kind, "tool": tool, "seconds": seconds}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        how = f"killed by signal {-done.returncode}" if done.returncode < 0 else lines[-1] if lines else "failed"
        return {**row, "answer": None, "why": how}
    found = said(json.loads(done.stdout)) if tool == OURS[0] else json.loads(done.stdout.strip().splitlines()[-1])
    tried = found.pop("tried")
    row |= {**found, "tries": len(tried), "tried": tried, "answer_ran": found["answer"] in tried}
    held = held_in_a_pass(workload, found["answer"])
    return {**row, "held_bytes": held, "answer_trains": held <= limit}


def said(report: dict[str, Any]) -> Found:
    """What `rightbatch memory --json` says, in the words of the others. It leaves the rate alone, and says so."""
    tried = [probe["micro_batch_size"] for probe in report["probes"]]
    effective = report["wished"]["batch_size"]
    return {"answer": report["batch_size"], "effective_batch": effective, "rate_factor": 1.0, "tried": tried}


def truth(workload: str, limit: int) -> tuple[int, int]:
    """The largest size known to train a pass within the limit, and the smallest known not to: within 1 %."""
    low, high = WISHES[workload] // 16, 2 * WISHES[workload]
    while high > 1.01 * low + 1:
        size = round((low * high) ** 0.5)
        if held_in_a_pass(workload, size) <= limit:
            low = size
        else:
            high = size
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/memory_peers.json"))
    given = parser.parse_args()
    if given.one:
        warnings.simplefilter("ignore")
        logging.disable(logging.INFO)
        tool, workload, *limit = given.one
        print("\n" + json.dumps(one(tool, workload, int(limit[0]) if limit else None)))
        return
    rows, truths = [], []
    for workload in WISHES:
        limit = parse_bytes(CASES[workload])
        most, too_large = truth(workload, limit)
        truths.append({"workload": workload, "limit_bytes": limit, "trains": most, "does_not": too_large})
        print(json.dumps(truths[-1]), flush=True)
        for kind in ("raises", "kills"):
            for tool in (*TOOLS, *OURS):
                row = apart(tool, workload, limit, kind)
                if row:
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "versions": {name: version(name) for name in ("lightning", "accelerate", "transformers")},
        "date": time.strftime("%Y-%m-%d"),
        "wished_batch": WISHES,
        "truths": truths,
        "rows": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
