"""Data: splits, order and augmentation."""

import sys

import pytest
import torch

from spikefold.data import TensorSamples, load_dataset, stratified_split
from spikefold.errors import DataError


def test_stratified_split_has_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100)]
    rest, part = stratified_split(labels, 0.1, seed=3)
    assert labels[part].bincount().tolist() == [5, 3, 2]
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(100))
    assert torch.equal(part, stratified_split(labels, 0.1, seed=3)[1])
    assert not torch.equal(part, stratified_split(labels, 0.1, seed=4)[1])


def test_digits() -> None:
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1295, 143, 359)
    assert dataset.classes == 10
    assert dataset.train.shape == (1, 8, 8)
    splits = (dataset.train, dataset.validation, dataset.test)
    images = torch.cat([split.read(torch.arange(len(split))) for split in splits])
    assert (images.min(), images.max()) == (0, 1)
    assert len(images.flatten(1).unique(dim=0)) == 1797  # no image is in two splits


def test_batches_cover_every_sample_once() -> None:
    samples = TensorSamples(torch.arange(7.0)[:, None], torch.arange(7))
    sizes = [len(labels) for _, labels in samples.batches(3)]
    assert sizes == [3, 3, 1]
    seen = torch.cat([y for _, y in samples.batches(3, torch.Generator().manual_seed(1))])
    assert not torch.equal(seen, torch.arange(7))
    assert torch.equal(seen.sort().values, torch.arange(7))
    for inputs, labels in samples.batches(2, torch.Generator().manual_seed(1)):
        assert torch.equal(inputs[:, 0], labels.float())


def test_bad_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="unknown data set 'digit': did you mean 'digits'"):
        load_dataset("digit")
    with pytest.raises(DataError, match=r"must lie in \[0, 1\), got 1.5"):
        load_dataset("digits", validation=1.5)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install"):
        load_dataset("digits")
