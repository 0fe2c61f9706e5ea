"""What is trained for `recurrent.py`: characters by a GRU and an LSTM, words by an LSTM in many streams or eight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from rightbatch import Workload
from rightbatch.bundled import char_lm, wikitext2
from rightbatch.bundled.wikitext2 import WINDOW, Window, WordModel, next_word, streams

EVALUATED = 200
"""Windows of the validation data: more would cost as much as training."""

VOCABULARY = 1000
"""Half of that of the bundled workload, whose head over all words is most of the work."""

FEW_STREAMS = 8
SHORT = 1000
"""Windows of a text so short that a dozen passes over it are enough."""


def lstm() -> Workload:
    """Characters by 128 LSTM units; the state begins anew in every window."""
    return _characters(char_lm.lstm(), "LSTM, characters")


def gru() -> Workload:
    """Characters by 128 gated recurrent units."""
    return _characters(char_lm.gru(), "GRU, characters")


def lstm_short() -> Workload:
    """The LSTM on the first 64,000 characters."""
    return _short(lstm())


def gru_short() -> Workload:
    """The GRU on the first 64,000 characters."""
    return _short(gru())


def lstm_smoke() -> Workload:
    """The LSTM to a loss that it reaches in a second: whether everything runs."""
    return replace(char_lm.lstm(), name="LSTM, characters, smoke", target=3.0, evaluation_examples=50)


def words() -> Workload:
    """Words by 128 LSTM units, in as many streams as a batch has examples; the 1,000 most frequent words."""
    flush_tiny_numbers()
    made = wikitext2.wikitext2()
    text, judged = (_fewer(_read_through(data)) for data in (made.data, made.valid))
    return replace(
        made,
        name="LSTM, words",
        model=lambda: WordModel(VOCABULARY),
        data=lambda batch_size, seed: streams(text, batch_size, seed),
        valid=lambda batch_size, _: streams(judged[: EVALUATED * WINDOW + 1], batch_size),
        target=50.0,
        evaluation_examples=EVALUATED,
    )


def words_in_few_streams() -> Workload:
    """The same in eight streams at every batch size: a larger batch takes more windows of each, one after another."""
    made = words()
    text = _read_through(made.data)
    return replace(
        made,
        name="LSTM, words, eight streams",
        data=lambda batch_size, seed: bundles(text, batch_size, seed),
        loss=next_word_by_window,
        present=(FEW_STREAMS, 10.0),
    )


def bundles(text: torch.Tensor, batch_size: int, seed: int | None = None) -> Iterator[Window]:
    """Batches of eight streams side by side, `[8, batch_size / 8 * 35]`: so many windows of each as make up the batch.

    Windows at the end of a pass that do not make up a batch are left out.
    """
    each = batch_size // FEW_STREAMS
    windows = list(streams(text, FEW_STREAMS, seed))
    for start in range(0, len(windows) - each + 1, each):
        bundle = windows[start : start + each]
        words, targets = (torch.cat([window[part] for window in bundle], dim=1) for part in (0, 1))
        yield words, targets, start == 0


def next_word_by_window(model: Any, batch: Window) -> tuple[torch.Tensor, int]:
    """Summed losses and their number. The state goes from window to window, the gradient does not: as in one window."""
    words, targets, first = batch
    parts = [
        next_word(model, (words[:, at : at + WINDOW], targets[:, at : at + WINDOW], first and at == 0))
        for at in range(0, words.shape[1], WINDOW)
    ]
    return torch.stack([total for total, _ in parts]).sum(), sum(count for _, count in parts)


def flush_tiny_numbers() -> None:
    """Numbers below 1e-38 become 0 in this process: at rates far too high they made steps ten times as slow."""
    torch.set_flush_denormal(True)


def _characters(made: Workload, name: str) -> Workload:
    flush_tiny_numbers()
    return replace(made, name=name, target=2.1, evaluation_examples=EVALUATED)


def _short(made: Workload) -> Workload:
    return replace(made, name=f"{made.name}, short text", data=made.data[:SHORT].clone())


def _read_through(data: Any) -> torch.Tensor:
    """The text that a function gives in windows, `[words]`: read as one stream from its beginning."""
    windows = list(data(1, None))
    return torch.cat([*(words for words, _, _ in windows), windows[-1][1][:, -1:]], dim=1)[0]


def _fewer(text: torch.Tensor) -> torch.Tensor:
    """Codes go by how frequent a word is, `<unk>` being 0: what is rarer than the first 1,000 becomes that."""
    return torch.where(text < VOCABULARY, text, 0)
