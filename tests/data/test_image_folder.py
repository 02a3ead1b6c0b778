"""Folders of images, written here with Pillow, and broken ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikefold.data import Framing, load_dataset, random_resized_crop
from spikefold.errors import DataError

COLOURS = {"amber": (255, 191, 0), "blue": (0, 0, 255), "cyan": (0, 255, 255)}


def fill(place: Path, count: int = 10, size: tuple[int, int] = (40, 30)) -> None:
    """Plain images, a colour a class, as PNG and (gray) JPEG."""
    for name, colour in COLOURS.items():
        (place / name).mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", size, colour).save(place / name / f"{n}.png")


def test_classes_are_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", 2)
    dataset = load_dataset("folder", root=tmp_path, framing=Framing(size=16))
    assert dataset.classes == 3
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [27, 3, 6]
    assert dataset.train.shape == (3, 16, 16)
    seen = 0
    for images, labels in dataset.train.batches(4, torch.Generator().manual_seed(0)):
        for image, label in zip(images, labels, strict=True):
            expected = torch.tensor(list(COLOURS.values())[label]) / 255
            assert torch.equal(image, expected[:, None, None].expand(3, 16, 16))
        seen += len(labels)
    assert seen == 27
    assert dataset.notes == ""


def test_order_is_the_generators_as_of_every_data_set(tmp_path: Path) -> None:
    fill(tmp_path)
    samples = load_dataset("folder", root=tmp_path).train
    order = samples.order(torch.Generator().manual_seed(3))
    batches = samples.batches(5, torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([labels for _, labels in batches]), samples.labels[order])


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    """512x256 with a white square whose place after scaling is known."""
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 128:384] = 255  # the middle half
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(10):
            Image.fromarray(pixels).save(tmp_path / name / f"{n}.png")
    image = load_dataset("folder", root=tmp_path, framing=Framing(size=224)).train.read(
        torch.tensor([0])
    )
    assert image.shape == (1, 3, 224, 224)
    assert (image == 1).all()  # columns 144 .. 368 of 512
    wide = load_dataset("folder", root=tmp_path, framing=Framing(size=448)).train.read(
        torch.tensor([0])
    )
    assert (wide == 1).all()


def test_without_a_test_folder_a_tenth_is_held_out_and_said(tmp_path: Path) -> None:
    fill(tmp_path)
    dataset = load_dataset("folder", root=tmp_path)
    assert len(dataset.test) == 3
    assert "held out" in dataset.notes


def test_imagenets_layout(tmp_path: Path) -> None:
    fill(tmp_path / "imagenet" / "train")
    fill(tmp_path / "imagenet" / "val", 1)
    dataset = load_dataset("imagenet", root=tmp_path)
    assert dataset.train.shape == (3, 224, 224)
    assert len(dataset.test) == 3
    assert dataset.notes.startswith("30 of 1,281,167 training samples and 3 of 50,000 test")
    assert dataset.framing == Framing(size=224, margin=256 / 224)
    shutil.rmtree(tmp_path / "imagenet" / "train")
    dataset = load_dataset("imagenet", root=tmp_path, only="test")
    assert dataset.names == tuple(COLOURS)
    assert dataset.notes.startswith("3 of 50,000 test samples")


def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "train", tmp_path / "val"):
        for name in (".git", ".ipynb_checkpoints"):
            (place / name).mkdir(parents=True)
            (place / name / "0.png").write_bytes(b"none of the images")
    for part, count in (("train", 10), ("val", 2)):
        fill(tmp_path / part, count)
        (tmp_path / part / "blue" / "._0.png").write_bytes(b"none of the images")
    dataset = load_dataset("folder", root=tmp_path)
    assert dataset.names == ("amber", "blue", "cyan")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [27, 3, 6]
    assert dataset.framing == Framing(size=32, margin=256 / 224)


def test_a_class_may_be_called_train_or_test(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "amber").rename(tmp_path / "train")
    (tmp_path / "blue").rename(tmp_path / "test")
    assert load_dataset("folder", root=tmp_path).names == ("cyan", "test", "train")
    shutil.rmtree(tmp_path / "cyan")  # now it is more likely that the classes' folders are missing
    with pytest.raises(DataError, match=r"test/ must hold a folder a class \(test/CLASS/\*\)"):
        load_dataset("folder", root=tmp_path)


def test_a_second_test_part_is_said_not_to_be_used(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / part)
    dataset = load_dataset("folder", root=tmp_path)
    assert dataset.notes.startswith("val/ is not used: test samples are test/'s")


def test_a_class_with_few_images_is_named_before_training(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 5)
    with pytest.raises(DataError, match=r"0.1 of the 5 training samples of class 'amber'"):
        load_dataset("folder", root=tmp_path)
    assert len(load_dataset("folder", validation=0.0, root=tmp_path).train) == 15
    for path in (tmp_path / "train" / "cyan").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="training: none of the 10 samples is of class 'cyan'"):
        load_dataset("folder", validation=0.0, root=tmp_path)


@pytest.mark.usefixtures("as_user")
def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names the folder of images: there is no default"):
        load_dataset("folder")
    with pytest.raises(DataError, match="ImageNet is not in"):
        load_dataset("imagenet", root=tmp_path)
    with pytest.raises(DataError, match="no images in folders of their classes"):
        load_dataset("folder", root=tmp_path)
    fill(tmp_path / "train")
    (tmp_path / "val" / "dove").mkdir(parents=True)
    with pytest.raises(DataError, match=r"dove: a class that is not among those for training"):
        load_dataset("folder", root=tmp_path)
    (tmp_path / "val" / "dove").rmdir()
    (tmp_path / "val" / "blue").mkdir()
    (tmp_path / "val" / "blue" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"test: none of the 1 samples is of class 'amber' \(and"):
        load_dataset("folder", root=tmp_path)
    dataset = load_dataset("folder", root=tmp_path, only="test")
    assert dataset.notes == "no test samples of class 'amber' (and of 1 more)"
    with pytest.raises(DataError, match=r"0.png is damaged, or not a readable image"):
        next(dataset.test.batches(4))


def test_resized_crops_are_rectangles_of_the_image() -> None:
    """On a slope a crop is a slope: its ends tell its place."""
    slope = torch.linspace(0, 1, 64)
    images = torch.stack([slope.expand(64, 64), slope[:, None].expand(64, 64)]).repeat(200, 1, 1, 1)
    crops = random_resized_crop(images, torch.Generator().manual_seed(0))
    assert crops.shape == images.shape
    width = (crops[:, 0, 32, -1] - crops[:, 0, 32, 0]) * 64 / 63
    height = (crops[:, 1, -1, 32] - crops[:, 1, 0, 32]) * 64 / 63
    area = width * height
    assert area.min() > 0.05
    assert area.max() <= 1.02
    assert 0.4 < area.mean() < 0.6
    assert (width / height).max() < 4 / 3 + 0.1
    assert (width / height).min() > 3 / 4 - 0.1
    again = random_resized_crop(images, torch.Generator().manual_seed(0))
    assert torch.equal(crops, again)
