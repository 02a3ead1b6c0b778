"""Two processes against one with the whole batch."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold import dynamics, training
from spikefold.data import Dataset, load_dataset
from spikefold.dynamics import Normalization
from spikefold.errors import ConfigError
from spikefold.models import Options
from spikefold.nn import SynchronizedBatchNorm, synchronize_statistics
from spikefold.training import Experiment, HardwareConfig, ModelConfig, OptimizerConfig

BASE = Experiment(
    model=ModelConfig(options=Options(width=0.25, steps=2)),
    optimizer=OptimizerConfig(epochs=2, batch_size=128, learning_rate=0.05),
    hardware=HardwareConfig(precision="float64"),  # so that rounding flips no spike
)
SCRIPT = """
import dataclasses
from pathlib import Path
import torch
from spikefold import training
from spikefold.data import Dataset, load_dataset

if __name__ == "__main__":
    dataset = load_dataset("digits")
    even = dataclasses.replace(dataset, train=dataset.train.subset(torch.arange(1280)))
    training.train(training.Experiment.load(Path("e.json")), even, Path("run"))
"""


def losses(directory: Path) -> torch.Tensor:
    """Training and validation loss of each epoch."""
    records = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return torch.tensor([[r["train_loss"], r["validation_loss"]] for r in records])


def thetas(directory: Path) -> torch.Tensor:
    """All folded thresholds of the last checkpoint."""
    folded = sf.fold(sf.load(directory / "last.safetensors"))
    modules = [m for m in folded.modules() if isinstance(m, sf.FoldedLIF)]
    return torch.cat([module.theta for module in modules])


def even() -> Dataset:
    """Digits without the one sample that two processes cannot share."""
    dataset = load_dataset("digits")
    return dataclasses.replace(dataset, train=dataset.train.subset(torch.arange(1280)))


def two_processes(directory: Path, *, synchronize: bool) -> Path:
    """Train with two processes, by a script of its own, as a user would."""
    directory.mkdir()
    hardware = dataclasses.replace(BASE.hardware, devices=2, synchronize=synchronize)
    dataclasses.replace(BASE, hardware=hardware).save(directory / "e.json")
    (directory / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=directory, check=True, env=environment, timeout=900)
    return directory / "run"


@pytest.mark.slow
def test_synchronized_statistics_equal_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    one = tmp_path / "one"
    training.train(BASE, even(), one)
    together = two_processes(tmp_path / "together", synchronize=True)
    torch.testing.assert_close(losses(together), losses(one), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(thetas(together), thetas(one), rtol=1e-5, atol=1e-5)
    apart = two_processes(tmp_path / "apart", synchronize=False)
    assert (losses(apart) - losses(one)).abs().max() > 1e-4  # so the comparison can fail


@pytest.mark.slow
def test_torchrun_trains_as_processes_of_its_own_do(tmp_path: Path) -> None:
    """With averaged weights; what two processes trained is folded."""
    words = ["digits", "--hardware.devices", "2", "--optimizer.epochs", "1", "--model.width"]
    words += ["0.25", "--model.steps", "2", "--optimizer.ema-decay", "0.9", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]

    def start(launcher: list[str], *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *launcher, "-m", "spikefold.cli", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    own = start([], "run", *words, str(tmp_path / "own"), "--json")
    assert own.returncode == 0, own.stderr
    assert json.loads(own.stdout)["fold"]["mismatches"] == 0
    launched = start(torchrun, "train", *words, str(tmp_path / "launched"))
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("best checkpoint") == 1
    assert torch.equal(losses(tmp_path / "launched"), losses(tmp_path / "own"))
    again = start(torchrun, "train", *words, str(tmp_path / "launched"))
    assert again.returncode != 0
    assert "launched holds a run" in again.stderr
    assert "Traceback" not in again.stderr.split("launched holds a run")[0]


APART = """
import os, sys
from pathlib import Path
from spikefold import training
from spikefold.data import load_dataset
from spikefold.training import _loop

class Stopped(Exception):
    pass

