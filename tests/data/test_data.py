"""Data: splits, order and augmentation."""

import sys

import pytest
import torch

from spikefold.data import (
    DATASETS,
    Dataset,
    DatasetInfo,
    Framing,
    Parts,
    TensorSamples,
    held_out,
    known_shape,
    load_dataset,
    stratified_split,
)
from spikefold.data._cifar import NAMES100
from spikefold.errors import DataError


def samples(*counts: int) -> TensorSamples:
    """So many samples of each class, numbered through."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return TensorSamples(torch.arange(float(len(labels)))[:, None, None, None], labels)


def made(monkeypatch: pytest.MonkeyPatch, parts: Parts) -> None:
    """A data set 'made' of these parts."""
    info = DatasetInfo("made", "", load=lambda root: parts)
    monkeypatch.setitem(DATASETS, "made", info)


def nothing() -> TensorSamples:
    raise AssertionError("this part was not asked for")


def test_stratified_split_has_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100)]
    rest, part = stratified_split(labels, 0.1, seed=3)
    assert labels[part].bincount().tolist() == [5, 3, 2]
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(100))
    assert torch.equal(part, stratified_split(labels, 0.1, seed=3)[1])
    assert not torch.equal(part, stratified_split(labels, 0.1, seed=4)[1])


def test_digits() -> None:
    dataset = load_dataset("digits")
    assert "train=TensorSamples(1,295 of (1, 8, 8))" in repr(dataset)  # not every pixel
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1295, 143, 359)
    assert dataset.classes == 10
    assert dataset.train.shape == known_shape("digits", Framing()) == (1, 8, 8)
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


def test_zero_validation_trains_on_all() -> None:
    dataset = load_dataset("digits", validation=0.0)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1438, 0, 359)
    assert dataset.validation.shape == (1, 8, 8)
    rest, part = stratified_split(dataset.train.labels, 0.0, seed=0)
    assert (len(rest), len(part)) == (1438, 0)


@pytest.mark.parametrize(
    ("counts", "validation", "message"),
    [
        ((5, 5), 0.1, r"validation: 0.1 of the 5 training samples of class 'cat' \(and of 1 more\) "
         "is 0, which leaves none for validation: take another fraction of each class, or 0"),
        ((100, 5), 0.1, "0.1 of the 5 training samples of class 'dog' is 0"),
        ((1000, 1000), 0.0001, "0.0001 of the 1000 training samples of class 'cat'"),
        ((2, 1), 0.7, "0.7 of the 1 training samples of class 'dog' is 1, .* none to train on"),
        ((9, 0), 0.2, "training: none of the 9 samples is of class 'dog': every class needs some"),
        ((9, 0), 0.0, "training: none of the 9 samples is of class 'dog'"),
        ((4, 4, 4), 0.5, "training: labels from 0 to 2, but there are 2 classes"),
    ],
)  # fmt: skip
def test_a_class_without_samples_in_a_split_is_refused(
    counts: tuple[int, ...], validation: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(monkeypatch, Parts(("cat", "dog"), lambda: samples(*counts), lambda: samples(1, 1)))
    with pytest.raises(DataError, match=message):
        load_dataset("made", validation)


def test_a_class_without_test_samples_is_refused_or_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, Parts(("cat", "dog"), lambda: samples(9, 9), lambda: samples(3, 0)))
    with pytest.raises(DataError, match="test: none of the 3 samples is of class 'dog'"):
        load_dataset("made")
    assert load_dataset("made", only="test").notes == "no test samples of class 'dog'"
    assert load_dataset("made", only="train").notes == ""


def test_a_split_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("cat", "dog")
    made(monkeypatch, Parts(names, nothing, lambda: samples(3, 4), sizes=(20, 7), note="toys"))
    dataset = load_dataset("made", only="test")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [0, 0, 7]
    assert dataset.train.shape == dataset.test.shape == (1, 1, 1)
    assert (dataset.names, dataset.notes) == (names, "toys")
    made(monkeypatch, Parts(names, lambda: samples(10, 10), nothing, sizes=(30, 7)))
    for split in ("train", "validation"):
        dataset = load_dataset("made", only=split)  # type: ignore[arg-type]
        assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [18, 2, 0]
        assert dataset.notes == "20 of 30 training samples: a part of the data set"


def test_a_partial_test_set_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(("a",), lambda: samples(20), lambda: samples(3), sizes=(20, 1000))
    made(monkeypatch, parts)
    assert load_dataset("made", only="test").notes == (
        "3 of 1,000 test samples: a part of the data set"
    )
    assert "20 of 20 training samples and 3 of 1,000 test" in load_dataset("made").notes


def test_what_is_held_out_for_test_is_read_once() -> None:
    calls = []

    def whole() -> TensorSamples:
        calls.append(1)
        return samples(20, 10)

    train, test = held_out(whole, ("a", "b"))
    places = torch.cat([part().inputs.flatten() for part in (train, test, test)])  # type: ignore[attr-defined]
    assert len(calls) == 1
    assert len(places) == 27 + 3 + 3
    assert torch.equal(places[:30].sort().values, torch.arange(30.0))


def test_names_of_classes() -> None:
    assert load_dataset("digits").names == tuple("0123456789")
    empty = samples(1)
    assert Dataset("mine", 3, empty, empty, empty).names == ("0", "1", "2")
    assert Dataset("mine", 1, empty, empty, empty, "", ("ant",)).names == ("ant",)
    with pytest.raises(DataError, match="mine: 1 names for 3 classes"):
        Dataset("mine", 3, empty, empty, empty, "", ("ant",))
    # CIFAR-100's are in alphabetical order
    assert len(set(NAMES100)) == 100
    assert list(NAMES100) == sorted(NAMES100)
    assert (NAMES100[0], NAMES100[49], NAMES100[99]) == ("apple", "mountain", "worm")
