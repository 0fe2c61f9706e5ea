"""Every command that README and site show is run, page by page and in their order, on files that are made from them."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rightbatch.bundled.data import local
from rightbatch.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {"README": ROOT / "README.md", **{path.stem: path for path in sorted(DOCS.glob("*.md"))}}

HASTE = {
    "find": "--batch-sizes 64,256 --seeds 1 --threads 1 --budget 3s",
    "sweep my.py:make": "--seeds 1 --threads 1 --planned-examples 20000 --rates 0.003,0.01",
    "sweep digits": "--seeds 1 --threads 1 --planned-examples 8000",
    "sweep tabular:a9a-emso": "--seeds 1 --threads 1 --rates 0.1 --target 0.36 --until target --planned-examples 40000",
    "profile": "--batch-sizes 64,256 --rounds 3",
    "noise": "--steps 30",
    "branches": "--seeds 2 --factors 4 --rules linear",
    "memory": "--limit 1GB",
    "replay": "--repeats 1 --units 0.5 --workers 1",
    "sharpness": "--examples 300 --curvature-examples 100",
    "posterior": "--passes 8 --noise-examples 300 --examples 300",
}
"""What is added to a verb, or to a verb and a workload, where it does not say it, so that it is soon done."""

ELSEWHERE = {
    "reproduce": "tests/test_reproduction_*.py run each of them at the size `smoke`",
    "COMMAND": "a verb of any name",
    "STUDY": "the form of a command",
}

SWEPT = "--batch-sizes 64,256 --until horizon --keep-models last"
"""What leaves a study, with weights, for the commands of a page."""

DONE, NO_ANSWER = 0, 3
"""Exit codes: a budget of three seconds may end before there is an answer."""


def commands(page: str) -> list[str]:
    """Commands in the order of a page, those in a line of text too; what is only the name of a verb is not one."""
    text = PAGES[page].read_text(encoding="utf-8")
    shown = re.findall(r"^    (rightbatch .*)$|`(rightbatch [a-z]+ [^`]+)`", text, re.MULTILINE)
    lines = [(block or inline).split("#")[0].strip() for block, inline in shown]
    return [line for line in dict.fromkeys(lines) if not any(word in line.split() for word in ELSEWHERE)]


def first_shown() -> dict[str, list[str]]:
    """By page its commands that no page before it shows: once is enough, and the others begin with what those leave."""
    seen: set[str] = set()
    found = {}
    for page in PAGES:
        new = [line for line in commands(page) if line not in seen]
        seen.update(new)
        if new:
            found[page] = new
    return found


def hastened(words: Sequence[str]) -> list[str]:
    """With options that have it end soon, before what belongs to a program of one's own."""
    verb, *rest = words
    own = rest.index("--") if "--" in rest else len(rest)
    # A program takes seconds before it trains.
    haste = HASTE.get(verb, HASTE.get(" ".join(words[:2]), ""))
    extra = shlex.split(haste.replace("3s", "6s" if "--" in rest else "3s"))
    pairs = [pair for pair in zip(extra[::2], extra[1::2], strict=True) if pair[0] not in rest[:own]]
    return [verb, *rest[:own], *(word for pair in pairs for word in pair), *rest[own:]]


def files(folder: Path) -> None:
    """`my.py` as the page on Workloads has it, its loop `train`, a script, a checkpoint."""
    import torch

    (block, *_) = re.findall(r"```python\n(.*?)```", PAGES["own-workload"].read_text(encoding="utf-8"), re.DOTALL)
    loop = (ROOT / "examples" / "sklearn_partial_fit.py").read_text(encoding="utf-8").split('"""', 2)[2]
    (folder / "my.py").write_text(f"{block}\n\n{loop}", encoding="utf-8")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "plain_script.py", folder / "train.py")
    (folder / "benchmarks" / "tables").mkdir(parents=True)
    shutil.copy(ROOT / "benchmarks" / "tables" / "letter.csv.gz", folder / "benchmarks" / "tables")
    names: dict[str, object] = {"__name__": "my"}
    exec(block, names)
    torch.save(names["make"]().model().state_dict(), folder / "weights.pt")  # type: ignore[operator]


@pytest.mark.parametrize("page", first_shown())
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    if page == "emso" and local("libsvm/a9a") is None:
        pytest.skip("a9a is not at hand")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    files(tmp_path)
    shown = first_shown()[page]
    if any("mine.study.db" in line for line in shown):
        shown = [f"rightbatch sweep my.py:make {SWEPT}", *shown]
    for line in shown:
        words = hastened(shlex.split(line)[1:])
        monkeypatch.setattr(sys, "argv", ["rightbatch", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        allowed = (DONE, NO_ANSWER) if words[0] in ("find", "show") else (DONE,)
        assert ended.value.code in allowed, f"{line}\n{said.out}\n{said.err}"
        assert said.out if ended.value.code == DONE else said.err, line
