"""`spikefold landscape`: losses around networks on real data."""

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import spikefold as sf
from spikefold.cli import main
from spikefold.data import load_dataset
from spikefold.training import DataConfig, Experiment, LandscapeConfig, _landscape, landscape

FEW = ["--data", "digits", "--samples", "20", "--points", "3"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Networks of digits, without and with MPBN; the second in a run's folder beside its fold."""
    folder = tmp_path_factory.mktemp("landscape")
    torch.manual_seed(0)
    options: dict[str, Any] = {"in_channels": 1, "image_size": 8, "width": 0.2, "steps": 2}
    without, network = (sf.models.small(norm=norm, **options) for norm in ("none", "mpbn"))
    for one in (without, network):
        one(torch.rand(32, 1, 8, 8))
    (folder / "run").mkdir()
    sf.save(without, folder / "none.safetensors")
    sf.save(network, folder / "run" / "best.safetensors")
    (folder / "run" / "folded.safetensors").write_bytes(b"not looked at")
    experiment = Experiment()
    data = dataclasses.replace(experiment.data, name="digits")
    dataclasses.replace(experiment, data=data).save(folder / "run" / "config.json")
    return [folder / "none.safetensors", folder / "run"]


def test_the_record_is_that_of_the_function(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "new" / "landscape.json", tmp_path / "a.svg"
    words = ["landscape", *map(str, files), *FEW, "--seed", "3", "--split", "test"]
    assert main([*words, "--json", "-o", str(out), "--picture", str(picture)]) == 0
    told, err = capsys.readouterr()
    assert json.loads(told) == json.loads(out.read_text())
    samples = load_dataset("digits").test.spread(20)
    config = LandscapeConfig(points=3, seed=3)
    best = files[1] / "best.safetensors"
    assert json.loads(told) == {
        "data": "digits",
        "split": "test",
        "networks": [
            {
                "network": str(path),
                "file": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                **landscape(sf.load(file), samples, config).to_dict(),
            }
            for path, file in zip(files, (files[0], best), strict=True)
        ],
    }
    assert picture.read_text().startswith("<?xml")
    assert "landscape 6/6" in err
    assert main([*words, "-o", str(out)]) == 1
    assert "already exists: --overwrite replaces it" in capsys.readouterr().err


def test_the_table_and_two_directions_by_batches(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    words = ["landscape", str(files[1]), *FEW[2:], "--two", "--batch-statistics"]
    assert main([*words, "--batch-size", "8", "--reach", "0.5", "--picture", str(picture)]) == 0
    out, err = capsys.readouterr()
    assert "digits (train, 16 samples): 3 x 3 points up to 0.5, seed 0, each batch's stat" in out
    (row,) = (line for line in out.splitlines() if str(files[1]) in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    samples = load_dataset("digits").train.spread(20)
    config = LandscapeConfig(two=True, points=3, reach=0.5, batch_statistics=True)
    record = landscape(sf.load(files[1] / "best.safetensors"), samples, config, 8)
    assert cells[1:3] == [f"{record.centre[0]:.4g}", f"{record.centre[1]:.2%}"]
    assert cells[3] == f"{record.sharpness:.4g} %"
    assert cells[4] == ", ".join(f"{value:.4g}" for value in record.curvature)
    assert cells[6] == f"{record.moved:,} of {record.parameters:,}"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "landscape 18/18" in err


def test_losses_that_are_not_finite_are_null_and_told(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = sf.load(files[0])
    with torch.no_grad():
        network.classifier.weight.fill_(1e36)
        network.classifier.bias.zero_()
    sf.save(network, tmp_path / "large.safetensors")
    words = ["landscape", str(tmp_path / "large.safetensors"), *FEW, "--reach", "1000", "--json"]
    assert main([*words, "--picture", str(tmp_path / "a.png")]) == 0
    out, err = capsys.readouterr()
    (record,) = json.loads(out)["networks"]
    assert record["loss"] == [None, pytest.approx(2.302585), None]
    assert "2 of 3 losses are not finite: null in the record" in err


def test_refused_in_one_line(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = str(files[0]), tmp_path / "out.json"
    three = tmp_path / "three.safetensors"
    sf.save(sf.models.small(steps=2, width=0.2), three)
    other = tmp_path / "other"
    other.mkdir()
    sf.save(sf.load(files[0]), other / "best.safetensors")
    experiment = Experiment()
    data = dataclasses.replace(experiment.data, name="digits", split_seed=1)
    dataclasses.replace(experiment, data=data).save(other / "config.json")
    for words, message in [
        ([], "name at least one network"),
        ([file], "--data names the data set"),
        ([file, str(tmp_path / "none"), *FEW], "no such file"),
        ([file, __file__, *FEW], "not a safetensors file"),
        ([str(tmp_path), *FEW], "a folder without best.safetensors"),
        ([file, file, *FEW], "a network is named twice"),
        ([file, str(three), *FEW], "takes images of 3"),
        ([str(files[1]), str(other), *FEW[2:]], "other: its input is not that of"),
        ([file, *FEW, "--batch-statistics"], "20 samples are less than a batch of 128"),
    ]:
        assert main(["landscape", *words, "-o", str(out)]) == 1
        told, err = capsys.readouterr()
        assert message in err
        assert (told, err.count("\n")) == ("", 1), err
    for words, status, message in [
        (["--points", "4"], 2, "points must be odd"),
        (["--points", "1"], 2, "points must lie in"),
        (["--reach", "0"], 2, "reach must lie in"),
        (["--reach", "nan"], 2, "reach must lie in"),
        (["--samples", "0"], 2, "samples must lie in"),
        (["--picture", f"{file}/a.png"], 1, "none.safetensors/a.png: Not a directory"),
        (["-o", "a.png", "--picture", "a.png"], 1, "a.png: what is written is a .json file"),
        (["--picture", "a.pdf"], 1, "a.pdf: what is written is a .png or .svg file"),
    ]:
        assert main(["landscape", file, "--data", "digits", *words]) == status
        assert message in " ".join(re.sub("[│╭╰─]", " ", capsys.readouterr().err).split())
    assert not out.exists()


def test_folders_that_only_look_alike_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    for name in ("one", "other", "same"):
        (tmp_path / name).mkdir()
        sf.save(sf.models.small(2, width=0.2, steps=2), tmp_path / name / "best.safetensors")
        root = tmp_path / ("other_images" if name == "other" else "images")
        for split, label, n in itertools.product(("train", "test"), ("0", "1"), range(10)):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(root / split / label / f"{n}.png")
        data = DataConfig("folder", root=str(root), size=32)
        dataclasses.replace(Experiment(), data=data).save(tmp_path / name / "config.json")
    one, other, same = (str(tmp_path / name) for name in ("one", "other", "same"))
    assert main(["landscape", one, other, *FEW[2:]]) == 1
    assert "other: its input is not that of" in capsys.readouterr().err
    assert main(["landscape", one, same, *FEW[2:]]) == 0


def test_interrupted_it_leaves_nothing(
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def interrupted(*_: Any) -> tuple[int, float]:
        calls.append(1)
        if len(calls) == 5:  # the second network's second point
            raise KeyboardInterrupt
        return 1, 1.0

    monkeypatch.setattr(_landscape, "right_and_loss", interrupted)
    words = ["landscape", *map(str, files), *FEW, "-o", str(tmp_path / "new" / "a.json")]
    assert main([*words, "--picture", str(tmp_path / "a.png")]) == 130
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "spikefold: interrupted")
    assert list(tmp_path.iterdir()) == []
