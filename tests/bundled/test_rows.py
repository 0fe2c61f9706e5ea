"""Tables read from files, right and damaged ones, and split so that no row is on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.bundled.rows import read_csv, read_libsvm, split_apart, standardise, without
from rightbatch.errors import DataError

TABLES = {
    "commas": "1,2.5,-3\n4,5,6e2\n",
    "semicolons and a header": '"a";"b";"c"\n1;2.5;-3\n4;5;6e2\n',
    "a header, line ends of Windows": "RMSD,F1,F2\r\n1,2.5,-3\r\n4,5,6e2\r\n",
    "no line end at the end": "1,2.5,-3\n4,5,6e2",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "table"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES.keys())
def test_every_published_form_of_a_table_is_read(tmp_path, text):
    table = read_csv(written(tmp_path, text), rows=2, columns=3)
    assert table.tolist() == [[1, 2.5, -3], [4, 5, 600]]


def test_a_first_column_of_letters_is_read(tmp_path):
    for header in ("", "Letter,1\n"):
        table = read_csv(written(tmp_path, header + "C,8\nA,3\n"), rows=2, columns=2, first="ABC".index)
        assert table.tolist() == [[2, 8], [0, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,x\n", r"Line 2 of .*table cannot be read: could not convert"),
        ("1,2\n3\n", "Line 2 of .* it has 1 columns, expected 2"),
        ("1,2\n", "has 1 rows, expected 2"),
        ("x,2\n3,4\n", "has 1 rows, expected 2"),
        ("", "has 0 rows, expected 2"),
        ("1,2\n\n3,4\n", "Line 2 of .* cannot be read"),
    ],
)
def test_a_damaged_table_is_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_csv(written(tmp_path, text), rows=2, columns=2)


def test_the_libsvm_format_is_read(tmp_path):
    inputs, labels = read_libsvm(written(tmp_path, "-1 1:1 3:0.5 \n+1 2:-2\n-1\n"), rows=3, features=3)
    assert inputs.tolist() == [[1, 0, 0.5], [0, -2, 0], [0, 0, 0]]
    assert labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1 1:1\n+1 4:1\n", "Line 2 of .* feature 4 is not between 1 and 3"),
        ("-1 0:1\n+1 2:1\n", "Line 1 of .* feature 0 is not between"),
        ("-1 1:1\n2 2:1\n", "Line 2 of .* cannot be read"),
        ("-1 1:1\n+1 2\n", "Line 2 of .* cannot be read"),
        ("-1 1:1\n\n+1 2:1\n", "Line 2 of .* cannot be read"),
        ("-1 1:1\n", "has 1 rows, expected 2"),
    ],
)
def test_a_damaged_libsvm_file_is_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_libsvm(written(tmp_path, text), rows=2, features=3)


def test_what_is_no_text_is_told(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(b"\xff\xfe1,2\n")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_csv(path, rows=1, columns=2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60),
    share=st.floats(0, 1),
)
def test_a_split_keeps_every_row_and_puts_equal_ones_on_one_side(rows, share):
    inputs, targets = torch.tensor(rows, dtype=torch.float64), torch.arange(len(rows))
    asked = int(share * len(rows))
    train, valid = split_apart(inputs, targets, asked)
    assert sorted(torch.cat([train[1], valid[1]]).tolist()) == targets.tolist()
    for part in (train, valid):  # each row with its own target
        assert torch.equal(part[0], inputs[part[1]])
    assert not set(map(tuple, train[0].tolist())) & set(map(tuple, valid[0].tolist()))
    largest = max(rows.count(row) for row in rows)
    assert asked - largest < len(valid[1]) <= asked


def test_a_split_of_distinct_rows_has_the_size_that_was_asked_for_and_is_mixed():
    inputs = torch.arange(1000.0)[:, None]
    train, valid = split_apart(inputs, torch.arange(1000), 200)
    assert (len(train[1]), len(valid[1])) == (800, 200)
    assert 400 < valid[1].float().mean() < 600


def test_examples_whose_inputs_are_known_are_left_out():
    data = (torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([0, 1, 2]))
    inputs, targets = without(data, torch.tensor([[3.0, 4], [5, 0]]))
    assert inputs.tolist() == [[1, 2], [5, 6]]
    assert targets.tolist() == [0, 2]


def test_both_sides_are_put_in_units_of_the_training_side():
    train, valid = standardise(torch.tensor([[1.0, 10], [3, 30]]), torch.tensor([[2.0, 60]]))
    root = 2**0.5
    torch.testing.assert_close(train, torch.tensor([[-1.0, -1], [1, 1]]) / root)
    torch.testing.assert_close(valid, torch.tensor([[0.0, 4 / root]]))