train_epoch = _loop.train_epoch

def stopping(learner, dataset, experiment, epoch, on_batch):
    if epoch == 1 and sys.argv[2] == "stop":
        raise Stopped
    return train_epoch(learner, dataset, experiment, epoch, on_batch)

_loop.train_epoch = stopping
directory = Path(sys.argv[1]) / os.environ["RANK"]
experiment = training.Experiment.load(Path(sys.argv[1]) / "e.json")
try:
    resume = sys.argv[2] == "resume"
    best = training.train(experiment, load_dataset("digits"), directory, resume=resume)
    total = sum(float(v.double().abs().sum()) for v in best.state_dict().values())
    (Path(sys.argv[1]) / f"best-{os.environ['RANK']}").write_text(repr(total))
except Stopped:
    pass
"""


def apart(directory: Path, word: str) -> subprocess.CompletedProcess[str]:
    """Two processes of torchrun, each with a directory of its own, as on nodes that share none."""
    (directory / "apart.py").write_text(APART)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*torchrun, "apart.py", ".", word],
        cwd=directory, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.mark.slow
def test_processes_that_share_no_files_resume_and_end_alike(tmp_path: Path) -> None:
    hardware = dataclasses.replace(BASE.hardware, devices=2)
    optimizer = dataclasses.replace(BASE.optimizer, ema_decay=0.9)
    experiment = dataclasses.replace(BASE, hardware=hardware, optimizer=optimizer)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        experiment.save(tmp_path / name / "e.json")
    apart(tmp_path / "whole", "resume").check_returncode()  # nothing is there: it begins
    # A cut: one process may find the other gone, so how they end does not count.
    apart(tmp_path / "stopped", "stop")
    assert len(losses(tmp_path / "stopped" / "0")) == 1
    # left over from elsewhere: what the others find does not count
    shutil.copytree(tmp_path / "whole" / "0", tmp_path / "stopped" / "1")
    apart(tmp_path / "stopped", "resume").check_returncode()
    assert not (tmp_path / "whole" / "1").exists()
    assert torch.equal(losses(tmp_path / "stopped" / "0"), losses(tmp_path / "whole" / "0"))
    best = {(tmp_path / n / f"best-{r}").read_text() for n in ("whole", "stopped") for r in (0, 1)}
    assert len(best) == 1
    # an error of the first process is all processes' error
    other = dataclasses.replace(experiment, seed=1)
    other.save(tmp_path / "stopped" / "e.json")
    refused = apart(tmp_path / "stopped", "resume")
    assert refused.returncode != 0
    assert "ConfigError: cannot resume with another configuration" in refused.stderr


@pytest.mark.slow
def test_an_error_in_a_process_of_several_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ["train", "digits", "--hardware.devices", "2", "--out", str(tmp_path / "file" / "run")]
    found = subprocess.run(
        [sys.executable, "-m", "spikefold.cli", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert found.stderr.splitlines()[-1].startswith("spikefold: cannot write")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_synchronized_networks_are_copied_averaged_folded_and_saved(tmp_path: Path) -> None:
    plain = sf.models.small(in_channels=1, width=0.25, steps=2)
    network = synchronize_statistics(plain)
    x = torch.rand(6, 1, 8, 8)
    network(x)
    average = torch.optim.swa_utils.AveragedModel(network)
    assert torch.equal(average.module.eval()(x), network.eval()(x))
    copied = copy.deepcopy(network.train())
    assert torch.equal(copied(x), network(x))
    sf.save(network.eval(), tmp_path / "network.safetensors")
    assert torch.equal(sf.load(tmp_path / "network.safetensors")(x), network(x))
    if dynamics.missing_kernels("cpu") is None:
        with sf.backend("fused"):  # evaluation takes no statistics
            network(x)
    folded = sf.fold(network)
    assert sf.verify(network, folded, [x]).mismatches == 0
    fused = sf.fuse_conv_bn(folded)
    assert sf.verify(folded, fused, [x]).mismatch_rate < 1e-2
    sf.save(fused, tmp_path / "fused.safetensors")
    assert torch.equal(sf.load(tmp_path / "fused.safetensors")(x), fused(x))


class OwnNorm(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2


class OwnMembrane(sf.MPBN):
    def forward(self, u: torch.Tensor, t: int = 0) -> torch.Tensor:
        return super().forward(u, t) * 2


class OwnCurrents(sf.CurrentNorm):
    def normalization(self) -> Normalization:
        one = torch.ones(1, *self.shape)
        return Normalization(one, one, 1e-5)  # of the batch, but of which processes?


@pytest.mark.usefixtures("alone")
def test_only_what_is_known_is_synchronized() -> None:
    norm = nn.BatchNorm2d(3).requires_grad_(False)
    norm.weight.fill_(2.0)
    row = nn.Sequential(norm, nn.Sequential(norm), nn.SyncBatchNorm(3), nn.GroupNorm(3, 3))
    row.eval()
    found = synchronize_statistics(row)
    assert found[0] is found[1][0]  # by both its names
    assert [type(found[place]) for place in (2, 3)] == [nn.SyncBatchNorm, nn.GroupNorm]
    assert not any(p.requires_grad for p in found[0].parameters())
    assert not found[0].training
    assert found[0].weight is not norm.weight
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(found[0](x), norm(x))
    hooked = nn.BatchNorm2d(3)
    hooked.register_forward_hook(lambda module, args, y: y * 2)
    for strange, message in (
        (OwnNorm(3), r"layer '0' \(OwnNorm\): only torch's own batch norms"),
        (hooked, r"layer '0' \(BatchNorm2d\): it carries hooks"),
        (sf.LIF(OwnMembrane(3)), "layer '0.norm': OwnMembrane has a forward of its own"),
        (OwnCurrents(3), "layer '0': the normalization of OwnCurrents leaves out its group"),
    ):
        with pytest.raises(ConfigError, match=message):
            synchronize_statistics(nn.Sequential(strange))


@pytest.mark.usefixtures("alone")
def test_synchronized_modules_of_one_process_equal_the_plain_ones() -> None:
    """A group of one process: values, gradients and running statistics as without a group."""
    plain = sf.models.small(in_channels=1, width=0.25).double()
    group = synchronize_statistics(plain)
    kinds = [type(module) for module in group.modules()]
    assert kinds.count(SynchronizedBatchNorm) == 4
    assert not any(kind is nn.BatchNorm2d for kind in kinds)
    for x in torch.rand(3, 2, 6, 1, 8, 8, dtype=torch.float64):
        outputs = [network(x) for network in (plain, group)]
        torch.testing.assert_close(*outputs)
    grads = [
        torch.autograd.grad(output.square().sum(), list(network.parameters()))
        for output, network in zip(outputs, (plain, group), strict=True)
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(plain.buffers(), group.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(plain.eval()(x), group.eval()(x))


def test_what_cannot_be_distributed_is_refused() -> None:
    with pytest.raises(ConfigError, match="to be initialized"):
        synchronize_statistics(sf.models.small())
    with pytest.raises(ConfigError, match="torchrun"):
        training.train(
            dataclasses.replace(BASE, hardware=HardwareConfig(nodes=2)), even(), Path("unused")
        )


@pytest.mark.parametrize(
    ("accelerator", "devices", "here"), [("cuda", 1, 0), ("cuda", 3, 2), ("auto", 3, 2)]
)
def test_gpus_that_are_not_there_are_refused(
    accelerator: str, devices: int, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    hardware = HardwareConfig(accelerator=accelerator, devices=devices)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"GPUs asked for: {devices}, here: {here}"):
        training.train(dataclasses.replace(BASE, hardware=hardware), even(), Path("unused"))


def test_more_processes_than_cores_take_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    hardware = HardwareConfig(devices=2000)
    with pytest.raises(ConfigError, match="devices 2000 on 2 cores: processes would take turns"):
        training.train(dataclasses.replace(BASE, hardware=hardware), even(), Path("unused"))
