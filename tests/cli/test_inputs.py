"""A network file says how its input is read: every command reads it so, as training did."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import spikefold as sf
from spikefold.cli import main
from spikefold.data import Dataset, Framing, InputSpec, load_dataset, read_recording, spec_of
from spikefold.training import Experiment, evaluate
from tests.data.formats import dat


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def pictures(root: Path, count: int = 12) -> None:
    """Circles and crosses on sheets that are far from square, at places that differ."""
    rng = np.random.default_rng(0)
    for name in ("circle", "cross"):
        (root / name).mkdir(parents=True)
        for n in range(count):
            image = Image.new("RGB", (90, 50), "white")
            x, y, r = 45 + rng.integers(-6, 7), 25 + rng.integers(-6, 7), 12
            draw = ImageDraw.Draw(image)
            if name == "circle":
                draw.ellipse((x - r, y - r, x + r, y + r), outline="black", width=3)
            else:
                draw.line((x - r, y, x + r, y), fill="black", width=3)
                draw.line((x, y - r, x, y + r), fill="black", width=3)
            image.save(root / name / f"{n}.png")


def recordings(root: Path) -> None:
    """Two classes on a sensor of 60x40; most events come late, so by time is not by count."""
    rng = np.random.default_rng(0)
    for name, first in (("left", 0), ("right", 30)):
        (root / name).mkdir(parents=True)
        for n in range(12):
            x, y = first + rng.integers(0, 30, 200), rng.integers(0, 40, 200)
            t = np.sort(rng.integers(0, 1000, 200) ** 2)
            rows = list(zip(x.tolist(), y.tolist(), t.tolist(), (x % 2).tolist(), strict=True))
            (root / name / f"{n}.dat").write_bytes(dat(rows, b"% Height 40\n% Width 60\n"))


def built(dataset: Dataset, steps: int, **options: object) -> sf.models.Network:
    """A network for the data set with statistics that have seen it, as training builds it."""
    experiment = Experiment()
    model = replace(
        experiment.model, options=replace(experiment.model.options, steps=steps, **options)
    )
    network = replace(experiment, model=model).build(dataset)
    for _ in range(8):
        for x, _ in dataset.train.batches(8):
            network(x)
    torch.nn.init.normal_(network.classifier.weight)
    return network.eval()


def predicted(network: Path, file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    assert main(["predict", str(network), str(file), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_picture_is_scaled_and_cropped_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "mine")
    dataset = load_dataset("folder", 0.1, 0, tmp_path / "mine", Framing(size=24))
    network = built(dataset, steps=2)
    sf.save(sf.fold(network), tmp_path / "n.safetensors")
    for place in range(len(dataset.test)):
        path, label = dataset.test.paths[place], int(dataset.test.labels[place])  # type: ignore[attr-defined]
        confidence = network(dataset.test.read(torch.tensor([place]))).softmax(1)[0]
        record = predicted(tmp_path / "n.safetensors", path, capsys)
        assert record["confidence"] == pytest.approx(confidence.max().item(), rel=1e-5)
        assert record["class"] == ("circle", "cross")[record["label"]]
        assert path.parent.name == ("circle", "cross")[label]


def test_a_recording_is_cut_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings(tmp_path / "mine")
    framing = Framing(steps=3, size=16, by="count")
    dataset = load_dataset("recordings", 0.1, 0, tmp_path / "mine", framing)
    network = built(dataset, steps=3)
    assert network.input_spec == InputSpec(
        2, Framing(3, 16, "count", (60, 40)), classes=("left", "right")
    )
    sf.save(network, tmp_path / "n.safetensors")
    file = tmp_path / "mine" / "right" / "3.dat"
    record = predicted(tmp_path / "n.safetensors", file, capsys)
    frames = torch.zeros(3, 1, 2, 16, 16)
    for n, event in enumerate(read_recording(file).events.tolist()):
        x, y, _, p = event
        frames[n * 3 // 200, 0, p, y * 16 // 40, x * 16 // 60] += 1
    confidence = network(frames).softmax(1)[0]
    assert record["confidence"] == pytest.approx(confidence.max().item(), rel=1e-5)
    other = predicted(tmp_path / "n.safetensors", file, capsys, "--by", "time")
    assert other["confidence"] != record["confidence"]
    # and evaluate reads the folder so without being told
    on = ["--data", "recordings", "--root", str(tmp_path / "mine"), "--split", "train", "--json"]
    assert main(["evaluate", str(tmp_path / "n.safetensors"), *on]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(
        evaluate(network, dataset.train)["loss"]
    )


def test_what_is_standardized_outside_of_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "mine")
    dataset = load_dataset("folder", 0.1, 0, tmp_path / "mine", Framing(size=24))
    network = built(dataset, steps=2)
    mean, deviation = (0.5, 0.4, 0.3), (0.25, 0.5, 1.0)
    network.input_spec = replace(spec_of(dataset), mean=mean, deviation=deviation)
    sf.save(network, tmp_path / "n.safetensors")
    x = dataset.test.read(torch.arange(2))
    for channel in range(3):
        x[:, channel] = (x[:, channel] - mean[channel]) / deviation[channel]
    logits = network(x)
    record = predicted(tmp_path / "n.safetensors", dataset.test.paths[0], capsys)  # type: ignore[attr-defined]
    assert record["confidence"] == pytest.approx(logits[0].softmax(0).max().item(), rel=1e-5)
    on = ["--data", "folder", "--root", str(tmp_path / "mine"), "--json"]
    assert main(["evaluate", str(tmp_path / "n.safetensors"), *on]) == 0
    expected = torch.nn.functional.cross_entropy(logits, dataset.test.labels).item()
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_description_goes_wherever_the_network_goes(tmp_path: Path) -> None:
    spec = InputSpec(1, Framing(size=8, margin=1.0), tuple("abcdefghij"), (0.5,), (0.25,))
    network = sf.models.small(in_channels=1, image_size=8, steps=2)
    network.input_spec = spec
    for done in (network, sf.fold(network), sf.fuse_conv_bn(sf.fold(network))):
        sf.save(done, tmp_path / "n.safetensors")
        assert sf.load(tmp_path / "n.safetensors").input_spec == spec
    mine = torch.nn.Sequential(
        sf.SpikingLayer(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), sf.LIF(sf.MPBN(2)))
    )
    mine.input_spec = spec  # type: ignore[assignment]
    sf.save(sf.fold(mine), tmp_path / "mine.safetensors")
    assert sf.load(tmp_path / "mine.safetensors", into=mine).input_spec == spec


def test_a_run_is_evaluated_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    few = ["--optimizer.epochs", "1", "--model.width", "0.25", "--out", str(run), "--json"]
    assert main(["run", "digits", *few]) == 0
    summary = json.loads(capsys.readouterr().out)
    for split, expected in (("test", summary["test"]["folded"]), ("validation", None)):
        assert main(["evaluate", str(run), "--split", split, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["file"] == str(run / "folded.safetensors")
        assert record["data"] == "digits"
        if expected:
            assert record["correct"] == expected["correct"]
        else:  # the run's own validation samples
            assert record["samples"] == summary["samples"]["validation"]
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "not a run's, or not trained yet" in capsys.readouterr().err
    assert main(["evaluate", str(run / "best.safetensors"), "--json"]) == 0  # of the run beside it
    assert json.loads(capsys.readouterr().out)["correct"] == summary["test"]["trained"]["correct"]
    assert main(["verify", str(run), str(run / "folded.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spikes"] == summary["fold"]["spikes"]
    sf.save(sf.load(run / "best.safetensors"), tmp_path / "alone.safetensors")
    assert main(["evaluate", str(tmp_path / "alone.safetensors")]) == 1
    assert "--data names the data set" in capsys.readouterr().err
    assert main(["fold", str(run), "-o", str(tmp_path / "f.safetensors")]) == 0
    again = sf.load(tmp_path / "f.safetensors").state_dict()
    folded = sf.load(run / "folded.safetensors").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in folded.items())


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings(tmp_path / "mine")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    network = sf.models.small(2, in_channels=2, image_size=16, steps=2)
    sf.save(network, tmp_path / "n.safetensors")
    on = ["--data", "recordings", "--root", str(tmp_path / "mine")]
    assert main(["evaluate", str(tmp_path / "n.safetensors"), *on]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
    assert lines
    assert all(line.startswith("spikefold: note: ") for line in lines)


@pytest.mark.usefixtures("as_user")
def test_what_is_not_the_networks_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "mine")
    recordings(tmp_path / "events")
    dataset = load_dataset("folder", 0.1, 0, tmp_path / "mine", Framing(size=24))
    network = built(dataset, steps=2)
    n, e = str(tmp_path / "n.safetensors"), str(tmp_path / "e.safetensors")
    sf.save(network, n)
    events = load_dataset("recordings", 0.1, 0, tmp_path / "events", Framing(steps=2, size=24))
    sf.save(built(events, steps=2), e)
    (tmp_path / "mine" / "cross").rename(tmp_path / "mine" / "star")
    other = tmp_path / "other.dat"
    other.write_bytes(dat([(1, 1, 1, 1), (2, 2, 2, 0)], b"% Height 90\n% Width 90\n"))
    small = sf.models.small(2, in_channels=3, image_size=24, steps=2)
    small.input_spec = InputSpec(3, Framing(size=24))
    sf.save(small, tmp_path / "small.safetensors")
    root = ["--data", "folder", "--root", str(tmp_path / "mine")]
    for words, message in (
        (["evaluate", n, *root], "folder: class 1 is 'star', the network's is 'cross'"),
        (["evaluate", n, "--data", "digits"], "the network takes images of 3 channels, 24x24"),
        (["evaluate", e, *root], "the network takes 2 frames of 2 channels, 24x24"),
        (["predict", e, str(other)], "from a sensor of 90x90, the network reads 60x40"),
        (["predict", n, str(other)], "not a readable image"),
        (["predict", n, str(tmp_path / "mine" / "star" / "0.png"), "--by", "time"], "takes images"),
        (["predict", n, n, "--device", "moon"], "--device moon: not here"),
        (["predict", n, n, "--device", "meta"], "--device meta: not here"),
    ):
        assert main(words) == 1, words
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert main(["predict", e, str(other), "--sensor", "90", "90"]) == 0


@pytest.mark.usefixtures("as_user")
def test_labels_beyond_the_classes_are_told() -> None:
    samples = sf.data.TensorSamples(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 11]))
    network = sf.models.small(in_channels=1, image_size=8, steps=1)
    with pytest.raises(sf.DataError, match="class 11, counted from 0, but the network tells 10"):
        evaluate(network, samples)
    with pytest.raises(sf.DataError, match="labels from 0 to 11, but there are 10 classes"):
        Dataset("mine", 10, samples, samples, samples)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "at least 1"),
        ({"framing": Framing(steps=2)}, "must have a size"),
        ({"framing": Framing(steps=2, size=8)}, "2 channels of events, not 3"),
        ({"mean": (0.5,), "deviation": (0.5,)}, "3 channels, but 1 means"),
        ({"mean": (0.5,) * 3}, "3 means and 0 deviations"),
        ({"mean": (0.5,) * 3, "deviation": (0.0, 1.0, 1.0)}, "positive and finite"),
        ({"mean": (float("nan"),) * 3, "deviation": (1.0,) * 3}, "must be finite"),
    ],
)
def test_impossible_descriptions(change: dict, message: str) -> None:
    values = {"channels": 3, "framing": Framing(size=8), **change}
    with pytest.raises(sf.DataError, match=message):
        InputSpec(**values)
