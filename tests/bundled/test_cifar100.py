"""CIFAR-10, and CIFAR-100 as published and as a subset: which is taken, what is read, what is refused."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rightbatch.bundled import cifar100, data
from rightbatch.bundled.cifar import CIFAR10, CIFAR100
from rightbatch.bundled.cifar100 import SUBSET, Standardise, pixels, read_subset
from rightbatch.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8)
CHANNELS_FIRST = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())


def archive(path: Path, content: object, *, name: str = "cifar-100-python/train", protocol: int = 4) -> Path:
    """A tar.gz with one pickle."""
    return archive_of(path, {name: content}, protocol=protocol)


def archive_of(path: Path, contents: dict[str, object], *, protocol: int = 4) -> Path:
    """A tar.gz with pickles, as the published ones have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            packed = pickle.dumps(content, protocol=protocol)
            member = tarfile.TarInfo(name)
            member.size = len(packed)
            tar.addfile(member, io.BytesIO(packed))
    return path


def published() -> dict[bytes, object]:
    return {
        b"data": CHANNELS_FIRST.reshape(20, 3072).numpy(),
        b"fine_labels": LABELS.tolist(),
        b"filenames": [b"x.png"],
    }


def subset(path: Path, **changes: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{"x_train": IMAGES, "y_train": LABELS, **changes})
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder of data, an empty cache, and downloads that are refused."""

    def refuse(file, path):
        raise DataError(f"asked for {file.address}")

    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "_download", refuse)
    return tmp_path / "data"


def test_both_forms_give_the_same_images(tmp_path):
    for images, labels in (
        read_subset(subset(tmp_path / "s.npz")),
        CIFAR100.read(archive(tmp_path / "a", published())),
    ):
        assert torch.equal(images, CHANNELS_FIRST)
        assert labels.tolist() == LABELS.tolist()


def test_the_full_set_comes_first_then_the_subset_then_a_download(folder, tmp_path):
    with pytest.raises(DataError, match=r"asked for https://.*cifar-100-python\.tar\.gz"):
        cifar100.cifar100()
    subset(folder / SUBSET)
    workload = cifar100.cifar100()
    assert (workload.name, len(workload.data[1]), len(workload.valid[1])) == ("cifar100:15k", 16, 4)
    archive(
        tmp_path / "cache" / "rightbatch" / CIFAR100.file.path, published()
    )  # also where an earlier download left it
    workload = cifar100.cifar100()
    assert (workload.name, len(workload.data[1]), len(workload.valid[1])) == ("cifar100", 18, 2)


class Harmful:
    def __reduce__(self):
        return os.system, ("exit 1",)


DAMAGED = {
    "code": ({**published(), b"more": Harmful()}, "it asks for .*system, which an array does not need"),
    "no labels": ({b"data": published()[b"data"]}, "KeyError.*fine_labels"),
    "another class": ({**published(), b"fine_labels": [100] * 20}, "a label of 0 to 99"),
    "too few labels": ({**published(), b"fine_labels": [1] * 19}, r"labels of shape \(19,\)"),
    "other images": ({**published(), b"data": np.zeros((20, 3000), np.uint8)}, r"shape \(20, 3000\)"),
    "other numbers": ({**published(), b"data": np.zeros((20, 3072))}, "float64"),
    "no dictionary": ([1, 2], "damaged"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_archive_is_told_and_runs_no_code(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        CIFAR100.read(archive(tmp_path / "a.tar.gz", content))


def test_an_archive_that_is_cut_short_or_another_is_told(tmp_path):
    path = archive(tmp_path / "a.tar.gz", published())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="is damaged"):
        CIFAR100.read(path)
    with pytest.raises(DataError, match="cifar-100-python/train"):
        CIFAR100.read(archive(path, published(), name="cifar-10/train"))


def test_the_five_batches_of_cifar_10_are_joined_in_order_and_its_labels_are_ten(tmp_path):
    pixels = CHANNELS_FIRST.reshape(20, 3072).numpy()
    names = [f"cifar-10-batches-py/data_batch_{number}" for number in (3, 1, 2, 5, 4)]  # as they come in the file
    parts = {name: {b"data": pixels[4 * k : 4 * k + 4], b"labels": [k] * 4} for k, name in enumerate(names)}
    test = {"cifar-10-batches-py/test_batch": {b"data": pixels[:2], b"labels": [9, 8]}}
    path = archive_of(tmp_path / "a.tar.gz", {**parts, **test})
    images, labels = CIFAR10.read(path)
    order = (1, 2, 0, 4, 3)
    assert labels.tolist() == [k for k in order for _ in range(4)]
    assert torch.equal(images, torch.cat([CHANNELS_FIRST[4 * k : 4 * k + 4] for k in order]))
    images, labels = CIFAR10.read(path, "test")
    assert labels.tolist() == [9, 8]
    assert torch.equal(images, CHANNELS_FIRST[:2])
    del parts[names[3]]
    with pytest.raises(DataError, match="data_batch_5"):
        CIFAR10.read(archive_of(path, {**parts, **test}))
    with pytest.raises(DataError, match="a label of 0 to 9"):
        CIFAR10.read(
            archive_of(path, {"cifar-10-batches-py/test_batch": {b"data": pixels, b"labels": [10] * 20}}), "test"
        )


def test_a_damaged_subset_is_told(tmp_path):
    path = tmp_path / "s.npz"
    with pytest.raises(DataError, match="a label of 0 to 99"):
        read_subset(subset(path, y_train=LABELS + 90))
    with pytest.raises(DataError, match=r"labels of shape \(3,\)"):
        read_subset(subset(path, y_train=LABELS[:3]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged"):
        read_subset(path)
    np.savez(path, images=IMAGES)
    with pytest.raises(DataError, match="x_train"):
        read_subset(path)


def test_pixels_are_standardised_in_each_colour():
    standard = Standardise(*pixels(CHANNELS_FIRST))(CHANNELS_FIRST)
    assert standard.dtype == torch.float32
    for colour in range(3):
        assert standard[:, colour].mean() == pytest.approx(0, abs=1e-4)
        assert standard[:, colour].std() == pytest.approx(1, abs=1e-4)
