"""The options of training, each against plain torch or a hand calculation."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import spikefold as sf
from spikefold import training
from spikefold.cli import main
from spikefold.data import Dataset, TensorSamples, load_dataset
from spikefold.errors import ConfigError, FoldError, SpikefoldError
from spikefold.models import Options
from spikefold.saving import read
from spikefold.training import Experiment, HardwareConfig, ModelConfig, OptimizerConfig

# without normalization over the batch parts of a batch do not depend on each other
STEP = Experiment(
    model=ModelConfig(options=Options(width=0.25, steps=2)),
    optimizer=OptimizerConfig(epochs=1, batch_size=32, momentum=0.0, weight_decay=0.0),
    hardware=HardwareConfig(precision="float64"),
)


@pytest.fixture(scope="module")
def one_batch() -> Dataset:
    """Digits with 32 training images: an epoch is a step."""
    dataset = load_dataset("digits")
    return dataclasses.replace(dataset, train=dataset.train.subset(torch.arange(32)))


def stepped(dataset: Dataset, directory: Path, **changes: object) -> tuple[sf.models.Network, ...]:
    """The network before and after an epoch of one step."""
    optimizer = dataclasses.replace(STEP.optimizer, **changes)  # type: ignore[arg-type]
    experiment = dataclasses.replace(STEP, optimizer=optimizer)
    training.train(experiment, dataset, directory)
    return experiment.build(dataset).double(), read(directory / "last.safetensors").network


def gradients(network: sf.models.Network, dataset: Dataset, **options: float) -> list[torch.Tensor]:
    """Of the whole batch, by plain torch."""
    x = dataset.train.read(torch.arange(32)).double()
    loss = F.cross_entropy(network.train()(x), dataset.train.labels, **options)  # type: ignore[arg-type]
    return list(torch.autograd.grad(loss, list(network.parameters())))


def assert_moved(
    before: sf.models.Network, after: sf.models.Network, directions: list[torch.Tensor]
) -> None:
    """Every parameter went against its direction, at learning rate 0.1."""
    pairs = zip(before.parameters(), after.parameters(), directions, strict=True)
    for old, new, direction in pairs:
        torch.testing.assert_close(new, old - 0.1 * direction, rtol=1e-6, atol=1e-9)


def test_label_smoothing(one_batch: Dataset, tmp_path: Path) -> None:
    before, after = stepped(one_batch, tmp_path, label_smoothing=0.2)
    assert_moved(before, after, gradients(before, one_batch, label_smoothing=0.2))


def test_clipping(one_batch: Dataset, tmp_path: Path) -> None:
    before, after = stepped(one_batch, tmp_path, clip_norm=0.01)
    grads = gradients(before, one_batch)
    norm = torch.sqrt(sum((g * g).sum() for g in grads)).item()  # type: ignore[arg-type]
    assert norm > 0.02
    assert_moved(before, after, [g * (0.01 / (norm + 1e-6)) for g in grads])


def test_accumulated_parts_add_up_to_their_mean(one_batch: Dataset, tmp_path: Path) -> None:
    before, after = stepped(one_batch, tmp_path, accumulate=3)  # parts of 11, 11 and 10
    order = one_batch.train.order(torch.Generator().manual_seed(0))
    sums = [torch.zeros_like(p) for p in before.parameters()]
    before.train()
    for part in order.chunk(3):
        x = one_batch.train.read(part).double()
        loss = F.cross_entropy(before(x), one_batch.train.labels[part]) * len(part) / 32
        grads = torch.autograd.grad(loss, list(before.parameters()))
        sums = [total + grad for total, grad in zip(sums, grads, strict=True)]
    assert_moved(before, after, sums)


def test_averaged_weights_are_kept_and_resumed(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    optimizer = dataclasses.replace(STEP.optimizer, ema_decay=0.5, epochs=3, batch_size=256)
    experiment = dataclasses.replace(STEP, optimizer=optimizer)
    whole = training.train(experiment, digits, tmp_path / "whole")
    stored = read(tmp_path / "whole" / "last.safetensors")
    averaged = stored.tensors["average/module.classifier.weight"]
    assert (averaged - stored.network.classifier.weight).abs().max() > 1e-4
    assert stored.tensors["average/n_averaged"] == 3 * 6
    # one step: (1 - d) · new + d · old, with the first update a copy
    one = dataclasses.replace(experiment, optimizer=dataclasses.replace(optimizer, epochs=1))
    training.train(one, digits, tmp_path / "one")
    best = read(tmp_path / "one" / "best.safetensors").network
    stored = read(tmp_path / "one" / "last.safetensors")
    key = "average/module.classifier.weight"
    assert torch.equal(best.classifier.weight, stored.tensors[key])
    # resumed from the file, the averages go on to the same bits
    network = experiment.build(digits).double()
    average = training.make_average(network, optimizer)
    made = training.make_optimizer(network, optimizer)
    stored = training.read_checkpoint(tmp_path / "whole" / "last.safetensors", network)
    training.restore_checkpoint(stored, network, made, average)
    assert average is not None
    assert torch.equal(average.module.classifier.weight, averaged)
    assert whole.classifier.weight.dtype == torch.float64


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_mixed_precision_learns_with_float32_statistics(precision: str, tmp_path: Path) -> None:
    digits = load_dataset("digits")
    hardware = HardwareConfig(precision=precision)  # type: ignore[arg-type]
    optimizer = dataclasses.replace(STEP.optimizer, epochs=3, momentum=0.9)
    experiment = dataclasses.replace(STEP, hardware=hardware, optimizer=optimizer)
    network = training.train(experiment, digits, tmp_path)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}
    assert training.evaluate(network, digits.validation)["accuracy"] > 0.3
    assert sf.verify(network, sf.fold(network), digits.test.batches(64)).mismatches == 0


def test_channels_last_learns_the_same_and_lies_so(
    one_batch: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    inside = sf.SpikingLayer.forward

    def noticed(layer: sf.SpikingLayer, x: torch.Tensor, *shortcut: torch.Tensor) -> torch.Tensor:
        spikes = inside(layer, x, *shortcut)
        seen.append(spikes[0].is_contiguous(memory_format=torch.channels_last))
        return spikes

    monkeypatch.setattr(sf.SpikingLayer, "forward", noticed)
    hardware = dataclasses.replace(STEP.hardware, channels_last=True)
    training.train(dataclasses.replace(STEP, hardware=hardware), one_batch, tmp_path / "last")
    assert seen
    assert all(seen)
    stepped(one_batch, tmp_path / "first")
    ours, plain = (read(tmp_path / n / "last.safetensors").network for n in ("last", "first"))
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_first_layer_that_is_not_finite_is_named(one_batch: Dataset, tmp_path: Path) -> None:
    network = STEP.build(one_batch)
    x = one_batch.train.read(torch.arange(32))
    assert training.first_non_finite_layer(network, x) == "the readout"
    network.layers()["features.1"].connection.weight.data[3, 0, 0, 0] = torch.inf
    assert training.first_non_finite_layer(network, x) == "layer 'features.1.lif'"
    poisoned = TensorSamples(
        x.clone().index_fill_(0, torch.tensor([5]), torch.nan), one_batch.train.labels
    )
    with pytest.raises(SpikefoldError, match=r"epoch 1, step 1: .*layer 'features.0.lif'"):
        training.train(STEP, dataclasses.replace(one_batch, train=poisoned), tmp_path)
    assert (tmp_path / "last.safetensors").exists()


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("norm", "count", "accumulate", "fails"),
    [
        ("mpbn-element", 33, 1, True),  # the last batch is of one sample
        ("mpbn-element", 34, 1, False),
        ("mpbn-element", 34, 2, True),  # and its parts
        ("mpbn-element", 32, 32, True),  # all parts
        ("mpbn-element", 1, 1, True),
        ("mpbn", 33, 1, False),  # has 8x8 values of one sample
    ],
)
def test_a_sample_that_is_left_alone_is_told_before_the_first_epoch(
    tmp_path: Path, norm: sf.models.Norm, count: int, accumulate: int, fails: bool
) -> None:
    digits = load_dataset("digits")
    few = dataclasses.replace(digits, train=digits.train.subset(torch.arange(count)))
    options = dataclasses.replace(STEP.model.options, norm=norm)
    experiment = dataclasses.replace(
        STEP,
        model=dataclasses.replace(STEP.model, options=options),
        optimizer=dataclasses.replace(STEP.optimizer, batch_size=32, accumulate=accumulate),
    )
    if not fails:
        training.train(experiment, few, tmp_path)
        return
    with pytest.raises(sf.ConfigError, match="leave one sample alone"):
        training.train(experiment, few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recalibration_mixes_classes_that_lie_apart() -> None:
    """A batch of one class has statistics of its own: their variance misses what lies between."""
    inputs = torch.cat([torch.full((64, 1, 8, 8), level) for level in (0.0, 1.0)])
    samples = TensorSamples(inputs, torch.arange(2).repeat_interleave(64))
    digits = load_dataset("digits")
    new = training.recalibrate(STEP.build(digits), samples, batch_size=64)
    first = new.layers()["features.0"]
    convolved = first.connection(inputs)
    torch.testing.assert_close(
        first.norm.running_var, convolved.var((0, 2, 3)), rtol=0.05, atol=1e-5
    )
    other = training.recalibrate(STEP.build(digits), samples, batch_size=64, seed=1)
    assert not torch.equal(other.layers()["features.0"].norm.running_var, first.norm.running_var)


def test_folded_thresholds_keep_their_statistics() -> None:
    folded = sf.fold(STEP.build(load_dataset("digits")))
    with pytest.raises(FoldError, match="the network is folded, and its thresholds"):
        training.recalibrate(folded, load_dataset("digits").train)


def test_recalibrated_statistics_are_the_means_over_all_batches_and_steps() -> None:
    digits = load_dataset("digits")
    network = STEP.build(digits)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    new = training.recalibrate(network, digits.train, batch_size=256)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    # the first layer by hand: the image is the same at each step, so is the BN; u is x, then
    # what the reset left
    first = network.layers()["features.0"].train()
    means, variances, current_means = [], [], []
    with torch.no_grad():
        for x, labels in digits.train.batches(256, torch.Generator().manual_seed(0)):
            if len(labels) < 256:
                continue
            convolved = first.connection(x)
            current_means.append(convolved.mean((0, 2, 3)))
            current = first.norm(convolved)
            _, (v, _) = first.lif.step(current)
            for u in (current, 0.25 * v + current):
                means.append(u.mean((0, 2, 3)))
                variances.append(u.transpose(0, 1).flatten(1).var(1))
    calibrated = new.layers()["features.0"]
    membrane = calibrated.lif.norm
    for running, observed in (
        (calibrated.norm.running_mean, current_means),
        (membrane.running_mean, means),
        (membrane.running_var, variances),
    ):
        torch.testing.assert_close(running, torch.stack(observed).mean(0), rtol=1e-4, atol=1e-5)
    assert membrane.momentum == 0.1
    with pytest.raises(FoldError, match="less than a batch"):
        training.recalibrate(network, digits.train, batch_size=5000)


def test_epochs_come_in_different_orders_that_the_seed_decides(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    seen: list[list[int]] = []

    class Watched(TensorSamples):
        def order(self, generator: torch.Generator | None) -> torch.Tensor:
            order = super().order(generator)
            seen.append(order.tolist())
            return order

    assert isinstance(digits.train, TensorSamples)
    watched = Watched(digits.train.inputs, digits.train.labels)
    dataset = dataclasses.replace(digits, train=watched)
    optimizer = dataclasses.replace(STEP.optimizer, epochs=2, batch_size=512)
    for seed in (1, 1, 2):
        experiment = dataclasses.replace(STEP, optimizer=optimizer, seed=seed)
        training.train(experiment, dataset, tmp_path / str(len(seen)))
    assert seen[0] == seen[2]
    assert seen[1] == seen[3]
    assert len({tuple(order) for order in seen}) == 4


def test_tensorboard_logs_every_epoch(one_batch: Dataset, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hardware = HardwareConfig(tensorboard=True)
    optimizer = dataclasses.replace(STEP.optimizer, epochs=2)
    training.train(
        dataclasses.replace(STEP, hardware=hardware, optimizer=optimizer), one_batch, tmp_path
    )
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 0}, {"ema_decay": 1.0}, {"clip_norm": -1.0}, {"learning_rate": 0.0},
     {"warmup_epochs": 20}, {"label_smoothing": 1.5}, {"momentum": float("nan")}],
)  # fmt: skip
def test_bad_options_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        OptimizerConfig(**changes)


def test_standardized_inputs_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    experiment = Experiment(
        model=ModelConfig(options=Options(width=0.25, steps=2, standardize=True)),
        optimizer=OptimizerConfig(epochs=1),
    )
    seen = experiment.build(digits).input(digits.train.read(torch.arange(len(digits.train)))[None])
    assert abs(float(seen.mean())) < 1e-5
    assert float(seen.std(correction=0)) == pytest.approx(1, abs=1e-5)
    network = training.train(experiment, digits, tmp_path)
    folded = sf.fold(network)
    sf.save(folded, tmp_path / "folded.safetensors")
    again = sf.load(tmp_path / "folded.safetensors")
    x = digits.test.read(torch.arange(16))
    assert torch.equal(again(x), network(x))
    flat = TensorSamples(torch.ones(4, 1, 8, 8), torch.arange(4))
    with pytest.raises(ConfigError, match="the same in all samples"):
        experiment.build(dataclasses.replace(digits, train=flat))


@pytest.mark.slow
@pytest.mark.usefixtures("as_user")
def test_float64_from_training_to_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole road in float64: run, verify, evaluate, predict, as a user goes it."""
    out = tmp_path / "run"
    words = ["--optimizer.epochs", "1", "--model.width", "0.25", "--model.steps", "2"]
    image = tmp_path / "digit.png"
    Image.fromarray(np.full((8, 8), 128, dtype=np.uint8)).save(image)
    best, folded = str(out / "best.safetensors"), str(out / "folded.safetensors")
    for command in (
        ["run", "digits", *words, "--hardware.precision", "float64", "--out", str(out)],
        ["verify", best, folded, "--data", "digits"],
        ["evaluate", folded, "--data", "digits"],
        ["predict", folded, str(image)],
        ["recalibrate", best, "-o", str(tmp_path / "new.safetensors"), "--data", "digits"],
    ):
        assert main([*command, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        if command[0] == "verify":
            assert (record["mismatches"], record["not_finite"]) == (0, [0, 0])
    assert sf.load(folded).features[0].lif.theta.dtype == torch.float64


def test_half_precision_without_a_gpu_is_refused(one_batch: Dataset, tmp_path: Path) -> None:
    """Fabric would take bf16 instead, and the record would say fp16."""
    experiment = dataclasses.replace(STEP, hardware=HardwareConfig(precision="fp16"))
    with pytest.raises(ConfigError, match="fp16 needs a GPU; on a CPU take bf16"):
        training.train(experiment, one_batch, tmp_path / "run")
    assert not (tmp_path / "run").exists()
