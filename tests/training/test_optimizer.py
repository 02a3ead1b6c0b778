"""AdamW against the equations of its paper, schedules, and training that goes on with it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import spikefold as sf
from spikefold import training
from spikefold.data import Dataset, load_dataset
from spikefold.errors import ConfigError
from spikefold.models import Options
from spikefold.saving import read
from spikefold.training import Experiment, HardwareConfig, ModelConfig, OptimizerConfig

ADAMW = Experiment(
    model=ModelConfig("small", Options(width=0.1, steps=2, learn_decay="channel")),
    optimizer=OptimizerConfig(
        2, 256, "adamw", 0.01, "constant", momentum=0.8, beta2=0.95, weight_decay=0.3
    ),
    hardware=HardwareConfig(precision="float64"),
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Two batches an epoch."""
    dataset = load_dataset("digits")
    return dataclasses.replace(dataset, train=dataset.train.subset(torch.arange(512)))


def test_adamw_is_that_of_its_paper(digits: Dataset, tmp_path: Path) -> None:
    """Loshchilov and Hutter, ICLR 2019, algorithm 2, with the learning rate as the factor."""
    training.train(ADAMW, digits, tmp_path)
    network = ADAMW.build(digits).double().train()
    values = dict(network.named_parameters())
    m, v = ({name: torch.zeros_like(p) for name, p in values.items()} for _ in range(2))
    step, decayed = 0, []
    for epoch in range(2):
        order = digits.train.order(torch.Generator().manual_seed(epoch))
        for places in order.split(256):
            step += 1
            loss = F.cross_entropy(
                network(digits.train.read(places).double()), digits.train.labels[places]
            )
            grads = torch.autograd.grad(loss, list(values.values()))
            for (name, p), grad in zip(values.items(), grads, strict=True):
                m[name] = 0.8 * m[name] + 0.2 * grad
                v[name] = 0.95 * v[name] + 0.05 * grad * grad
                change = (m[name] / (1 - 0.8**step)) / ((v[name] / (1 - 0.95**step)).sqrt() + 1e-8)
                if name.endswith(("connection.weight", "classifier.weight")):
                    change = change + 0.3 * p.detach()
                    decayed.append(name)
                p.data -= 0.01 * change
    assert len(set(decayed)) == 5
    assert any(name.endswith("lif.w") for name in values)
    trained = read(tmp_path / "last.safetensors").network.state_dict()
    for name, p in values.items():
        torch.testing.assert_close(trained[name], p.detach(), rtol=1e-6, atol=1e-7)


def test_it_goes_on_to_the_same_bits(digits: Dataset, tmp_path: Path) -> None:
    half = dataclasses.replace(ADAMW, optimizer=dataclasses.replace(ADAMW.optimizer, epochs=1))
    training.train(ADAMW, digits, tmp_path / "whole")
    training.train(half, digits, tmp_path / "halves")
    training.train(ADAMW, digits, tmp_path / "halves", resume=True)
    whole, halves = (read(tmp_path / n / "last.safetensors") for n in ("whole", "halves"))
    assert whole.tensors.keys() == halves.tensors.keys()
    assert {key.rpartition(":")[2] for key in whole.tensors} == {"step", "exp_avg", "exp_avg_sq"}
    for key, value in whole.tensors.items():
        assert torch.equal(value, halves.tensors[key]), key
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, halves.network.state_dict()[key]), key


def test_adamw_learns(digits: Dataset, tmp_path: Path) -> None:
    optimizer = OptimizerConfig(6, 32, "adamw", 0.005, weight_decay=0.01)
    model = ModelConfig("small", Options(width=0.25, steps=2))
    network = training.train(Experiment(model=model, optimizer=optimizer), digits, tmp_path)
    assert training.evaluate(network, digits.test)["accuracy"] > 0.7
    assert sf.verify(network, sf.fold(network), digits.test.batches(128)).mismatches == 0


def test_schedules() -> None:
    warm = OptimizerConfig(epochs=6, learning_rate=0.3, warmup_epochs=2, schedule="constant")
    rates = [training.learning_rate(warm, epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3, 0.3])
    cosine = dataclasses.replace(warm, schedule="cosine")
    rates = [training.learning_rate(cosine, epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.2560660, 0.15, 0.0439340])


@pytest.mark.usefixtures("as_user")
def test_what_no_optimizer_can_take() -> None:
    for changes, message in (
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\)"),
        ({"name": "adam"}, "name must be one of sgd, adamw, got 'adam'"),
        ({"schedule": "step"}, "schedule must be one of cosine, constant, got 'step'"),
    ):
        with pytest.raises(ConfigError, match=message):
            OptimizerConfig(**changes)  # type: ignore[arg-type]
