"""WikiText-2: an LSTM that predicts the next word, with its state carried along parallel streams of text.

The text is WikiText-2 (S. Merity, C. Xiong, J. Bradbury and R. Socher, "Pointer Sentinel Mixture Models", ICLR 2017;
CC BY-SA 3.0): articles of Wikipedia, 2 million training words. The recipe is the classical one of truncated
backpropagation through time (W. Zaremba, I. Sutskever and O. Vinyals, "Recurrent Neural Network Regularization", 2014):
the text is cut into `batch_size` streams of equal length that are read side by side, in windows of 35 words, and the
hidden state goes from window to window without its gradient. So a larger batch cuts the text into shorter streams.

Made small enough for a few minutes on one core: the first 400,000 training words, the 2,000 most frequent of them (the
others are <unk>), one layer of 128 units whose embedding is also the output layer. An example is a window of 35 words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from rightbatch.bundled.data import DataFile, find, read_text
from rightbatch.errors import DataError
from rightbatch.records import Trial
from rightbatch.workload import Workload

BASE = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/"
TRAIN = DataFile(
    "wikitext2/wiki.train.tokens",
    BASE + "train.txt",
    "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
)
VALID = DataFile(
    "wikitext2/wiki.valid.tokens",
    BASE + "valid.txt",
    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
)
WINDOW = 35
"""Words that are predicted in one example."""
TRAIN_WORDS, VALID_WINDOWS, VALID_STREAMS = 400_000, 500, 20
VOCABULARY, HIDDEN = 2000, 128
UNKNOWN, END = "<unk>", "<eos>"

State = tuple[torch.Tensor, torch.Tensor]
Window = tuple[torch.Tensor, torch.Tensor, bool]
"""Words and the words after them, both `[batch_size, 35]`, and whether the streams begin here."""


def wikitext2() -> Workload:
    """One layer of 128 LSTM units, embeddings tied (390 thousand parameters), SGD with gradients clipped to 0.25.

    Batch size 20 at rate 10 reaches a validation perplexity of 45 after 16,000 windows, one pass and a half. Of so few
    words many are <unk>, which is easy to predict: it does not compare with perplexities of the whole vocabulary.
    """
    words, judged = _words(TRAIN, TRAIN_WORDS), _words(VALID, VALID_WINDOWS * WINDOW + 1)
    codes = vocabulary(words, VOCABULARY)
    text, judged_text = encode(words, codes), encode(judged, codes)
    return Workload(
        name="wikitext2",
        model=lambda: WordModel(len(codes)),
        data=lambda batch_size, seed: streams(text, batch_size, seed),
        valid=lambda batch_size, _: streams(judged_text, batch_size),
        loss=next_word,
        metric=perplexity,
        metric_on="set",
        optimizer=sgd,
        max_gradient_norm=0.25,
        train_examples=(TRAIN_WORDS - 1) // WINDOW,
        evaluation_examples=VALID_WINDOWS,
        evaluation_batch_size=VALID_STREAMS,
        present=(20, 10.0),
        target=45.0,
        planned_examples=4 * TRAIN_WORDS // WINDOW,
    )


class WordModel(nn.Module):
    """An LSTM between an embedding and its transpose. `carried` is the state in which training left the streams."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, HIDDEN)
        self.recurrent = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, words)
        self.head.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)
        self.carried: State | None = None

    def forward(self, words: torch.Tensor, state: State | None) -> tuple[torch.Tensor, State]:
        """Logits of the next words, `[batch_size, window, words]`, and the state after the window."""
        hidden, state = self.recurrent(self.embedding(words), state)
        return self.head(hidden), state

    def get_extra_state(self) -> State | None:
        """The carried state belongs to the state of a run: one that is killed goes on in the middle of its streams."""
        return self.carried

    def set_extra_state(self, state: State | None) -> None:
        device = self.embedding.weight.device
        self.carried = None if state is None else (state[0].to(device), state[1].to(device))


def next_word(model: Any, batch: Window) -> tuple[torch.Tensor, int]:
    """The sum of the cross-entropies of the next words in nats, and how many they are. Carries the state on."""
    words, targets, first = batch
    # Step times of several sizes are measured in turn on one model: the state of other streams is none for these.
    follows = not first and model.carried is not None and model.carried[0].shape[1] == len(words)
    logits, (hidden, cell) = model(words, model.carried if follows else None)
    model.carried = hidden.detach(), cell.detach()
    return _total(logits, targets), targets.numel()


def perplexity(model: Any, batches: Iterable[Window]) -> tuple[float, float]:
    """Loss in nats a word, and its exponential. The state is its own: that of training stays as it is."""
    state: State | None = None
    totals: list[torch.Tensor] = []
    count = 0
    for words, targets, first in batches:
        logits, state = model(words, None if first else state)
        totals.append(_total(logits, targets))
        count += targets.numel()
    loss = torch.stack(totals).double().sum() / count
    return float(loss), float(loss.exp())


def sgd(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Plain SGD at the trial's rate."""
    return torch.optim.SGD(parameters, lr=trial.learning_rate)


def streams(text: torch.Tensor, batch_size: int, seed: int | None = None) -> Iterator[Window]:
    """The windows of a text, cut into `batch_size` streams of equal length, in the order of reading.

    A seed shifts where the text is cut, by less than a stream, so that passes differ; what is shifted out at the
    beginning follows at the end. Words that do not fill a window in every stream are left out.
    """
    windows = (len(text) - 1) // (batch_size * WINDOW)
    length = windows * WINDOW
    if seed is not None:
        shift = int(torch.randint(length, (), generator=torch.Generator().manual_seed(seed)))
        text = text.roll(-shift)
    words = text[: batch_size * length].view(batch_size, length)
    targets = text[1 : batch_size * length + 1].view(batch_size, length)
    for start in range(0, length, WINDOW):
        window = slice(start, start + WINDOW)
        yield words[:, window], targets[:, window], start == 0


def vocabulary(words: list[str], size: int) -> dict[str, int]:
    """Codes of the most frequent words, `<unk>` always among them; words as frequent in the order of the text."""
    frequent = [word for word, _ in Counter(words).most_common(size) if word != UNKNOWN]
    return {word: code for code, word in enumerate([UNKNOWN, *frequent][:size])}


def encode(words: list[str], codes: dict[str, int]) -> torch.Tensor:
    """The codes of words, shape `[n]`; those of `<unk>` for words without one."""
    return torch.tensor([codes.get(word, codes[UNKNOWN]) for word in words])


def _words(file: DataFile, count: int) -> list[str]:
    """The first words of a file, with one for the end of each line."""
    path = find(file)
    words: list[str] = []
    for line in read_text(path).splitlines():
        words += [*line.split(), END]
        if len(words) >= count:
            return words[:count]
    raise DataError(f"{path} has {len(words)} words, expected at least {count}. Delete it and run again.")


def _total(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
