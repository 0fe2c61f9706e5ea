"""The page on EMSO: its code runs, and gives what it says."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import torch.distributed as dist

PAGE = Path(__file__).parents[2] / "docs" / "emso.md"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the gloo backend")
def test_the_code_of_the_page_runs_and_gives_what_it_says(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "RANK": 0, "WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    names: dict = {}
    try:
        for number, block in enumerate(blocks):
            exec(compile(block, str(PAGE), "exec"), names)
            if number == 0:
                assert names["optimizer"].evaluations == 300
                assert names["accuracy"] > 0.9
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    assert round(names["bound"], 3) == 0.028
    assert names["right"] > 0.85
    assert names["answer"].batch_size in (32, 128, 512)
