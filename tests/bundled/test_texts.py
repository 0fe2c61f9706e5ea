"""Texts: windows of characters, streams of words, and a state that is carried along them."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.bundled import char_lm, wikitext2
from rightbatch.bundled.char_lm import next_character, windows_of
from rightbatch.bundled.wikitext2 import WINDOW, WordModel, encode, next_word, perplexity, streams, vocabulary
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import DataError
from rightbatch.records import Trial
from rightbatch.workload import Workload

TEXT = torch.randint(0, 12, (3000,), generator=torch.Generator().manual_seed(0))


def test_windows_predict_each_character_once():
    windows = windows_of(torch.arange(300))
    assert windows.shape == (4, 65)
    assert windows[:, 1:].flatten().tolist() == list(range(1, 257))
    assert windows[:, :-1].flatten().tolist() == list(range(256))


def test_the_loss_of_a_window_is_its_mean_over_characters():
    probabilities = torch.tensor([0.5, 0.25, 0.25])

    def model(text):
        return probabilities.log().expand(*text.shape, 3)

    windows = torch.tensor([[0, 0, 0], [2, 1, 0]])
    expected = [math.log(2), (math.log(4) + math.log(2)) / 2]
    assert next_character(model, windows).tolist() == pytest.approx(expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(words=st.integers(36, 2000), share=st.floats(0, 1), seed=st.one_of(st.none(), st.integers(0, 2**31 - 1)))
def test_streams_read_a_text_side_by_side_in_order(words, share, seed):
    text = torch.arange(words)
    batch_size = 1 + int(share * ((words - 1) // WINDOW - 1))
    batches = list(streams(text, batch_size, seed))
    assert [first for *_, first in batches] == [True] + [False] * (len(batches) - 1)
    assert len(batches) == (words - 1) // (WINDOW * batch_size) >= 1
    for window, after, _ in batches:
        assert window.shape == after.shape == (batch_size, WINDOW)
        assert torch.equal(after, (window + 1) % words)
    read = torch.cat([window for window, *_ in batches], dim=1)
    assert torch.equal(read, (read[:1, :1] + torch.arange(read.numel()).view_as(read)) % words)
    shift = int(read[0, 0])
    assert shift == 0 if seed is None else 0 <= shift < read.shape[1]


def test_passes_are_cut_elsewhere_and_a_seed_cuts_at_one_place():
    starts = [next(streams(TEXT, 4, seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_vocabulary_has_the_most_frequent_words():
    words = ["the", "cat", "and", "the", "dog", "and", "the", "<unk>", "<unk>", "<unk>", "<unk>", "bird"]
    codes = vocabulary(words, 4)
    assert codes == {"<unk>": 0, "the": 1, "and": 2, "cat": 3}
    assert encode(["dog", "the", "<unk>", "new"], codes).tolist() == [0, 1, 0, 0]
    assert len(vocabulary(words, 100)) == len(Counter(words))
    assert vocabulary(["a", "b", "b"], 2) == {"<unk>": 0, "b": 1}


def workload() -> Workload:
    """The bundled recipe on a text of random words."""
    return Workload(
        name="streams",
        model=lambda: WordModel(12),
        data=lambda batch_size, seed: streams(TEXT, batch_size, seed),
        valid=lambda batch_size, _: streams(TEXT[:400], batch_size),
        loss=next_word,
        metric=perplexity,
        metric_on="set",
        optimizer=wikitext2.sgd,
        train_examples=len(TEXT) // WINDOW,
        evaluation_examples=10,
        evaluation_batch_size=2,
        max_gradient_norm=0.25,
        planned_examples=400,
    )


def test_the_state_is_carried_within_a_pass_and_begins_anew_with_the_next():
    torch.manual_seed(0)
    model = WordModel(12)
    for _ in range(2):
        state = None  # the same, with the state in one's own hands
        for batch in streams(TEXT, 4, seed=3):
            logits, state = model(batch[0], state)
            total, weight = next_word(model, batch)
            assert weight == 4 * WINDOW
            expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch[1], reduction="sum")
            torch.testing.assert_close(total, expected)
            assert torch.equal(model.carried[0], state[0])
            assert not model.carried[0].requires_grad
            assert model.carried[1].grad_fn is None


def test_evaluation_is_that_of_the_whole_text_at_once_and_leaves_the_state():
    torch.manual_seed(0)
    model = WordModel(12)
    next_word(model, next(streams(TEXT, 4)))
    before = [part.clone() for part in model.carried]
    with torch.no_grad():
        loss, value = perplexity(model, streams(TEXT[:400], 1))
        logits, _ = model(TEXT[None, :385], None)
    whole = torch.nn.functional.cross_entropy(logits[0], TEXT[1:386])
    assert loss == pytest.approx(float(whole), rel=1e-5)
    assert value == pytest.approx(math.exp(loss))
    assert all(torch.equal(one, other) for one, other in zip(before, model.carried, strict=True))


@pytest.mark.parametrize("points", [0, 5, 15])
def test_a_run_that_was_saved_within_a_pass_goes_on_with_its_state(points):
    runner = WorkloadRunner(workload())
    trial = Trial(4, 1.0, 0)  # 21 windows a pass
    run = runner.start(trial)
    before = [run.advance() for _ in range(points)]
    state = run.save()
    rest = [run.advance() for _ in range(6)]
    assert not before or before[-1].step % 21
    again = runner.start(trial, state)
    for point in rest:
        other = again.advance()
        assert (other.step, other.train_loss, other.valid_loss) == (point.step, point.train_loss, point.valid_loss)
    assert torch.equal(again.model.carried[0], run.model.carried[0])


def test_without_the_carried_state_a_run_would_go_on_differently():
    """Else the test above would pass whatever was saved."""
    runner = WorkloadRunner(workload())
    runs = [runner.start(Trial(4, 1.0, 0)) for _ in range(2)]
    for run in runs:
        for _ in range(6):
            run.advance()
    assert runs[0].model.carried is not None
    runs[1].model.carried = None
    assert runs[0].advance().train_loss != runs[1].advance().train_loss


def test_seconds_of_several_sizes_are_measured_on_one_model():
    records = list(WorkloadRunner(workload()).step_times([2, 8], rounds=1))
    assert [record.batch_size for record in records] == [2, 8]


@pytest.mark.parametrize("make", [char_lm.gru, wikitext2.wikitext2])
def test_a_text_that_is_cut_short_or_is_none_is_told(tmp_path, monkeypatch, make):
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path))
    path = tmp_path / (char_lm.FILE if make is char_lm.gru else wikitext2.TRAIN).path
    path.parent.mkdir()
    path.write_text("to be or not to be\n" * 10)
    with pytest.raises(DataError, match=r"has \d+ (characters|words), expected"):
        make()
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="cannot be read as text"):
        make()
