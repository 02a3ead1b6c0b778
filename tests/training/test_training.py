"""Training: what is learned, what is written, and that a stopped run goes on to the same bits."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikefold import training
from spikefold.data import Augmentation, Dataset, load_dataset
from spikefold.dynamics import Neuron
from spikefold.errors import ConfigError, DataError, FileFormatError, SpikefoldError
from spikefold.models import Options
from spikefold.saving import read
from spikefold.training import (
    DataConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    Silent,
)

QUICK = Experiment(
    model=ModelConfig(options=Options(width=0.25, steps=2)),
    optimizer=OptimizerConfig(epochs=3, batch_size=128),
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def metrics(directory: Path) -> list[dict]:
    """The records of the epochs, without the time they took."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    for name in ("last.safetensors", "best.safetensors"):
        a, b = read(one / name), read(other / name)
        for key, value in a.network.state_dict().items():
            assert torch.equal(value, b.network.state_dict()[key]), key
        for key, value in a.tensors.items():
            assert torch.equal(value, b.tensors[key]), key


class StopAfter(Silent):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def task(self, name, total, done=0):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        if name != "train":  # the batches of an epoch
            return nullcontext(lambda: None)

        def advance(note: str = "") -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        return nullcontext(advance)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, digits: Dataset) -> None:
    training.train(QUICK, digits, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training.train(QUICK, digits, tmp_path / "stopped", progress=StopAfter(1))
    assert len(metrics(tmp_path / "stopped")) == 1
    training.train(QUICK, digits, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, digits: Dataset) -> None:
    """Kill -9 at whatever moment, twice."""
    experiment = dataclasses.replace(
        QUICK, optimizer=dataclasses.replace(QUICK.optimizer, epochs=6)
    )
    config = tmp_path / "experiment.json"
    experiment.save(config)
    code = (
        "import sys; from pathlib import Path; from spikefold import training\n"
        "from spikefold.data import load_dataset\n"
        "e = training.Experiment.load(Path(sys.argv[1]))\n"
        "training.train(e, load_dataset('digits'), Path(sys.argv[2]), resume=True)\n"
    )
    command = [sys.executable, "-c", code, str(config), str(tmp_path / "killed")]
    for epochs in (1, 3):
        process = subprocess.Popen(command)
        path = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None:
            if path.exists() and len(path.read_text().splitlines()) >= epochs:
                time.sleep(0.05)  # into the next epoch
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            time.sleep(0.01)
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True)
    subprocess.run([*command[:-1], str(tmp_path / "whole")], check=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_resuming_with_other_settings_is_refused(tmp_path: Path, digits: Dataset) -> None:
    training.train(QUICK, digits, tmp_path)
    other = dataclasses.replace(QUICK, model=dataclasses.replace(QUICK.model, neuron=Neuron(0.5)))
    with pytest.raises(ConfigError, match=r"model.decay is 0.25 there, 0.5 here"):
        training.train(other, digits, tmp_path, resume=True)
    with pytest.raises(FileFormatError, match="not a checkpoint"):
        training.read_checkpoint(tmp_path / "best.safetensors", QUICK.build(digits))
    with pytest.raises(FileFormatError, match="another model"):
        training.read_checkpoint(tmp_path / "last.safetensors", other.build(digits))


def test_the_best_checkpoint_is_that_of_the_best_validation(
    tmp_path: Path, digits: Dataset
) -> None:
    best = training.train(QUICK, digits, tmp_path)
    records = metrics(tmp_path)
    reached = max(record["validation_accuracy"] for record in records)
    assert training.evaluate(best, digits.validation)["accuracy"] == reached
    assert [r["learning_rate"] for r in records] == pytest.approx([0.1, 0.075, 0.025])


def test_without_validation_samples_the_last_epoch_is_kept(tmp_path: Path) -> None:
    everything = load_dataset("digits", validation=0.0)
    optimizer = dataclasses.replace(QUICK.optimizer, epochs=2)
    experiment = dataclasses.replace(QUICK, optimizer=optimizer)
    best = training.train(experiment, everything, tmp_path)
    last = read(tmp_path / "last.safetensors").network
    for key, value in last.state_dict().items():
        assert torch.equal(best.state_dict()[key], value)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert not any(key.startswith("validation") for record in records for key in record)
    with pytest.raises(DataError, match="there are no samples in this split"):
        training.evaluate(best, everything.validation)


def test_weight_decay_is_on_conv_and_linear_weights_only(digits: Dataset) -> None:
    network = QUICK.build(digits)
    groups = training.make_optimizer(network, QUICK.optimizer).param_groups
    by_decay = {group["weight_decay"]: {id(p) for p in group["params"]} for group in groups}
    for name, parameter in network.named_parameters():
        weight = name.endswith("connection.weight") or name == "classifier.weight"
        assert id(parameter) in by_decay[1e-4 if weight else 0.0], name


def test_one_step_equals_sgd_by_hand(tmp_path: Path, digits: Dataset) -> None:
    """One epoch of one batch: w - lr (grad + decay w), with the gradient of plain torch."""
    few = dataclasses.replace(digits, train=digits.train.subset(torch.arange(64)))
    experiment = dataclasses.replace(
        QUICK,
        optimizer=OptimizerConfig(epochs=1, batch_size=64, weight_decay=0.01),
    )
    network = experiment.build(few).train()
    loss = torch.nn.functional.cross_entropy(
        network(few.train.read(torch.arange(64))), few.train.labels
    )
    loss.backward()
    trained = training.train(experiment, few, tmp_path)
    weight = network.classifier.weight
    assert weight.grad is not None
    expected = weight - 0.1 * (weight.grad + 0.01 * weight)
    torch.testing.assert_close(trained.classifier.weight, expected, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, digits: Dataset) -> None:
    wild = dataclasses.replace(QUICK, optimizer=OptimizerConfig(epochs=3, learning_rate=1e6))
    with pytest.raises(SpikefoldError, match="the loss is"):
        training.train(wild, digits, tmp_path)
    assert (tmp_path / "last.safetensors").exists()


def test_configurations_round_trip_and_refuse_unknown_keys(tmp_path: Path) -> None:
    QUICK.save(tmp_path / "c.json")
    assert Experiment.load(tmp_path / "c.json") == QUICK
    augmentation = Augmentation(color_jitter=(0.1, 0.2, 0.3, 0.4))
    data = DataConfig("recordings", sensor=(640, 480), validation=0.0, augmentation=augmentation)
    tuples = dataclasses.replace(QUICK, data=data)
    tuples.save(tmp_path / "t.json")
    assert Experiment.load(tmp_path / "t.json") == tuples
    record = json.loads((tmp_path / "c.json").read_text())
    record["model"]["widht"] = 2
    (tmp_path / "c.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"c\.json: .* 'widht': did .* @ configuration.model$"):
        Experiment.load(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ConfigError, match=r"c\.json"):
        Experiment.load(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="epochs must lie in \\[1, 1000000\\]"):
        OptimizerConfig(epochs=0)


def test_potentials_are_those_of_a_hand_made_layer(digits: Dataset) -> None:
    network = QUICK.build(digits)
    for x, _ in digits.train.batches(256):
        network(x)
    images = digits.validation.read(torch.arange(len(digits.validation)))
    record = training.potentials(network, images)
    assert list(record) == [f"{name}.lif" for name in network.layers()]
    first = record["features.0.lif"]
    layer = network.layers()["features.0"].eval()
    with torch.no_grad():
        current = layer.norm(layer.connection(images))
        _, state = layer.lif.step(current)  # type: ignore[operator]
        u = torch.stack([current, 0.25 * state.v + current])
    assert first["before"]["mean"] == pytest.approx(u.mean().item(), rel=1e-4, abs=1e-5)
    assert first["before"]["deviation"] == pytest.approx(u.std().item(), rel=1e-3)
    widths = torch.tensor(first["before"]["edges"]).diff()
    mass = (widths * torch.tensor(first["before"]["density"])).sum().item()
    assert mass == pytest.approx(0.998, abs=0.002)
    assert first["before"] != first["after"]
    assert first["currents"]["mean"] == pytest.approx(current.mean().item(), rel=1e-4, abs=1e-5)
    assert [step["mean"] for step in first["before"]["steps"]] == pytest.approx(
        u.mean(dim=(1, 2, 3, 4)).tolist(), rel=1e-4, abs=1e-5
    )
    assert [step["deviation"] for step in first["before"]["steps"]] == pytest.approx(
        [step.std(correction=0).item() for step in u], rel=1e-4
    )


def test_thresholds_are_recorded_as_plain_json(digits: Dataset) -> None:
    import spikefold as sf

    network = QUICK.build(digits)
    norm = network.layers()["features.0"].lif.norm
    norm.weight.data[:3] = torch.tensor([-1.0, 0.0, 2.0])  # type: ignore[union-attr]
    record = training.thresholds(sf.fold(network))["features.0.lif"]
    assert record["negative_polarity"] == 1
    assert record["theta"][0] == pytest.approx(-0.5, abs=1e-4)
    assert record["theta"][1] == "inf"
    json.dumps(record, allow_nan=False)


def test_thresholds_of_time_steps_lie_one_after_another(digits: Dataset) -> None:
    import spikefold as sf

    experiment = replace(QUICK, model=replace(QUICK.model, options=Options("mpbn-steps", steps=2)))
    network = experiment.build(digits)
    norm = network.layers()["features.0"].lif.norm
    norm.bias.data[1] = 0.25  # type: ignore[union-attr]
    record = training.thresholds(sf.fold(network))["features.0.lif"]
    assert record["steps"] == 2
    first, second = record["theta"][:32], record["theta"][32:]
    assert len(second) == 32
    assert [a - b for a, b in zip(first, second, strict=True)] == pytest.approx(
        [0.25] * 32, abs=1e-4
    )


def test_a_raster_shows_the_spikes_of_the_first_sample(digits: Dataset) -> None:
    """Beside spikes as outputs, which no observer watches."""
    import spikefold as sf

    network = QUICK.build(digits)
    for x, _ in digits.train.batches(256):
        network(x)
    network.eval()
    images = digits.test.read(torch.tensor([3]))
    record = training.raster(network, images)
    logits, spikes = sf.with_spikes(network)(images)
    assert record["predicted"] == int(logits[0].argmax())
    assert list(record["layers"]) == list(spikes)
    fired = 0
    for name, layer in record["layers"].items():
        flat = spikes[name][:, 0].flatten(1)
        assert layer["shape"] == list(spikes[name].shape[2:])
        assert len(set(layer["neurons"])) == min(64, flat.shape[1])
        for t, rows in enumerate(layer["fired"]):
            shown = [layer["neurons"][row] for row in rows]
            assert shown == [n for n in layer["neurons"] if flat[t, n] > 0]
            fired += len(rows)
    assert fired > 0
    json.dumps(record, allow_nan=False)


def test_confusions_count_what_the_accuracy_counts(digits: Dataset) -> None:
    network = QUICK.build(digits).eval()
    confusions: Counter[tuple[int, int]] = Counter({(0, 0): 5})
    record = training.evaluate(network, digits.test, 100, confusions=confusions)
    with torch.no_grad():
        predicted = network(digits.test.read(torch.arange(len(digits.test)))).argmax(1)
    expected = Counter(zip(digits.test.labels.tolist(), predicted.tolist(), strict=True))
    assert confusions == expected + Counter({(0, 0): 5})
    assert record["correct"] == sum(n for (label, other), n in expected.items() if label == other)


def test_learning_rate_by_hand() -> None:
    config = OptimizerConfig(epochs=6, learning_rate=0.1, warmup_epochs=2)
    rates = [training.learning_rate(config, epoch) for epoch in range(6)]
    half = math.sqrt(0.5)
    expected = [0.1 / 3, 0.2 / 3, 0.1, 0.05 * (1 + half), 0.05, 0.05 * (1 - half)]
    assert rates == pytest.approx(expected)
